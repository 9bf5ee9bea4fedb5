"""`Segment`: what some shards hold, sorted by key; immutable, in memory or a file that is mapped.

A segment's file is one of a few in the folder `index` of a fingerprint. It may be lost at any
time: it says nothing that its shards do not say, and a shard whose size or times are others than
those that it names is read again.
"""

from __future__ import annotations

import json
import os
import secrets
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import DamagedError
from pipeline.store import hdf5
from pipeline.store.atomic import write_pieces
from pipeline.store.index.keys import Key, Keys, joined

SCHEMA = 1


class Stamp(NamedTuple):
    """What changes whenever a file does. Times can be set back, the change time cannot."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Return that of a file's status."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class Entries:
    """Sorted keys, each with a number, of several shards.

    Args:
        keys: M, sorted by code, and equal ones by the names of their shards.
        shards: [M] int32, places in the segment's list of shards.
        values: [M] int32: a row of the shard, or a place in the segment's list of texts.
    """

    def __init__(self, keys: Keys, shards: np.ndarray, values: np.ndarray):
        self.keys, self.shards, self.values = keys, shards, values

    @classmethod
    def sorted(cls, keys: Keys, shards: np.ndarray, values: np.ndarray) -> Entries:
        """Return entries that come in any order."""
        order = keys.order
        codes = keys.codes[order]
        if (codes[1:] == codes[:-1]).any():
            order = np.lexsort((shards, keys.codes))
        return cls(keys.take(order), shards[order], values[order])

    def find(self, keys: Keys, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Look keys up.

        Args:
            keys: N.
            numbers: of the segment's shards in the whole index; -1 for one that is gone.

        Returns:
            Of each key the number of the first shard that has it and is not gone, -1 where there
            is none, and the value there: [N] int32 each.
        """
        shards, values = np.full((2, len(keys)), -1, np.int32)
        count = len(self.shards)
        wanted = keys.order
        at = np.searchsorted(self.keys.codes, keys.codes[wanted])
        while len(wanted):
            inside = at < count
            wanted, at = wanted[inside], at[inside]
            same = self.keys.codes[at] == keys.codes[wanted]
            wanted, at = wanted[same], at[same]
            number = numbers[self.shards[at]]
            hit = (number >= 0) & self.keys.take(at).equal(keys.take(wanted))
            shards[wanted[hit]], values[wanted[hit]] = number[hit], self.values[at[hit]]
            wanted, at = wanted[~hit], at[~hit] + 1
        return shards, values

    def of_shards(self, places: np.ndarray) -> Entries:
        """Return the entries of some shards, numbered as `places` [S] says; -1 leaves one out."""
        shards = places[self.shards]
        kept = shards >= 0
        return Entries(self.keys.take(kept), shards[kept], self.values[kept])

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Return the datasets of a segment's file."""
        return {
            f"{name}.codes": self.keys.codes,
            f"{name}.digests": self.keys.digests,
            f"{name}.views": self.keys.views,
            f"{name}.shards": self.shards,
            f"{name}.values": self.values,
        }

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray], name: str) -> Entries:
        """Return the inverse of `arrays`."""
        keys = Keys(arrays[f"{name}.digests"], arrays[f"{name}.views"])
        keys.__dict__["codes"] = arrays[f"{name}.codes"]
        return cls(keys, arrays[f"{name}.shards"], arrays[f"{name}.values"])


#: What a segment has entries of: rows; images without one, to a reason; remarks on images.
KINDS = ("rows", "bad", "remarks")


