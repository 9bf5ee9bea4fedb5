"""What the cache holds, what in it is damaged or missing, and what is unreferenced."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import DamagedError, PipelineError
from pipeline.store import advice
from pipeline.store.atomic import OLD, TEMPORARY, file_clock, remove
from pipeline.store.cache import Cache
from pipeline.store.index import kept
from pipeline.store.result_records import ModelInfo
from pipeline.store.results import MODEL, RESULTS
from pipeline.store.shards import INDEX, Keys
from pipeline.store.table import FeatureTable


@dataclass
class Usage:
    """Files and bytes of one part of the cache."""

    files: int = 0
    bytes: int = 0


@dataclass
class Verdict:
    """What `verify` found.

    Attributes:
        shards: number of shards hashed.
        tables: number of tables checked.
        results: number of heads, models and pieces of advice whose files were hashed.
        problems: file to what is wrong with it, in a sentence.
        repairs: commands that make good what is wrong, in order, each once.
        notes: what is gone and not missed.
    """

    shards: int = 0
    tables: int = 0
    results: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    repairs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def noting(self, path: Path) -> Iterator[None]:
        """Put it among the problems where `path` turns out to be damaged."""
        try:
            yield
        except DamagedError as error:
            self.problems[str(path)] = str(error)


def usage(cache: Cache) -> dict[str, Usage]:
    """Return what each part of the cache holds: rows, tables, heads, models and the rest."""
    parts: dict[str, Usage] = {}
    for folder, _, names in os.walk(cache.root):
        relative = Path(folder).relative_to(cache.root).parts
        for name in names:
            part = parts.setdefault(relative[0] if relative else "other", Usage())
            try:
                size = os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                continue  # a temporary file that was just renamed
            part.files += 1
            part.bytes += size
    return dict(sorted(parts.items()))


def verify(cache: Cache) -> Verdict:
    """Hash every shard, table, head, model and advice again; name what is damaged or missing.

    Raises:
        PipelineError: a system error; what cannot be read may be intact.
    """
    verdict = Verdict()
    tables: list[FeatureTable] = []
    for path in cache.table_files():
        verdict.tables += 1
        with verdict.noting(path):
            tables.append(FeatureTable.open(path))
            if lost := tables[-1].damaged():
                verdict.problems |= {str(file): what for file, what in lost.items()}
                verdict.repairs.append(tables[-1].provenance.command)
    for store in cache.stores():
        for name in store.names():
            verdict.shards += 1
            with verdict.noting(store.path(name)):
                store.check(name)
        if any(str(store.path(name)) in verdict.problems for name in store.names()):
            # else what is damaged at unchanged times would be trusted; a cache that may only be
            # read stays as it is
            with suppress(PipelineError):
                kept.forget(store.folder / INDEX)
    for table in tables:
        store = cache.rows(table.fingerprint)
        paths = [store.path(name) for name in table.shards]
        for path in paths:
            if not path.exists():
                verdict.problems[str(path)] = f"The shard {path} is missing."
        if any(str(path) in verdict.problems for path in paths):
            verdict.repairs.append(table.provenance.command)
    for kind in RESULTS:
        for folder in kind.folders(cache.root):
            verdict.results += 1
            with verdict.noting(folder):
                info = kind.read(folder)
                verdict.problems |= kind.damaged(folder, info)
                if isinstance(info, ModelInfo):
                    _note_lost_activations(info, cache, verdict)
    for path in advice.files(cache):
        verdict.results += 1
        with verdict.noting(path):
            advice.read(cache, path.stem)
    with verdict.noting(cache.root / "runs"):
        list(cache.manifests())
    verdict.repairs = list(dict.fromkeys(verdict.repairs))
    return verdict


def _note_lost_activations(model: ModelInfo, cache: Cache, verdict: Verdict) -> None:
    store = cache.rows(model.activations)
    gone = [name for name in model.shards if not store.path(name).exists()]
    if gone:  # given up by `gc --activations`, or lost: nothing but time depends on them
        verdict.notes.append(
            f"{len(gone)} shards of activations of the model {model.id} are gone; "
            "fine-tuning again computes them again."
        )


def garbage(
    cache: Cache, *, unfinished: bool = False, activations: bool = False
) -> dict[Path, int]:
    """Return the unreferenced files of a cache with their sizes in bytes, and remove none.

    These are shards that no table, model or run names, converted trunks that have no rows, advice
    on tables that are gone, and parts of tables that none has, temporary files and plans without a
    run that are older than `OLD`.
    Shards are listed before what names them is read: a run writes its manifest first and removes it
    when a table or model names the rows, so that no shard that it needs is taken for unreferenced,
    on whatever host.

    Args:
        cache: that is looked through.
        unfinished: give up unfinished runs that wrote nothing for as long as `OLD`: their
            manifests and states, and what only they name, count too.
        activations: give up what only models name; fine-tuning again computes it again.

    Raises:
        DamagedError: a table or a run's manifest cannot be read, so that what it names is
            unknown; nothing may be removed then.
    """
    if not cache.root.is_dir():
        return {}
    shards = [(store, name) for store in cache.stores() for name in store.names()]
    compiled = list(cache.compiled.glob("*.ov"))
    past = file_clock(cache.root) - OLD
    unused: list[Path] = []
    needed: dict[str, list[Keys]] = {}
    for run in cache.manifests():
        stores = [cache.rows(fingerprint) for fingerprint in run.fingerprints]
        last = max(_written(run.path), *(store.written() for store in stores))
        if last < past and (unfinished or not run.unfinished):
            unused.append(run.path)
            continue
        for fingerprint in run.fingerprints:
            needed.setdefault(fingerprint, []).append(run.keys)
    runs = {path.stem for path in (cache.root / "runs").glob("*.h5") if path not in unused}
    unused += [
        path for path in cache.plans.glob("*")
        if path.name.split("-")[0] not in runs and _written(path) < past
    ]  # fmt: skip
    if unfinished:
        states = (cache.root / "training").iterdir() if (cache.root / "training").is_dir() else ()
        unused += [path for path in states if _written(path) < past]
    tables = [FeatureTable.open(path) for path in cache.table_files()]
    named = {(table.fingerprint, name) for table in tables for name in table.shards}
    if not activations:
        models = [MODEL.read(folder) for folder in MODEL.folders(cache.root)]
        named |= {(model.activations, name) for model in models for name in model.shards}
    for fingerprint, several in needed.items():
        index = cache.rows(fingerprint).index()
        named |= {(fingerprint, name) for keys in several for name in index.holding(keys)}
    unused += [store.path(name) for store, name in shards if (store.fingerprint, name) not in named]
    used = {store.fingerprint for store, _ in shards} | needed.keys()
    unused += [path for path in compiled if path.stem not in used]
    belonging = {path for table in tables for path in table.files}
    unused += [
        path for path in cache.tables.glob("*.parts/*")
        if path not in belonging and _written(path) < past
    ]  # fmt: skip
    about = {table.table_id for table in tables}
    unused += [path for path in advice.files(cache) if path.stem not in about]
    for folder, folders, names in os.walk(cache.root):
        temporary = [Path(folder, n) for n in (*folders, *names) if n.startswith(TEMPORARY)]
        unused += [path for path in temporary if _written(path) < past]
    return {path: path.stat().st_size for path in dict.fromkeys(unused) if path.exists()}


def _written(path: Path) -> float:
    """Return when a file, or a folder or a file in it, was last written; 0 where it is gone."""
    try:
        times = [path.lstat().st_mtime]
        if path.is_dir():
            times += [entry.stat(follow_symlinks=False).st_mtime for entry in os.scandir(path)]
    except FileNotFoundError:
        return 0.0
    return max(times)


def collect(
    cache: Cache, shown: Iterable[Path], *, unfinished: bool = False, activations: bool = False
) -> dict[Path, int]:
    """Remove files that `garbage` returned, if they are still unreferenced, and return them.

    Folders of rows and of parts that are empty then go too.

    Args:
        cache: as in `garbage`.
        shown: what may be removed.
        unfinished: as in `garbage`.
        activations: as in `garbage`.

    Raises:
        PipelineError: a file that cannot be removed, and the system's reason.
    """
    now = garbage(cache, unfinished=unfinished, activations=activations)
    removed = {path: now[path] for path in shown if path in now}
    for path in removed:
        if path.is_dir():
            try:
                shutil.rmtree(path)
            except OSError as error:
                raise PipelineError(f"Cannot remove {path}: {error.strerror}.") from error
        else:
            remove(path)
    needed = {fingerprint for run in cache.manifests() for fingerprint in run.fingerprints}
    for store in cache.stores():
        if store.fingerprint not in needed and not store.names():
            store.remove_empty()
    for folder in cache.tables.glob("*.parts"):
        with suppress(OSError):  # it is not empty
            folder.rmdir()
    return removed
