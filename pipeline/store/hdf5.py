"""HDF5 images built in memory, and files opened without trusting them.

Every file of the cache holds contiguous, unfiltered datasets in its root group and nothing
else. What a stranger's file could make the library do beyond that (other files through
external storage, links or virtual datasets; shapes larger than the file) is refused before
anything is read.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.errors import DamagedError, PipelineError
from pipeline.locks import UNKNOWN_CALL
from pipeline.sequences import HexDigests, Texts
from pipeline.store.atomic import cannot_read

_AT_ONCE = 1 << 16  # texts that are encoded at once


@dataclass(frozen=True)
class Streamed:
    """An array that is written block by block, and never in memory as a whole.

    Attributes:
        shape: of the array.
        dtype: of the array.
        blocks: gives its values in C order, as arrays of any shape.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterable[np.ndarray]]

    @classmethod
    def of(cls, array: np.ndarray) -> Streamed:
        """Return an array that is there as one block."""
        return cls(array.shape, array.dtype, lambda: [array])

    @property
    def nbytes(self) -> int:
        """Return the bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize


def build(arrays: Mapping[str, np.ndarray], deferred: tuple[str, ...] = ()) -> list[memoryview]:
    """Return an HDF5 file as consecutive pieces, byte for byte the same for the same arrays.

    Args:
        arrays: dataset name to array; numbers, or fixed-length UTF-8 from `strings`.
        deferred: names whose bytes are not copied: they are the file's tail, in this order, each
            a piece of its own. Without them the file is one piece.
    """
    tail = {name: Streamed.of(arrays[name]) for name in deferred}
    return list(pieces({name: a for name, a in arrays.items() if name not in tail}, tail))


def pieces(arrays: Mapping[str, np.ndarray], tail: Mapping[str, Streamed]) -> Iterator[memoryview]:
    """Yield an HDF5 file as consecutive pieces; the blocks of its tail are asked for in order.

    Args:
        arrays: as in `build`.
        tail: name to each array that comes behind them, in this order.
    """
    buffer = io.BytesIO()
    offsets: dict[str, int] = {}
    with h5py.File(buffer, "w", libver=("earliest", "v110")) as file:
        datasets = {name: _create(file, name, array) for name, array in arrays.items()}
        datasets |= {name: _create(file, name, streamed) for name, streamed in tail.items()}
        for name, array in arrays.items():
            if array.size:
                shaped = np.ascontiguousarray(array).reshape(datasets[name].shape)
                datasets[name].write(h5py.h5s.ALL, h5py.h5s.ALL, shaped)
        for name, streamed in tail.items():
            if 0 not in streamed.shape:
                _set_aside(datasets[name], streamed)
                offsets[name] = datasets[name].get_offset()
    head, position = buffer.getbuffer(), 0
    for name, offset in offsets.items():
        before = head[position:offset]
        yield from (part for part in (before, memoryview(bytes(offset - position - len(before))))
                    if part)  # fmt: skip
        position = offset
        for block in tail[name].blocks():
            data = as_bytes(block)
            position += len(data)
            if data:
                yield data
    if rest := head[position:]:
        yield rest


def _set_aside(dataset: h5py.h5d.DatasetID, streamed: Streamed) -> None:
    """Make the library set the space of an array aside, by writing one element."""
    first, one = h5py.h5s.ALL, h5py.h5s.ALL
    if rank := len(streamed.shape):
        first, one = h5py.h5s.create_simple(streamed.shape), h5py.h5s.create_simple((1,))
        first.select_hyperslab((0,) * rank, (1,) * rank)
    dataset.write(one, first, np.zeros(1 if rank else (), streamed.dtype))


def _create(file: h5py.File, name: str, array: np.ndarray | Streamed) -> h5py.h5d.DatasetID:
    """Create a contiguous dataset that carries no time and is allocated when it is written."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plist.set_obj_track_times(False)
    space = h5py.h5s.create_simple(array.shape) if array.shape else h5py.h5s.create(h5py.h5s.SCALAR)
    kind = h5py.h5t.py_create(array.dtype, logical=True)
    return h5py.h5d.create(file.id, name.encode(), kind, space, plist)


def as_bytes(array: np.ndarray) -> memoryview:
    """Return an array's bytes in C order, without a copy where they are so already."""
    return memoryview(np.ascontiguousarray(array).data).cast("B")


