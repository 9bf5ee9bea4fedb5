"""`Keys`: many (digest, view) as two arrays, and how they are looked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import overload

import numpy as np

Key = tuple[bytes, int]  # digest (32 bytes), view

_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # odd: the views of a digest get codes far apart


class Keys(Sequence[Key]):
    """N keys of rows, a sequence of (digest, view) without an object for each.

    Args:
        digests: [N, 32] uint8.
        views: [N] int32.

    Attributes:
        digests: as given.
        views: as given.
    """

    def __init__(self, digests: np.ndarray, views: np.ndarray):
        self.digests = np.ascontiguousarray(digests, np.uint8).reshape(-1, 32)
        self.views = np.ascontiguousarray(views, np.int32)

    @classmethod
    def of(cls, keys: Iterable[Key]) -> Keys:
        """Return these keys in this order."""
        if isinstance(keys, Keys):
            return keys
        pairs = list(keys)
        return cls.of_digests(
            [digest for digest, _ in pairs], np.array([view for _, view in pairs], np.int32)
        )

    @classmethod
    def of_digests(cls, digests: Iterable[bytes], views: np.ndarray | None = None) -> Keys:
        """Return the keys of some digests; of view 0 where none are given."""
        joined = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
        return cls(joined, np.zeros(len(joined), np.int32) if views is None else views)

    @cached_property
    def codes(self) -> np.ndarray:
        """Return [N] uint64 by which keys are sorted and searched; equal keys have equal ones."""
        start = np.ascontiguousarray(self.digests[:, :8]).view(">u8").ravel()
        return start.astype(np.uint64) + self.views.astype(np.uint64) * _SPREAD

    @cached_property
    def order(self) -> np.ndarray:
        """Return the positions of the keys, sorted by code, [N] int64."""
        return np.argsort(self.codes, kind="stable")

    def raw(self) -> np.ndarray:
        """Return [N, 36] uint8: digest and view, little-endian."""
        return np.hstack([self.digests, self.views.astype("<i4").view(np.uint8).reshape(-1, 4)])

    def equal(self, other: Keys) -> np.ndarray:
        """Return which keys equal those of another of the same length, [N] bool."""
        mine, theirs = (keys.digests.view(np.uint64) for keys in (self, other))  # [N, 4]
        same: np.ndarray = (mine == theirs).all(1) & (self.views == other.views)
        return same

    def take(self, at: np.ndarray) -> Keys:
        """Return the keys at some positions."""
        return Keys(self.digests[at], self.views[at])

    def __len__(self) -> int:
        return len(self.views)

    def __iter__(self) -> Iterator[Key]:
        raw = self.digests.tobytes()
        pieces = (raw[start : start + 32] for start in range(0, len(raw), 32))
        return zip(pieces, self.views.tolist(), strict=True)

    @overload
    def __getitem__(self, at: int) -> Key: ...
    @overload
    def __getitem__(self, at: slice) -> Keys: ...
    def __getitem__(self, at: int | slice) -> Key | Keys:
        if isinstance(at, slice):
            return Keys(self.digests[at], self.views[at])
        return self.digests[at].tobytes(), int(self.views[at])


def joined(several: Sequence[Keys]) -> Keys:
    """Return the keys of several, one behind the other."""
    if not several:
        return Keys(np.empty((0, 32), np.uint8), np.empty(0, np.int32))
    return Keys(
        np.concatenate([keys.digests for keys in several]),
        np.concatenate([keys.views for keys in several]),
    )