@dataclass(frozen=True, eq=False)
class Segment:
    """What some shards hold. Two are equal when they are the same object.

    Attributes:
        names: of S shards, sorted.
        engines: that computed each.
        stamps: of each when it was last found whole; None where it has to be hashed again.
        entries: of each of `KINDS`.
        texts: reasons and remarks, each a tuple of sentences.
        replaces: names of the files of segments that it was merged from, one by one or at once.
        path: the file; None in memory.
    """

    names: tuple[str, ...]
    engines: tuple[str, ...]
    stamps: tuple[Stamp | None, ...]
    entries: Mapping[str, Entries]
    texts: tuple[tuple[str, ...], ...]
    replaces: tuple[str, ...] = ()
    path: Path | None = None

    @property
    def size(self) -> int:
        """Return how many rows it has."""
        return len(self.entries["rows"].shards)

    @classmethod
    def of_shard(
        cls,
        name: str,
        engine: str,
        stamp: Stamp | None,
        keys: Keys,
        bad: Iterable[tuple[Key, str]] = (),
        remarks: Iterable[tuple[Key, Sequence[str]]] = (),
    ) -> Segment:
        """Return the segment of one shard, whose rows are those of `keys` in order."""
        texts: dict[tuple[str, ...], int] = {}

        def entries(said: Iterable[tuple[Key, Sequence[str]]]) -> Entries:
            pairs = list(said)
            values = [texts.setdefault(tuple(text), len(texts)) for _, text in pairs]
            return _of_one(Keys.of(key for key, _ in pairs), np.array(values, np.int32))

        kinds = {
            "rows": _of_one(keys, np.arange(len(keys), dtype=np.int32)),
            "bad": entries((key, (reason,)) for key, reason in bad),
            "remarks": entries(remarks),
        }
        return cls((name,), (engine,), (stamp,), kinds, tuple(texts))

    def write(self, folder: Path) -> Segment:
        """Write it under a new name, and return it mapped.

        Raises:
            PipelineError: it cannot be written.
        """
        arrays: dict[str, np.ndarray] = {}
        for kind, entries in self.entries.items():
            arrays |= entries.arrays(kind)
        meta = {
            "schema": SCHEMA,
            "shards": list(zip(self.names, self.engines, self.stamps, strict=True)),
            "texts": self.texts,
            "replaces": self.replaces,
        }
        arrays["meta"] = hdf5.text(meta)
        sums = {name: _sum(array) for name, array in arrays.items()}
        large = tuple(f"rows.{column}" for column in ("codes", "digests"))
        pieces = hdf5.build({**arrays, "sums": hdf5.text(sums)}, deferred=large)
        path = folder / f"{secrets.token_hex(8)}.h5"
        write_pieces(path, pieces, what="the index")
        return Segment.read(path)

    @classmethod
    def read(cls, path: Path) -> Segment:
        """Return a segment's file, every byte of it checked.

        Raises:
            DamagedError: it is gone, damaged, or of another schema.
            PipelineError: a system error.
        """
        with hdf5.Reader(path) as reader:
            sums = reader.json("sums")
            names = [name for name in reader.names() if name not in ("sums", "meta")]
            arrays = {name: reader.map(name) for name in names}
            meta = {"meta": reader.array("meta")}
        if not isinstance(sums, dict) or sums != {n: _sum(a) for n, a in (arrays | meta).items()}:
            raise DamagedError(f"The index {path} is damaged.")
        given: dict[str, Any] = json.loads(bytes(meta["meta"][()]))
        if given["schema"] != SCHEMA:
            raise DamagedError(f"The index {path} is of another release.")
        return cls(
            tuple(name for name, _, _ in given["shards"]),
            tuple(engine for _, engine, _ in given["shards"]),
            tuple(None if stamp is None else Stamp(*stamp) for _, _, stamp in given["shards"]),
            {kind: Entries.of_arrays(arrays, kind) for kind in KINDS},
            tuple(tuple(text) for text in given["texts"]),
            tuple(given["replaces"]),
            path,
        )


def _of_one(keys: Keys, values: np.ndarray) -> Entries:
    return Entries.sorted(keys, np.zeros(len(keys), np.int32), values)


def _sum(array: np.ndarray) -> str:
    """Return what a flipped bit changes; nobody is kept from forging it."""
    data = hdf5.as_bytes(array) if array.size else b""
    return f"{array.dtype.str} {array.shape} {zlib.crc32(data):08x}"


def merged(several: Sequence[tuple[Segment, np.ndarray]]) -> Segment:
    """Return one segment of the shards of several.

    Args:
        several: each with [S] bool, which of its shards are to be in it; none is in two.
    """
    shards = sorted(
        (name, engine, stamp)
        for segment, kept in several
        for name, engine, stamp, keep in zip(
            segment.names, segment.engines, segment.stamps, kept, strict=True
        )
        if keep
    )
    places = {name: place for place, (name, _, _) in enumerate(shards)}
    texts: dict[tuple[str, ...], int] = {}
    parts: dict[str, list[Entries]] = {kind: [] for kind in KINDS}
    for segment, kept in several:
        moved = np.array(
            [places[n] if keep else -1 for n, keep in zip(segment.names, kept, strict=True)],
            np.int32,
        )
        said = np.array([texts.setdefault(text, len(texts)) for text in segment.texts], np.int32)
        for kind in KINDS:
            part = segment.entries[kind].of_shards(moved)
            values = part.values if kind == "rows" else said[part.values]
            parts[kind].append(Entries(part.keys, part.shards, values))
    entries = {
        kind: Entries.sorted(
            joined([part.keys for part in some]),
            np.concatenate([part.shards for part in some]),
            np.concatenate([part.values for part in some]),
        )
        for kind, some in parts.items()
    }
    return Segment(
        tuple(name for name, _, _ in shards),
        tuple(engine for _, engine, _ in shards),
        tuple(stamp for _, _, stamp in shards),
        entries,
        tuple(texts),
        tuple(
            name
            for segment, _ in several
            if segment.path is not None
            for name in (segment.path.name, *segment.replaces)
        ),
    )


class Attached:
    """A segment in an index.

    Args:
        segment: as it is.
        numbers: [S] int32 of its shards in the index; -1 for one that is gone, or is in another.
        texts: [T] int32 of its texts in the index.
    """

    def __init__(self, segment: Segment, numbers: np.ndarray, texts: np.ndarray):
        self.segment, self.numbers, self.texts = segment, numbers, texts

    def find(self, kind: str, keys: Keys) -> tuple[np.ndarray, np.ndarray]:
        """Return as `Entries.find`, values that are texts as numbers of the index."""
        shards, values = self.segment.entries[kind].find(keys, self.numbers)
        if kind != "rows":
            hit = shards >= 0
            values[hit] = self.texts[values[hit]]
        return shards, values
