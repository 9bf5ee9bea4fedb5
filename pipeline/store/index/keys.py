"""`Keys`: many (digest, view) as two arrays, and how they are looked for."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView
from functools import cached_property
from typing import TypeVar, overload

import numpy as np

from pipeline.sequences import Digests

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
        if isinstance(keys, KeyMap):
            return keys.own
        pairs = list(keys)
        return cls.of_digests(
            [digest for digest, _ in pairs], np.array([view for _, view in pairs], np.int32)
        )

    @classmethod
    def of_digests(cls, digests: Iterable[bytes], views: np.ndarray | None = None) -> Keys:
        """Return the keys of some digests; of view 0 where none are given."""
        joined = Digests.of(digests).raw
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

    def among(self, some: Mapping[Key, object]) -> np.ndarray:
        """Return which keys are in a small mapping, [N] bool."""
        found = np.zeros(len(self), bool)
        if some:
            places = np.flatnonzero(np.isin(self.codes, Keys.of(some).codes))
            found[places] = [key in some for key in self.take(places)]
        return found

    def distinct(self) -> np.ndarray:
        """Return the positions of the keys without those that equal an earlier one, ascending."""
        order = self.order
        equal = np.diff(self.codes[order]) == 0
        maybe = np.zeros(len(self), bool)
        maybe[order[1:][equal]] = maybe[order[:-1][equal]] = True
        places = np.flatnonzero(maybe)
        first: dict[Key, int] = {}
        for place, key in zip(places.tolist(), self.take(places), strict=True):
            first.setdefault(key, place)
        maybe[list(first.values())] = False
        return np.flatnonzero(~maybe)

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


T = TypeVar("T")


class KeyMap(Mapping[Key, T]):
    """Values of keys, in order, without a dictionary or a tuple for each.

    Args:
        own: N different keys.
        values: N.

    Attributes:
        own: as given.
    """

    def __init__(self, own: Keys, values: Sequence[T]):
        self.own, self._values = own, values

    def __len__(self) -> int:
        return len(self.own)

    def __iter__(self) -> Iterator[Key]:
        return iter(self.own)

    def __getitem__(self, key: Key) -> T:
        wanted, own = Keys.of([key]), self.own
        at = int(np.searchsorted(self._codes, wanted.codes[0]))
        while at < len(own) and self._codes[at] == wanted.codes[0]:
            if own[int(own.order[at])] == key:
                return self._values[int(own.order[at])]
            at += 1
        raise KeyError(key)

    @cached_property
    def _codes(self) -> np.ndarray:
        codes: np.ndarray = self.own.codes[self.own.order]
        return codes

    def items(self) -> ItemsView[Key, T]:
        """Return keys with their values."""
        return _Items(self)

    def values(self) -> ValuesView[T]:
        """Return the values."""
        return _Values(self)


class _Items(ItemsView[Key, T]):
    _mapping: KeyMap[T]

    def __iter__(self) -> Iterator[tuple[Key, T]]:
        return zip(self._mapping.own, self._mapping._values, strict=True)


class _Values(ValuesView[T]):
    _mapping: KeyMap[T]

    def __iter__(self) -> Iterator[T]:
        return iter(self._mapping._values)


def joined(several: Sequence[Keys]) -> Keys:
    """Return the keys of several, one behind the other."""
    if not several:
        return Keys(np.empty((0, 32), np.uint8), np.empty(0, np.int32))
    return Keys(
        np.concatenate([keys.digests for keys in several]),
        np.concatenate([keys.views for keys in several]),
    )
