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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import locks
from pipeline.errors import DamagedError, LockedError, PipelineError
from pipeline.progress import Progress, Silent
from pipeline.store import hdf5
from pipeline.store.atomic import cannot_read, make_folder, remove, write_bytes

SCHEMA = 1
Key = tuple[bytes, int]  # digest (32 bytes), view
_POLL = 0.2  # seconds between two looks at a lock that another process holds
_NAME = re.compile(r"[0-9a-f]{64}\.h5")


def key_arrays(keys: Sequence[Key]) -> dict[str, np.ndarray]:
    """Return the datasets of n keys: `digests` [n, 32] uint8 and `views` [n] int32."""
    digests = np.frombuffer(b"".join(digest for digest, _ in keys), np.uint8).reshape(-1, 32)
    return {"digests": digests, "views": np.array([view for _, view in keys], np.int32)}


def keys_in(digests: np.ndarray, views: np.ndarray) -> Iterator[Key]:
    """Return the inverse of `key_arrays`."""
    return zip((digest.tobytes() for digest in digests), views.tolist(), strict=True)


@dataclass
class Index:
    """What a fingerprint's shards hold.

    Attributes:
        rows: (digest, view) to the shard's name and the row in it.
        bad: (digest, view) to the reason why there is no row.
        remarks: (digest, view) to what decoding converted, assumed or passed over, where it did.
        damaged: names of shards that cannot be trusted, to the reason.
        engines: shard name to the engine that computed it.
    """

    rows: dict[Key, tuple[str, int]] = field(default_factory=dict)
    bad: dict[Key, str] = field(default_factory=dict)
    remarks: dict[Key, tuple[str, ...]] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    engines: dict[str, str] = field(default_factory=dict)

    def __contains__(self, key: Key) -> bool:
        return key in self.rows or key in self.bad

    def shards(self, keys: Iterable[Key]) -> list[str]:
        """Return the names of the shards that hold these keys' rows, sorted."""
        return sorted({self.rows[key][0] for key in keys if key in self.rows})


class RowStore:
    """The shards of one fingerprint.

    Args:
        folder: `cache/rows/<fingerprint>`; made at the first commit.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.fingerprint = folder.name

    def names(self) -> list[str]:
        """Return the names of the committed shards, sorted."""
        try:
            return sorted(name for name in os.listdir(self.folder) if _NAME.fullmatch(name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise cannot_read("the folder", self.folder, error) from error

    def index(self) -> Index:
        """Read what there is; every byte is hashed first, damaged shards are left out and named."""
        index = Index()
        for name in self.names():
            try:
                digests, views, meta = self.check(name)
            except DamagedError as error:
                index.damaged[name] = str(error)
                continue
            index.engines[name] = meta["engine"]
            for row, key in enumerate(keys_in(digests, views)):
                index.rows.setdefault(key, (name, row))  # names are sorted: the smallest wins
            for digest, view, reason in meta["bad"]:
                index.bad.setdefault((bytes.fromhex(digest), view), reason)
            for digest, view, *remarks in meta.get("remarks", ()):
                index.remarks[bytes.fromhex(digest), view] = tuple(remarks)
        for key in index.rows.keys() & index.bad.keys():
            del index.bad[key]  # it was tried again, and read
        return index

    def refresh(self, index: Index) -> None:
        """Read an index anew, in place, where the shards are others than those that it knows."""
        if {*index.engines, *index.damaged} != {*self.names()}:
            vars(index).update(vars(self.index()))

    def check(self, name: str) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """Hash a shard and return its digests, views and meta.

        Raises:
            DamagedError: it is missing, or not what it was when it was committed.
            PipelineError: a system error; the shard may be intact.
        """
        path = self.folder / name
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
        return digests, views, meta

    def gather(self, index: Index, keys: Sequence[Key], out: np.ndarray) -> None:
        """Copy the rows of `keys` into `out` [len(keys), ...], shard by shard."""
        wanted: dict[str, list[tuple[int, int]]] = {}
        for position, key in enumerate(keys):
            name, row = index.rows[key]
            wanted.setdefault(name, []).append((position, row))
        for name, pairs in wanted.items():
            positions, rows = np.array(pairs).T
            out[positions] = self.rows(name)[rows]

    def rows(self, name: str) -> np.ndarray:
        """Return a shard's rows as a read-only memory map."""
        with hdf5.Reader(self.folder / name) as reader:
            return reader.map("rows")

    def commit(
        self,
        keys: Sequence[Key],
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
        write_bytes(self.folder / name, image, what="the shard")
        return name

    def discard_damaged(self, names: Iterable[str]) -> None:
        """Remove shards that are damaged; one that was committed anew meanwhile stays."""
        for name in names:
            try:
                self.check(name)
            except DamagedError:
                remove(self.folder / name)

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
            raise PipelineError(f"Cannot open the lock {path}: {error.strerror}.") from error
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
