"""What is hashed when it is written, and checked when it is read: arrays of a table's own file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from pipeline.errors import DamagedError
from pipeline.store import hdf5
from pipeline.store.hdf5 import Streamed


class Unread:
    """An array that is mapped, and hashed when it is asked for.

    Args:
        name: of the array.
        array: the map.
        checksum: what `checksum` has to give for it.
        damage: a sentence for where it gives something else.
    """

    def __init__(self, name: str, array: np.ndarray, checksum: str, damage: str):
        self.name, self.array, self.checksum, self.damage = name, array, checksum, damage
        self.shape = array.shape

    def __len__(self) -> int:
        return len(self.array)

    def read(self) -> np.ndarray:
        """Return the array.

        Raises:
            DamagedError: it is not what it was.
        """
        if checksum({self.name: self.array}) != self.checksum:
            raise DamagedError(self.damage)
        return self.array


def checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """Return sha256 over the names, dtypes, shapes and bytes of arrays, in the order of names."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        _add(total, name, arrays[name])
    return total.hexdigest()


def summed(arrays: Mapping[str, np.ndarray], tail: Mapping[str, Streamed]) -> dict[str, Streamed]:
    """Return what comes behind the arrays, hashed when it goes by, and the checksums."""
    sums = {f"{name}_checksum": _sum(hashlib.sha256(_described(name, tail[name]))) for name in tail}

    def blocks(name: str) -> Iterator[np.ndarray]:
        total = hashlib.sha256(_described(name, tail[name]))
        for block in tail[name].blocks():
            total.update(hdf5.as_bytes(block))
            yield block
        sums[f"{name}_checksum"] = _sum(total)

    def behind(name: str) -> list[np.ndarray]:
        return [sums[name]]

    def last() -> list[np.ndarray]:
        return [np.array(checksum({**arrays, **sums}).encode(), "S64")]

    hashed = {name: replace(tail[name], blocks=partial(blocks, name)) for name in sorted(tail)}
    for name in sorted(sums):
        hashed[name] = Streamed((), np.dtype("S64"), partial(behind, name))
    return {**hashed, "checksum": Streamed((), np.dtype("S64"), last)}


def _sum(total: hashlib._Hash) -> np.ndarray:
    return np.array(total.hexdigest().encode(), "S64")


def _add(total: hashlib._Hash, name: str, array: np.ndarray) -> None:
    total.update(_described(name, array))
    if array.size:
        total.update(hdf5.as_bytes(array))


def _described(name: str, array: np.ndarray | Streamed) -> bytes:
    return f"{name}|{array.dtype.kind}{array.dtype.itemsize}|{array.shape}|".encode()
