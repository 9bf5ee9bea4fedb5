"""Many values without a Python object for each: digests and texts as arrays of bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np

_AT_ONCE = 1 << 16  # values that are made objects of while they are gone through
_FEW = 3  # values that are printed


class Digests(Sequence[bytes]):
    """N sha256, a sequence of 32 bytes each. It equals any sequence of the same.

    Args:
        raw: [N, 32] uint8.

    Attributes:
        raw: as given.
    """

    def __init__(self, raw: np.ndarray):
        self.raw = np.ascontiguousarray(raw, np.uint8).reshape(-1, 32)

    @classmethod
    def of(cls, digests: Iterable[bytes]) -> Digests:
        """Return these digests."""
        if isinstance(digests, Digests):
            return digests
        return cls(np.frombuffer(b"".join(digests), np.uint8))

    @classmethod
    def of_hex(cls, digests: Iterable[str]) -> Digests:
        """Return these digests, given in hexadecimal.

        Raises:
            ValueError: one is no sha256.
        """
        if isinstance(digests, HexDigests):
            return digests.digests
        return cls(np.frombuffer(bytes.fromhex("".join(digests)), np.uint8))

    def take(self, rows: Sequence[int] | np.ndarray) -> Digests:
        """Return some of them."""
        return Digests(self.raw[np.asarray(rows, np.int64)])

    def __len__(self) -> int:
        return len(self.raw)

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self), _AT_ONCE):
            whole = self.raw[start : start + _AT_ONCE].tobytes()
            yield from (whole[at : at + 32] for at in range(0, len(whole), 32))

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> Digests: ...
    def __getitem__(self, at: int | slice) -> bytes | Digests:
        return Digests(self.raw[at]) if isinstance(at, slice) else self.raw[at].tobytes()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Digests):
            return np.array_equal(self.raw, other.raw)
        return _same(self, other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Return the first few, and how many there are."""
        return _shown(self)


class HexDigests(Sequence[str]):
    """N sha256 as hexadecimal texts. It equals any sequence of the same.

    Args:
        digests: that they are made of.

    Attributes:
        digests: as given.
    """

    def __init__(self, digests: Digests):
        self.digests = digests

    def __len__(self) -> int:
        return len(self.digests)

    def __iter__(self) -> Iterator[str]:
        return (digest.hex() for digest in self.digests)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> HexDigests: ...
    def __getitem__(self, at: int | slice) -> str | HexDigests:
        return HexDigests(self.digests[at]) if isinstance(at, slice) else self.digests[at].hex()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, HexDigests):
            return self.digests == other.digests
        return _same(self, other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Return the first few, and how many there are."""
        return _shown(self)

    @property
    def array(self) -> np.ndarray:
        """Return them as [N] fixed-length ASCII of 64 bytes."""
        return np.frombuffer(self.digests.raw.tobytes().hex().encode(), "S64")


class Texts(Sequence[str]):
    """N texts in fixed-length UTF-8, of which each is decoded when it is asked for.

    It equals any sequence of the same.

    Args:
        array: [N] of dtype `S`; bytes that are not UTF-8 come back as `surrogateescape`.

    Attributes:
        array: as given.
    """

    def __init__(self, array: np.ndarray):
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _AT_ONCE):
            yield from map(_decoded, self.array[start : start + _AT_ONCE].tolist())

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> Texts: ...
    def __getitem__(self, at: int | slice) -> str | Texts:
        return Texts(self.array[at]) if isinstance(at, slice) else _decoded(bytes(self.array[at]))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Texts):
            return np.array_equal(self.array, other.array)
        return _same(self, other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Return the first few, and how many there are."""
        return _shown(self)


def _decoded(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _shown(own: Sequence[Any]) -> str:
    few = ", ".join(repr(value) for value in own[:_FEW])
    return f"({few}, …: {len(own):,})" if len(own) > _FEW else f"({few})"


def _same(own: Sequence[Any], other: object) -> bool:
    if not isinstance(other, Sequence):
        return False
    return len(own) == len(other) and all(a == b for a, b in zip(own, other, strict=True))
