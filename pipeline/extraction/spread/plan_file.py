"""`PlanFile`: a plan in the cache, the same on every host, and the records of its parts.

A folder `cache/plans/<run>-<content>`: `plan.h5`, and for each part that is done a file that names
its shards, written last. Whatever names a file opens it by name: on NFS a listing may be a minute
old. Two plans of the same rows, or two processes that compute the same part, are harmless.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import DamagedError
from pipeline.extraction.plan import Done, Part, Parts, Plan, Rows
from pipeline.sequences import Lazy
from pipeline.store import hdf5
from pipeline.store.atomic import cannot_read, write_bytes
from pipeline.store.cache import Cache
from pipeline.store.shards import Index, Key, Keys, key_arrays
from pipeline.trunks.spec import FeatureKey

SCHEMA = 1
#: Seconds for which a file that another host wrote is looked for again.
PATIENCE = 5.0


@dataclass(frozen=True, eq=False)
class PlanFile:
    """A plan of one fingerprint, on disk. Two are equal when they are the same object.

    Attributes:
        folder: where it is.
        key: what its rows depend on.
        keys: (digest, view) of each image that was missing when it was made, in order.
        batch_size: images in a batch.
        ends: of each part, the number of images until there.
    """

    folder: Path
    key: FeatureKey
    keys: Sequence[Key]
    batch_size: int
    ends: tuple[int, ...]

    @classmethod
    def write(cls, cache: Cache, plan: Plan) -> PlanFile:
        """Write the plan of a pass over one fingerprint, and return it."""
        (rows,) = plan.rows
        parts = plan.parts
        meta = {
            "schema": SCHEMA,
            "key": rows.key.to_json(),
            "batch_size": parts.batch_size,
            "ends": parts.ends,
        }
        (image,) = hdf5.build({"meta": hdf5.text(meta), **key_arrays(parts.keys)})
        content = hashlib.sha256(image).hexdigest()[:16]
        run = cache.run_id(rows.key.fingerprint, plan.wanted)
        folder = cache.plans / f"{run}-{content}"
        if not (folder / "plan.h5").exists():
            write_bytes(folder / "plan.h5", image, what="the plan")
        return cls(folder, rows.key, parts.keys, parts.batch_size, tuple(parts.ends))

    @classmethod
    def read(cls, folder: Path) -> PlanFile:
        """Return the plan of a folder.

        Raises:
            DamagedError: there is none, or it is not what `write` wrote.
        """
        with hdf5.Reader(folder / "plan.h5") as reader:
            meta = reader.json("meta")
            keys = Keys(reader.array("digests"), reader.array("views"))
        try:
            if meta["schema"] != SCHEMA:
                raise ValueError(f"schema {meta['schema']}")
            key = FeatureKey.from_json(meta["key"])
            ends = tuple(int(end) for end in meta["ends"])
            if [*ends] != sorted({*ends}) or ends[-1:] != (len(keys),) or ends[0] < 1:
                raise ValueError("its parts are not all of it")
            return cls(folder, key, keys, int(meta["batch_size"]), ends)
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"The plan {folder} is damaged: {error}.") from error

    @classmethod
    def find(cls, cache: Cache, rows: Rows, wanted: Sequence[Key]) -> Iterator[PlanFile]:
        """Yield the plans of runs that want just these rows, and did not end."""
        run = cache.run_id(rows.key.fingerprint, wanted)
        for folder in sorted(cache.plans.glob(f"{run}-*")):
            with suppress(DamagedError):  # it is made anew
                yield cls.read(folder)

    def plan(
        self,
        cache: Cache,
        sources: Sequence[str | bytes],
        *,
        wanted: Sequence[Key] | None = None,
        index: Index | None = None,
    ) -> Plan:
        """Return the plan for a process that computes parts of it.

        Args:
            cache: where the rows are kept.
            sources: the path of each image, or its bytes.
            wanted: (digest, view) of all images that the run wants; None for those of the plan.
            index: of what is there; an empty one without.
        """
        parts = Parts(self.keys, sources, batch_size=self.batch_size, ends=self.ends)
        store = cache.rows(self.key.fingerprint)
        rows = Rows(self.key, store, Index() if index is None else index, list(self.keys))
        return Plan((rows,), self.keys if wanted is None else wanted, parts)

    def write_paths(self, paths: Sequence[str | bytes]) -> str:
        """Write where the images lie, for processes that see them there; return the file's name.

        They are not in the plan itself, which is the same where a folder is mounted elsewhere.
        """
        encoded = [os.fsencode(path) for path in paths]
        ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)
        whole = np.frombuffer(b"".join(encoded), np.uint8)
        (image,) = hdf5.build({"ends": ends, "paths": whole})
        name = f"paths-{hashlib.sha256(image).hexdigest()[:16]}.h5"
        write_bytes(self.folder / name, image, what="the plan's paths")
        return name

    def paths(self, name: str) -> Sequence[str | bytes]:
        """Return what `write_paths` wrote, of which each part reads its own."""
        with hdf5.Reader(self.folder / name) as reader:
            return _Paths(reader.map("ends"), reader.map("paths"))

    def note(self, done: Done) -> None:
        """Record that a part is done: its shards are committed, and nothing follows this.

        One of which images could not be read this time is none: who comes next tries them again.
        """
        if done.passing:
            return
        names = [shard.name for shard in done.shards[0]]
        record = json.dumps({"shards": names}).encode()
        write_bytes(self._record(done.part.number), record, what="the record of a part")

    def shards(self, number: int) -> list[str] | None:
        """Return the names of the shards of a part that is done, else None."""
        path = self._record(number)
        try:
            names = json.loads(path.read_bytes())["shards"]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise cannot_read("the record of a part", path, error) from error
        except (ValueError, KeyError, TypeError):
            return None  # as good as none: the part is done again
        return [str(name) for name in names]

    def _record(self, number: int) -> Path:
        return self.folder / f"{number}.json"


def told(done: Done) -> dict[str, Any]:
    """Return what came of a part as JSON values: names and what no shard says, but no rows."""
    return {
        "part": done.part.number,
        "shards": [shard.name for shard in done.shards[0]],
        "passing": [[digest.hex(), view, why] for (digest, view), why in done.passing],
        "sides": done.sides,
        "notes": done.notes,
    }


def heard(rows: Rows, part: Part, values: Mapping[str, Any]) -> Done:
    """Return what another process told of a part; a shard not seen yet is looked for again.

    Raises:
        DamagedError: a shard is missing or damaged.
    """
    until = time.monotonic() + PATIENCE
    while True:
        try:
            shards = tuple(rows.look_up(name) for name in values["shards"])
        except DamagedError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.1)
            continue
        passing = tuple(((bytes.fromhex(d), view), why) for d, view, why in values["passing"])
        said = [*passing, *chain.from_iterable(shard.bad for shard in shards)]
        there = {*chain.from_iterable(shard.keys for shard in shards), *(key for key, _ in said)}
        if not there.issuperset(part.keys):
            raise DamagedError(f"The shards of part {part.number} do not hold all of its images.")
        return Done(part, (shards,), passing, tuple(values["sides"]), tuple(values["notes"]))


class _Paths(Lazy[str | bytes]):
    """Paths in one array of bytes, decoded when they are asked for."""

    def __init__(self, ends: np.ndarray, whole: np.ndarray):
        self.ends, self.whole = ends, whole

    def __len__(self) -> int:
        return len(self.ends)

    def one(self, row: int) -> str:
        """Return a path."""
        if not 0 <= row < len(self):
            raise IndexError(row)
        start = int(self.ends[row - 1]) if row else 0
        return os.fsdecode(self.whole[start : int(self.ends[row])].tobytes())


def recover(cache: Cache, rows: Rows, wanted: Sequence[Key]) -> None:
    """Take into the rows what others did and a listing may not show yet: shards by their names."""
    for plan in PlanFile.find(cache, rows, wanted):
        for number in range(len(plan.ends)):
            for name in plan.shards(number) or ():
                if name not in rows.index.engines and name not in rows.index.damaged:
                    with suppress(DamagedError):  # it is gone: its rows are computed again
                        rows.enter(rows.look_up(name))