def strings(values: Sequence[str]) -> np.ndarray:
    """Return fixed-length UTF-8 for a dataset; names that are not UTF-8 keep their bytes."""
    if isinstance(values, Texts | HexDigests):
        array = values.array
        return array.astype(h5py.string_dtype("utf-8", max(1, array.dtype.itemsize)), copy=False)
    some = []  # piece by piece: an object for each takes much memory
    for start in range(0, len(values), _AT_ONCE):
        encoded = [v.encode("utf-8", "surrogateescape") for v in values[start : start + _AT_ONCE]]
        some.append(np.array(encoded, "S"))
    array = np.concatenate(some) if some else np.empty(0, "S1")
    return array.astype(h5py.string_dtype("utf-8", array.dtype.itemsize))


def text(value: Any) -> np.ndarray:
    """Return a JSON value as a scalar string for a dataset."""
    data = json.dumps(value, sort_keys=True, ensure_ascii=True).encode()
    return np.array(data, dtype=h5py.string_dtype("utf-8", max(1, len(data))))


def to_strings(array: np.ndarray) -> tuple[str, ...]:
    """Return the inverse of `strings`; equal ones are one object."""
    values = array.tolist()
    known = {value: value.decode("utf-8", "surrogateescape") for value in {*values}}
    return tuple(known[value] for value in values)


class Reader:
    """Read the datasets of one file of the cache, each checked before it is touched.

    Args:
        path: the file.

    Raises:
        DamagedError: missing, not HDF5, or anything else than plain contiguous datasets.
        PipelineError: a system error; the file may be intact.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self.size = path.stat().st_size
            self.file = h5py.File(path, "r", locking=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise _failure(path, error, "it is not a readable HDF5 file.") from error

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def names(self) -> list[str]:
        """Return the datasets' names, sorted."""
        return sorted(self._guard(lambda: list(self.file.keys())))

    def dataset(self, name: str) -> h5py.Dataset:
        """Return a dataset that is known to lie inside this file, whole."""

        def get() -> h5py.Dataset:
            link = self.file.get(name, getlink=True)
            if link is None:
                raise DamagedError(f"{self.path} is damaged: it has no '{name}'.")
            if not isinstance(link, h5py.HardLink):
                raise DamagedError(f"{self.path} is refused: '{name}' is a link elsewhere.")
            dataset = self.file[name]
            if not isinstance(dataset, h5py.Dataset):
                raise DamagedError(f"{self.path} is refused: '{name}' is not a dataset.")
            plist = dataset.id.get_create_plist()
            if plist.get_external_count() or plist.get_layout() != h5py.h5d.CONTIGUOUS:
                raise DamagedError(
                    f"{self.path} is refused: '{name}' is not stored as plain numbers in the file."
                )
            # Fixed-size types alone: variable-length data and references point elsewhere.
            fixed = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING)
            kind = dataset.id.get_type()
            variable = isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()
            if kind.get_class() not in fixed or variable:
                raise DamagedError(f"{self.path} is refused: '{name}' has an unexpected type.")
            length = kind.get_size() * int(np.prod(dataset.shape, dtype=object))
            offset = dataset.id.get_offset()
            if length and (offset is None or offset + length > self.size):
                raise DamagedError(f"{self.path} is truncated: '{name}' ends beyond the file.")
            return dataset

        return self._guard(get)

    def array(self, name: str) -> np.ndarray:
        """Return a dataset's values, in memory."""
        dataset = self.dataset(name)
        values: np.ndarray = self._guard(lambda: np.asarray(dataset[()]))
        return values

    def json(self, name: str) -> Any:
        """Return the value that `text` stored."""
        dataset = self.dataset(name)
        try:
            return json.loads(self._guard(lambda: bytes(dataset[()])))
        except ValueError as error:
            raise DamagedError(f"{self.path} is damaged: '{name}' cannot be read.") from error

    def map(self, name: str) -> np.ndarray:
        """Return a numeric dataset as a read-only memory map of the file.

        Where its file system has no memory maps, it is read.
        """
        dataset = self.dataset(name)
        if not dataset.size:
            return np.empty(dataset.shape, dataset.dtype)
        offset = dataset.id.get_offset()
        try:
            return np.memmap(self.path, dataset.dtype, "r", offset=offset, shape=dataset.shape)
        except OSError as error:
            if error.errno in UNKNOWN_CALL | {errno.ENODEV}:
                return self.array(name)
            raise cannot_read("the file", self.path, error) from error

    def _guard(self, read: Any) -> Any:
        try:
            return read()
        except DamagedError:
            raise
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            raise _failure(self.path, error, str(error)) from error


def _failure(path: Path, error: Exception, reason: str) -> PipelineError:
    """Return damage, or the system's error without HDF5's paragraph about it."""
    if isinstance(error, OSError) and error.errno is not None:  # the system's, not HDF5's
        return cannot_read("the file", path, OSError(error.errno, os.strerror(error.errno)))
    return DamagedError(f"{path} is damaged: {reason}")
