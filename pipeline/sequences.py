"""Many values without a Python object for each: digests and texts as arrays of bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar, overload

import numpy as np

_AT_ONCE = 1 << 16  # values that are made objects of while they are gone through
_FEW = 3  # values that are printed


T = TypeVar("T")


class Lazy(Sequence[T]):
    """A sequence that makes its values when they are asked for, by `one` and `some`.

    It equals any sequence of the same values, and prints the first few.
    """

    def one(self, row: int) -> T:
        """Return a value.

        Raises:
            IndexError: there is none.
        """
        raise NotImplementedError

    def some(self, rows: slice) -> Sequence[T]:
        """Return some values."""
        return [self.one(row) for row in range(*rows.indices(len(self)))]

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[T]: ...
    def __getitem__(self, at: int | slice) -> T | Sequence[T]:
        return self.some(at) if isinstance(at, slice) else self.one(at)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        few = ", ".join(map(repr, self[:_FEW]))
        return f"({few}, …: {len(self):,})" if len(self) > _FEW else f"({few})"


class Digests(Lazy[bytes]):
    """N sha256, 32 bytes each.

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

    def one(self, row: int) -> bytes:
        """Return one of them."""
        return bytes(self.raw[row])

    def some(self, rows: slice) -> Digests:
        """Return some of them, without a copy."""
        return Digests(self.raw[rows])


class HexDigests(Lazy[str]):
    """N sha256 as hexadecimal texts.

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

    def one(self, row: int) -> str:
        """Return one of them."""
        return self.digests[row].hex()

    def some(self, rows: slice) -> HexDigests:
        """Return some of them, without a copy."""
        return HexDigests(self.digests.some(rows))

    @property
    def array(self) -> np.ndarray:
        """Return them as [N] fixed-length ASCII of 64 bytes."""
        return np.frombuffer(self.digests.raw.tobytes().hex().encode(), "S64")


class Texts(Lazy[str]):
    """N texts in fixed-length UTF-8, of which each is decoded when it is asked for.

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

    def one(self, row: int) -> str:
        """Return one of them."""
        return _decoded(bytes(self.array[row]))

    def some(self, rows: slice) -> Texts:
        """Return some of them, without a copy."""
        return Texts(self.array[rows])


def _decoded(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
