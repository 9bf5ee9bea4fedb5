"""Shards: an append-only, content-addressed map from (digest, view) to rows of one shape.

A shard is an immutable HDF5 file named by the sha256 of its own bytes, in the folder of the
fingerprint that its numbers belong to. It holds `digests` [n, 32] uint8, `views` [n] int32,
`rows` [n, ...] and `meta`, a JSON object that also lists the images of its batch that could not
be decoded, so that a resumed run cuts the same batches, and remarks on those that were.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import locks
from pipeline.errors import DamagedError, LockedError, PipelineError
from pipeline.progress import Progress, Silent
from pipeline.store import hdf5
from pipeline.store.atomic import cannot, cannot_read, file_clock, make_folder, remove, write_bytes
from pipeline.store.index import kept
from pipeline.store.index.index import Index
from pipeline.store.index.keys import Key, KeyMap, Keys
from pipeline.store.index.segment import Segment, Stamp

__all__ = ["Index", "Key", "KeyMap", "Keys", "RowStore", "key_arrays"]

SCHEMA = 1
#: The folder of what is kept of an index, beside the shards.
INDEX = "index"
#: A shard that changed so many seconds before it was hashed may change again without its times
#: changing, and is hashed again the next time. Two seconds is FAT's clock.
RACY = 2.0
#: Bytes of rows that are gathered at once when a table is written.
BLOCK = 16 << 20
_POLL = 0.2  # seconds between two looks at a lock that another process holds
_NAME, _FOLDER = re.compile(r"[0-9a-f]{64}\.h5"), re.compile("[0-9a-f]{2}")


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder; nothing where there is none."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise cannot_read("the folder", folder, error) from error


def key_arrays(keys: Iterable[Key]) -> dict[str, np.ndarray]:
    """Return the datasets of n keys: `digests` [n, 32] uint8 and `views` [n] int32."""
    keys = Keys.of(keys)
    return {"digests": keys.digests, "views": keys.views}


class RowStore:
    """The shards of one fingerprint.

    Args:
        folder: `cache/rows/<fingerprint>`; made at the first commit.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.fingerprint = folder.name

    def path(self, name: str) -> Path:
        """Return where a shard is, or would be; 256 folders keep each of them short."""
        return self.folder / name[:2] / name

    def names(self) -> list[str]:
        """Return the names of the committed shards, sorted."""
        return sorted(entry.name for entry in self._entries())

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        for entry in _listed(self.folder):
            if _FOLDER.fullmatch(entry.name):
                for shard in _listed(Path(entry.path)):
                    if _NAME.fullmatch(shard.name) and shard.name.startswith(entry.name):
                        yield shard

    def _stamps(self) -> dict[str, Stamp]:
        """Return the names of the committed shards with their sizes and times."""
        stamps = {}
        try:
            for entry in self._entries():
                with suppress(FileNotFoundError):  # the collector has just removed it
                    stamps[entry.name] = Stamp.of(entry.stat())
        except OSError as error:
            raise cannot_read("the folder", self.folder, error) from error
        return stamps

    def index(self) -> Index:
        """Return what there is; damaged shards are left out and named.

        A shard is hashed unless it has the size and times under which it was last found whole,
        by the segments in the folder `index`. What is found is kept there, where that is allowed.
        """
        index, there = Index(), self._stamps()
        for segment in kept.segments(self.folder / INDEX):
            stamps = zip(segment.names, segment.stamps, strict=True)
            index.attach(segment, [there.get(name) == stamp for name, stamp in stamps])
        fresh = sorted(there.keys() - index.engines.keys())
        now = file_clock(self.folder.parent) if fresh else 0.0
        for name in fresh:
            try:
                index.add(self._read(name, now))
            except DamagedError as error:
                index.damaged[name] = str(error)
        index.settle()
        self.keep(index)
        return index

    def _read(self, name: str, now: float) -> Segment:
        """Hash a shard and return what it holds; its stamp only where that is sure to change."""
        stamp = self._stamp(name)
        keys, meta = self.check(name)
        sure = stamp == self._stamp(name) and now - stamp.ctime_ns / 1e9 > RACY
        return Segment.of_shard(
            name, meta["engine"], stamp if sure else None, keys,
            bad=(((bytes.fromhex(digest), view), reason) for digest, view, reason in meta["bad"]),
            remarks=(
                ((bytes.fromhex(digest), view), remarks)
                for digest, view, *remarks in meta.get("remarks", ())
            ),
        )  # fmt: skip

    def _stamp(self, name: str) -> Stamp:
        try:
            return Stamp.of(self.path(name).stat())
        except OSError as error:
            raise cannot_read("the shard", self.path(name), error) from error

    def remove_empty(self) -> None:
        """Remove the folder of a store without shards, unless it has other files than its own."""
        folders = [entry for entry in _listed(self.folder) if _FOLDER.fullmatch(entry.name)]
        others = {entry.name for entry in _listed(self.folder)} - {one.name for one in folders}
        if not others <= {"lock", INDEX}:
            return
        with suppress(OSError):  # a run has just put something into it
            for one in folders:
                Path(one).rmdir()
            kept.forget(self.folder / INDEX)
            for name in others - {INDEX}:
                remove(self.folder / name)
            if INDEX in others:
                (self.folder / INDEX).rmdir()
            self.folder.rmdir()

    def keep(self, index: Index) -> None:
        """Write what an index learnt since it was read, as far as that is allowed.

        Nothing depends on it but how much of the shards the next run reads.
        """
        kept.write(index, self.folder / INDEX)

    def refresh(self, index: Index) -> None:
        """Read an index anew, in place, where the shards are others than those that it knows."""
        if {*index.engines, *index.damaged} != {*self.names()}:
            vars(index).update(vars(self.index()))

    def written(self) -> float:
        """Return when a file of it was last written, those of the index left out; 0 without."""
        times = [0.0]
        for folder, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if name != INDEX]
            for name in names:
                with suppress(FileNotFoundError):
                    times.append(os.lstat(os.path.join(folder, name)).st_mtime)
        return max(times)

    def check(self, name: str) -> tuple[Keys, dict[str, Any]]:
        """Hash a shard and return the keys of its rows, and meta.

        Raises:
            DamagedError: it is missing, or not what it was when it was committed.
            PipelineError: a system error; the shard may be intact.
        """
        path = self.path(name)
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise cannot_read("the shard", path, error) from error
        if found != name.removesuffix(".h5"):
            raise DamagedError(f"The shard {path} is damaged: its sha256 is not its name.")
        with hdf5.Reader(path) as reader:
            digests, views = reader.array("digests"), reader.array("views")
            meta, rows = reader.json("meta"), reader.dataset("rows")
            if not len(digests) == len(views) == len(rows):
                raise DamagedError(f"The shard {path} is damaged: its lengths differ.")
            if meta.get("schema") != SCHEMA or meta.get("fingerprint") != self.fingerprint:
                raise DamagedError(f"The shard {path} is not of this fingerprint and schema.")
        return Keys(digests, views), meta

    def gather(self, index: Index, keys: Iterable[Key], out: np.ndarray) -> None:
        """Copy the rows of N keys, which must be there, into `out` [N, ...], shard by shard."""
        shards, rows = index.find(keys)
        self._copy(index, shards, rows, out)

    def stream(
        self, index: Index, keys: Iterable[Key], shape: tuple[int, ...] | None = None
    ) -> hdf5.Streamed:
        """Return the rows of N keys, one at least, gathered when they are written.

        They are float16 where the first is, else float32.

        Args:
            index: that has them.
            keys: in order.
            shape: of N rows in C order; None for [N].
        """
        shards, rows = index.find(keys)
        first = self.rows(index.names[shards[0]])
        kind = np.dtype(np.float16 if first.dtype == np.float16 else np.float32)
        size = max(1, BLOCK // (kind.itemsize * max(1, first[0].size)))

        def blocks() -> Iterator[np.ndarray]:
            maps: dict[int, np.ndarray] = {}
            for start in range(0, len(rows), size):
                part = slice(start, start + size)
                out = np.empty((len(rows[part]), *first.shape[1:]), kind)
                maps = self._copy(index, shards[part], rows[part], out, maps)
                yield out

        shape = (len(rows),) if shape is None else shape
        return hdf5.Streamed((*shape, *first.shape[1:]), kind, blocks)

    def _copy(
        self,
        index: Index,
        shards: np.ndarray,
        rows: np.ndarray,
        out: np.ndarray,
        maps: Mapping[int, np.ndarray] | None = None,
    ) -> dict[int, np.ndarray]:
        """Copy rows of shards into `out`; return the shards' maps, with some of which it began."""
        if (shards < 0).any():
            raise KeyError("a key has no row")
        used: dict[int, np.ndarray] = {}
        if not len(shards):
            return used
        order = np.argsort(shards, kind="stable")
        for positions in np.split(order, np.flatnonzero(np.diff(shards[order])) + 1):
            number = int(shards[positions[0]])
            known = (maps or {}).get(number)
            used[number] = self.rows(index.names[number]) if known is None else known
            out[positions] = used[number][rows[positions]]
        return used

    def rows(self, name: str) -> np.ndarray:
        """Return a shard's rows as a read-only memory map."""
        with hdf5.Reader(self.path(name)) as reader:
            return reader.map("rows")

    def commit(
        self,
        keys: Iterable[Key],
        rows: np.ndarray,
        *,
        bad: Sequence[tuple[Key, str]] = (),
        remarks: Mapping[Key, Sequence[str]] | None = None,
        engine: str,
    ) -> str:
        """Write a shard and return its name.

        Args:
            keys: (digest, view) of each row.
            rows: [len(keys), ...], any numeric dtype.
            bad: (digest, view) and reason of the images of these batches that have no row.
            remarks: (digest, view) to what decoding converted, assumed or passed over.
            engine: what computed the rows, recorded with them.

        Raises:
            PipelineError: the shard and the system's reason, when it cannot be written.
        """
        keys = Keys.of(keys)
        meta: dict[str, Any] = {
            "schema": SCHEMA,
            "fingerprint": self.fingerprint,
            "engine": engine,
            "bad": [[digest.hex(), view, reason] for (digest, view), reason in bad],
        }
        if remarks:
            meta["remarks"] = [[key[0].hex(), key[1], *found] for key, found in remarks.items()]
        (image,) = hdf5.build({"meta": hdf5.text(meta), **key_arrays(keys), "rows": rows})
        name = hashlib.sha256(image).hexdigest() + ".h5"
        write_bytes(self.path(name), image, what="the shard")
        return name

    def enter(
        self,
        index: Index,
        name: str,
        keys: Iterable[Key],
        *,
        bad: Sequence[tuple[Key, str]],
        remarks: Mapping[Key, Sequence[str]],
        engine: str,
    ) -> None:
        """Take a shard that was just committed into an index; arguments are those of `commit`."""
        stamp = None
        with suppress(PipelineError):  # else it is hashed once more
            stamp = self._stamp(name)
        said = Segment.of_shard(name, engine, stamp, Keys.of(keys), bad, remarks.items())
        index.add(said)

    def discard_damaged(self, names: Iterable[str]) -> None:
        """Remove shards that are damaged; one that was committed anew meanwhile stays."""
        for name in names:
            try:
                self.check(name)
            except DamagedError:
                remove(self.path(name))

    @contextmanager
    def lock(self, progress: Progress | None = None, *, wait: bool = False) -> Iterator[None]:
        """Hold this fingerprint's lock, which dies with the process.

        On a file system without locks there is nothing to hold: two runs at once do the same work.

        Args:
            progress: told whom it waits for and how long, and that there are no locks.
            wait: for a process that holds it, until it ends or releases it.

        Raises:
            LockedError: another process holds it, and `wait` is not given.
        """
        progress = progress or Silent()
        path = make_folder(self.folder) / "lock"
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise cannot(f"open the lock {path}", error) from error
        try:
            began = waited = 0.0
            while (held := _take(file, path)) is False:
                who = os.pread(file, 99, 0).decode(errors="replace").strip() or "pid unknown"
                who = f"Another process ({who}) is extracting with the same trunk and preprocessing"
                if not wait:
                    raise LockedError(
                        f"{who} into this cache. Wait for it to end and run the same command "
                        "again, or leave --no-wait out: what it computes is reused."
                    )
                if not began:
                    began = time.monotonic()
                    progress.say(f"{who}: waiting for it to end, since what it computes is reused.")
                    progress.start("waiting", 0)
                time.sleep(_POLL)
                waited = time.monotonic() - began
                progress.update(f"{waited:.0f} s")
            if began:
                progress.say(f"Waited {waited:.0f} s.")
            if held is None:
                progress.say(
                    f"The file system of {path.parents[2]} has no locks: extract into this cache "
                    "in one process at a time, or the same rows are computed twice."
                )
            # the words only serve the other's message, and `gc` must run on a full disk
            with suppress(OSError):
                os.ftruncate(file, 0)
                os.pwrite(file, f"pid {os.getpid()} on {platform.node()}\n".encode(), 0)
            yield
        finally:
            os.close(file)


def _take(file: int, path: Path) -> bool | None:
    try:
        return locks.take(file)
    except OSError as error:
        raise PipelineError(f"Cannot lock {path}: {error.strerror}.") from error
