"""`Index`: what a fingerprint's shards hold, from segments on disk and what was found since."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from pipeline.store.index.keys import Key, Keys, joined
from pipeline.store.index.segment import Attached, Segment, merged

#: Segments on disk; more are merged into one.
MOST = 8


class Index:
    """What a fingerprint's shards hold. Shards are numbered in the order in which they came.

    Attributes:
        names: of the shards, by number.
        engines: shard name to the engine that computed it.
        damaged: names of shards that cannot be trusted, to the reason.
        bad: (digest, view) to the reason why there is no row; meant to be few.
        attached: the segments.
        kept: names of shards that this process has written to segments since.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.engines: dict[str, str] = {}
        self.damaged: dict[str, str] = {}
        self.bad: dict[Key, str] = {}
        self.attached: list[Attached] = []
        self.kept: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._served: set[str] = set()
        self._texts: dict[tuple[str, ...], int] = {}
        self._waiting: list[Segment] = []
        self._dropped: dict[Key, None] = {}

    @property
    def rows(self) -> Mapping[Key, tuple[str, int]]:
        """Return (digest, view) to the shard's name and the row in it; `find` looks up many."""
        return _Rows(self)

    @property
    def is_empty(self) -> bool:
        """Tell whether no shard has a row."""
        self._take_waiting()
        return not any(
            (one.numbers[one.segment.entries["rows"].shards] >= 0).any() for one in self.attached
        )

    def __contains__(self, key: object) -> bool:
        return key in self.bad or key in self.rows

    def attach(self, segment: Segment, alive: Sequence[bool] | None = None) -> None:
        """Take in a segment.

        Args:
            segment: what it says of a shard that the index has already is passed over.
            alive: [S] which of its shards are what they were; None for all.
        """
        numbers = np.full(len(segment.names), -1, np.int32)
        for place, name in enumerate(segment.names):
            if name not in self._served and (alive is None or alive[place]):
                self._served.add(name)
                numbers[place] = self._numbers.setdefault(name, len(self._numbers))
                self.engines[name] = segment.engines[place]
        self.names = list(self._numbers)
        said = [self._texts.setdefault(text, len(self._texts)) for text in segment.texts]
        self.attached.append(Attached(segment, numbers, np.array(said, np.int32)))

    def add(self, segment: Segment) -> None:
        """Take in a shard that was just committed or read."""
        self.engines |= dict(zip(segment.names, segment.engines, strict=True))
        self._waiting.append(segment)
        own, tried = segment.entries["bad"], segment.entries["rows"].keys
        if self.bad:
            for key in tried.take(np.flatnonzero(tried.among(self.bad))):
                del self.bad[key]  # it was tried again, and read
        for key, text in zip(own.keys, own.values.tolist(), strict=True):
            if key not in self.rows:
                self.bad[key] = segment.texts[text][0]

    def settle(self) -> None:
        """Find what the segments say is bad, and has no row."""
        self._take_waiting()
        texts = list(self._texts)
        found: dict[Key, tuple[str, str]] = {}
        for one in self.attached:
            entries = one.segment.entries["bad"]
            numbers = one.numbers[entries.shards]
            alive = np.flatnonzero(numbers >= 0)
            texts_of = one.texts[entries.values[alive]]
            told = zip(entries.keys.take(alive), numbers[alive], texts_of, strict=True)
            for key, number, text in told:
                said = (self.names[number], texts[text][0])
                found[key] = min(found.get(key, said), said)
        having = self.having(found)  # tried again, and read
        self.bad = {
            key: reason
            for (key, (_, reason)), row in zip(found.items(), having.tolist(), strict=True)
            if not row
        }

    def drop(self, key: Key, reason: str) -> None:
        """Treat an image as a bad one, whether it has a row or not."""
        self._dropped[key] = None
        self.bad[key] = reason

    def find(self, keys: Iterable[Key]) -> tuple[np.ndarray, np.ndarray]:
        """Return for N keys the number of the shard, -1 where there is no row, and the row in it.

        Of several shards that have a row the one with the smallest name counts. Both are int32 [N].
        """
        keys = Keys.of(keys)
        shards, rows = self._find("rows", keys)
        shards[keys.among(self._dropped)] = -1
        return shards, rows

    def having(self, keys: Iterable[Key]) -> np.ndarray:
        """Return which keys have a row, [N] bool."""
        found: np.ndarray = self.find(keys)[0] >= 0
        return found

    def known(self, keys: Iterable[Key]) -> np.ndarray:
        """Return which keys have a row or are known to be bad, [N] bool."""
        keys = Keys.of(keys)
        found: np.ndarray = self.having(keys) | keys.among(self.bad)
        return found

    def remarked(self, keys: Iterable[Key]) -> dict[int, tuple[str, ...]]:
        """Return position to remarks of those of N keys on which there are some."""
        shards, values = self._find("remarks", Keys.of(keys))
        texts = list(self._texts)
        places = np.flatnonzero(shards >= 0)
        return {at: texts[values[at]] for at in places.tolist()}

    def shards(self, keys: Iterable[Key]) -> list[str]:
        """Return the names of the shards that hold these keys' rows, sorted."""
        found = self.find(keys)[0]
        return sorted(self.names[number] for number in _distinct(found))

    def holding(self, keys: Iterable[Key]) -> set[str]:
        """Return the names of all shards that have a row of one of these keys, doubles included."""
        keys = Keys.of(keys)
        self._take_waiting()
        held: set[str] = set()
        for one in self.attached:
            entries = one.segment.entries["rows"]
            maybe = np.flatnonzero(np.isin(entries.keys.codes, keys.codes))
            numbers = one.numbers[entries.shards[maybe]]
            held |= {self.names[number] for number in _distinct(numbers)}
        return held

    def keys(self) -> Keys:
        """Return the keys that have a row, each once."""
        self._take_waiting()
        every = joined([one.segment.entries["rows"].keys for one in self.attached])
        _, first = np.unique(every.raw(), axis=0, return_index=True)
        once = every.take(first)
        return once.take(np.flatnonzero(self.having(once)))

    def unkept(self) -> list[tuple[Segment, np.ndarray]]:
        """Return what is to be merged into a new segment on disk, each with [S] bool of its shards.

        That is what is not there yet, with segments that are not much larger or have shards that
        are gone; and all of them where they are many.
        """
        self._take_waiting()
        fresh = []
        mapped = [one for one in self.attached if one.segment.path is not None]
        for one in self.attached:
            if one.segment.path is None:
                stamps = zip(one.segment.names, one.segment.stamps, strict=True)
                new = np.array([bool(at) and name not in self.kept for name, at in stamps])
                fresh += [(one.segment, new & (one.numbers >= 0))] if new.any() else []
        many = len(mapped) > MOST
        if not fresh and not many:
            return []
        size = sum(segment.size for segment, _ in fresh)
        for one in sorted(mapped, key=lambda one: one.segment.size):
            alive = one.numbers >= 0
            if many or one.segment.size <= 2 * size or not alive.all():
                fresh.append((one.segment, alive))
                size += one.segment.size
        return fresh

    def _find(self, kind: str, keys: Keys) -> tuple[np.ndarray, np.ndarray]:
        self._take_waiting()
        shards, values = np.full((2, len(keys)), -1, np.int32)
        rank = np.argsort(np.argsort(self.names)) if len(self.attached) > 1 else np.zeros(0)
        for one in self.attached:
            number, value = one.find(kind, keys)
            better = number >= 0
            both = np.flatnonzero(better & (shards >= 0))
            better[both] = rank[number[both]] < rank[shards[both]]
            shards[better], values[better] = number[better], value[better]
        return shards, values

    def _take_waiting(self) -> None:
        """Make what was committed since one segment, together with smaller ones in memory."""
        waiting = {one.names[0]: one for one in self._waiting}  # two may have made the same shard
        fresh = [one for name, one in waiting.items() if name not in self._served]
        self._waiting = []
        if not fresh:
            return
        size = sum(one.size for one in fresh)
        parts = [(one, np.ones(1, bool)) for one in fresh]
        for one in [each for each in self.attached if each.segment.path is None][::-1]:
            if one.segment.size <= 2 * size:
                size += one.segment.size
                parts.append((one.segment, one.numbers >= 0))
                self.attached.remove(one)
                self._served -= {*one.segment.names}
        self.attach(merged(parts))


def _distinct(numbers: np.ndarray) -> np.ndarray:
    """Return the numbers from 0 among some, each once; `np.unique` would import much else."""
    return np.flatnonzero(np.bincount(numbers[numbers >= 0]))


class _Rows(Mapping[Key, tuple[str, int]]):
    def __init__(self, index: Index):
        self._index = index

    def __getitem__(self, key: Key) -> tuple[str, int]:
        (shard,), (row,) = self._index.find([key])
        if shard < 0:
            raise KeyError(key)
        return self._index.names[shard], int(row)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._index.keys())

    def __len__(self) -> int:
        return len(self._index.keys())
