"""`Cache`: the folder that holds rows, tables, heads and models, and which table is current."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.arguments import path_of
from pipeline.errors import DamagedError, PipelineError, nearest
from pipeline.store import hdf5
from pipeline.store.atomic import cannot_read, remove, write_bytes
from pipeline.store.records import Provenance
from pipeline.store.shards import Key, Keys, RowStore, key_arrays
from pipeline.store.table import FeatureTable

ENVIRONMENT = "PIPELINE_CACHE"
_READING = "reading-"  # starts the names of manifests of runs that only read


class _Inside:
    """A place in a cache, as a `Path` of the cache that is asked for it."""

    def __init__(self, name: str):
        self.name = name

    def __get__(self, cache: Cache, _: type[Cache]) -> Path:
        return cache.root / self.name


@dataclass(frozen=True)
class Cache:
    """A cache folder. Two are equal when they are the same folder.

    Args:
        root: the folder; whatever writes into it makes it.
    """

    root: Path

    @classmethod
    def at(cls, root: str | Path | None = None) -> Cache:
        """Return the cache at `root`, else at `$PIPELINE_CACHE`, else at `./cache`.

        Nothing is made: a folder that is not there reads as an empty cache.
        """
        if root is None or (isinstance(root, str) and not root):
            root = os.environ.get(ENVIRONMENT) or "cache"
        folder = path_of(root, "The cache's folder").absolute()
        if folder.exists() and not folder.is_dir():
            raise PipelineError(f"The cache {folder} is not a folder; name another with --cache.")
        return cls(folder)

    #: The folder of the tables.
    tables = _Inside("tables")
    #: The folder of calibrated random weights.
    weights = _Inside("weights")
    #: The folder of trunks that were converted for an engine.
    compiled = _Inside("compiled")
    #: The folder of what `advise` found, one file a table.
    advice = _Inside("advice")
    #: The folder of plans that several processes compute, with the records of what is done.
    plans = _Inside("plans")
    #: The folder of the built-in data sets.
    data = _Inside("data")
    #: The SQLite file that remembers digests and what trunks resolve to.
    memo = _Inside("memo.sqlite")

    @property
    def decoding(self) -> Path:
        """Return the folder of the journals of what is decoded by runs that keep no rows.

        It lies beside a cache that is not there, since a command that only reads makes none; what
        it knows of images that crash stays of use there when a cache is made.
        """
        beside = self.root.with_name(f"{self.root.name}-decoding")
        inside = self.root.is_dir() and not beside.is_dir()
        return self.root / "decoding" if inside else beside

    def rows(self, fingerprint: str) -> RowStore:
        """Return the row store of a fingerprint."""
        return RowStore(self.root / "rows" / fingerprint)

    def stores(self) -> list[RowStore]:
        """Return every row store there is, sorted by fingerprint."""
        folder = self.root / "rows"
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
        return [RowStore(folder / name) for name in names if re.fullmatch("[0-9a-f]{64}", name)]

    def table_files(self) -> list[Path]:
        """Return the tables' files, newest first."""
        files = [path for path in self.tables.glob("*.h5") if not path.name.startswith(".")]
        return sorted(files, key=lambda path: (-path.stat().st_mtime_ns, path.name))

    def provenances(self) -> Iterator[Provenance]:
        """Yield where each table came from, newest first; what is damaged is passed over."""
        for path in self.table_files():
            with suppress(DamagedError, ValueError), hdf5.Reader(path) as reader:
                yield Provenance.from_json(reader.json("provenance"))

    def set_current(self, table: Path) -> None:
        """Record the table of the last successful `extract`."""
        record = json.dumps({"table": table.name}) + "\n"
        if self._current_name() != table.name:
            write_bytes(self.root / "current.json", record.encode(), what="the current table")

    def current(self) -> Path | None:
        """Return the current table's file, or None where there is none (any more)."""
        name = self._current_name()
        path = self.tables / name if name else None
        return path if path is not None and path.is_file() else None

    def _current_name(self) -> str | None:
        try:
            name = json.loads((self.root / "current.json").read_text())["table"]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise cannot_read("the record", self.root / "current.json", error) from error
        except (ValueError, KeyError, TypeError):
            return None  # a damaged pointer is no pointer: the next extract writes it anew
        return Path(str(name)).name

    def open_table(self, table: str | Path | None = None) -> FeatureTable:
        """Open a table by file, by name, by id, or the current one.

        Raises:
            PipelineError: there is none, or the name fits several.
        """
        if table is None:
            current = self.current()
            if current is None:
                raise PipelineError(
                    f"The cache {self.root} has no current table. Make one with "
                    "`pipeline extract DATA`, or name a table."
                )
            return FeatureTable.open(current)
        path = path_of(table, "A table", like="a table, its file, its name or its id")
        if path.is_file():
            return FeatureTable.open(path)
        files = {path.stem: path for path in self.table_files()}
        given = str(table).removesuffix(".h5")
        exact = [path for stem, path in files.items() if given in (stem, stem.split("--")[-1])]
        fits = exact or [path for stem, path in files.items() if stem.startswith(f"{given}--")]
        if len(fits) == 1:
            return FeatureTable.open(fits[0])
        if fits:
            names = ", ".join(path.stem for path in fits)
            raise PipelineError(f"'{table}' names several tables: {names}. Give the whole name.")
        known = f" There are: {', '.join(files)}." if files else " There is none yet."
        raise PipelineError(f"There is no table '{table}'.{nearest(given, files)}{known}")

    def begin_run(
        self, fingerprint: str, keys: Sequence[Key], *, batch_size: int | None = None
    ) -> None:
        """Write the manifest of a run that is about to compute rows, so that `gc` spares them.

        Args:
            fingerprint: of the rows.
            keys: (digest, view) of all that the run wants.
            batch_size: that was found for it, and that it goes on with when it was killed.
        """
        path = self._manifest(fingerprint, keys)
        if batch_size is not None or not path.exists():
            _write_manifest(path, [fingerprint], keys, batch_size)

    def batch_size(self, fingerprint: str, keys: Sequence[Key]) -> int | None:
        """Return the batch size that was found for a run that has begun; None where none was.

        Raises:
            DamagedError: its manifest cannot be read.
        """
        if not self.has_begun(fingerprint, keys):
            return None
        with hdf5.Reader(self._manifest(fingerprint, keys)) as reader:
            found = reader.json("meta").get("batch_size")
        return found if type(found) is int and found > 0 else None

    def has_begun(self, fingerprint: str, keys: Sequence[Key]) -> bool:
        """Say whether a run that wanted just these rows has begun and not ended."""
        return self._manifest(fingerprint, keys).exists()

    def end_run(self, fingerprint: str, keys: Sequence[Key]) -> None:
        """Remove a run's manifest and plans, its own or those of a killed run of the same."""
        remove(self._manifest(fingerprint, keys))
        for folder in self.plans.glob(f"{self.run_id(fingerprint, keys)}-*"):
            shutil.rmtree(folder, ignore_errors=True)  # `gc` removes what stays

    @contextmanager
    def reading(self, fingerprints: Iterable[str], keys: Sequence[Key]) -> Iterator[None]:
        """Keep rows from `gc` while they are looked up and copied, whoever computed them.

        Begin it before the lookup and end it when a table or model names the rows. Where its
        manifest cannot be written (a cache for reading only) there is none.

        Args:
            fingerprints: in which the rows are looked for.
            keys: (digest, view) of the rows.
        """
        path = self.root / "runs" / f"{_READING}{secrets.token_hex(8)}.h5"
        with suppress(PipelineError):
            _write_manifest(path, sorted(set(fingerprints)), keys)
        try:
            yield
        finally:
            with suppress(PipelineError):
                remove(path)

    def run_id(self, fingerprint: str, keys: Sequence[Key]) -> str:
        """Return what names the runs that want just these rows, 16 hexadecimal digits."""
        name = hashlib.sha256(fingerprint.encode() + Keys.of(keys).raw().tobytes())
        return name.hexdigest()[:16]

    def _manifest(self, fingerprint: str, keys: Sequence[Key]) -> Path:
        return self.root / "runs" / f"{self.run_id(fingerprint, keys)}.h5"

    def manifests(self) -> Iterator[Manifest]:
        """Yield what each run names that computes or reads rows, or was stopped while it did.

        Raises:
            DamagedError: a manifest cannot be read.
        """
        for path in sorted((self.root / "runs").glob("[!.]*.h5")):
            try:
                with hdf5.Reader(path) as reader:
                    digests, views = reader.array("digests"), reader.array("views")
                    fingerprints = reader.json("meta").get("fingerprints")
            except DamagedError:
                if not path.exists():
                    continue  # the run has just ended
                raise
            if not isinstance(fingerprints, list) or len(digests) != len(views):
                raise DamagedError(f"The run's manifest {path} is damaged; remove it.")
            yield Manifest(path, tuple(fingerprints), Keys(digests, views))


@dataclass(frozen=True)
class Manifest:
    """The rows that a run needs. Two are equal when they say the same of one file.

    Attributes:
        path: of its file.
        fingerprints: in which the rows may be.
        keys: (digest, view) of each row.
    """

    path: Path
    fingerprints: tuple[str, ...]
    keys: Keys

    @property
    def unfinished(self) -> bool:
        """Return whether its run computes rows, which are kept until it is done or given up."""
        return not self.path.name.startswith(_READING)


def _write_manifest(
    path: Path, fingerprints: Sequence[str], keys: Sequence[Key], batch_size: int | None = None
) -> None:
    meta = {"fingerprints": fingerprints, "batch_size": batch_size}
    arrays = {"meta": hdf5.text(meta), **key_arrays(keys)}
    (image,) = hdf5.build(arrays)
    write_bytes(path, image, what="the run's manifest")
