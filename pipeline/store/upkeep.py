"""What the cache costs, what in it is damaged or missing, and what nothing names any more."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import DamagedError, LockedError, PipelineError
from pipeline.store import advice, in_flight
from pipeline.store.atomic import TEMPORARY
from pipeline.store.cache import Cache
from pipeline.store.records import ModelInfo
from pipeline.store.results import HEAD, MODEL, Info, Kind
from pipeline.store.shards import RowStore
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
        PipelineError: the system is in trouble, and what it cannot read may be whole.
    """
    verdict = Verdict()
    tables: list[FeatureTable] = []
    for path in cache.table_files():
        verdict.tables += 1
        try:
            tables.append(FeatureTable.open(path))
        except DamagedError as error:
            verdict.problems[str(path)] = str(error)
    for store in cache.stores():
        for name in store.names():
            verdict.shards += 1
            try:
                store.check(name)
            except DamagedError as error:
                verdict.problems[str(store.folder / name)] = str(error)
    for table in tables:
        store = cache.rows(table.fingerprint)
        paths = [store.folder / name for name in table.shards]
        for path in paths:
            if not path.exists():
                verdict.problems[str(path)] = f"The shard {path} is missing."
        if any(str(path) in verdict.problems for path in paths):
            verdict.repairs.append(table.provenance.command)
    for info in [*_checked(HEAD, cache, verdict), *_checked(MODEL, cache, verdict)]:
        if not isinstance(info, ModelInfo):
            continue
        store = cache.rows(info.activations)
        gone = [name for name in info.shards if not (store.folder / name).exists()]
        if gone:  # given up by `gc --activations`, or lost: nothing but time depends on them
            verdict.notes.append(
                f"{len(gone)} shards of activations of the model {info.id} are gone; "
                "fine-tuning again computes them again."
            )
    for path in advice.files(cache):
        verdict.results += 1
        try:
            advice.read(cache, path.stem)
        except DamagedError as error:
            verdict.problems[str(path)] = str(error)
    try:
        for _ in cache.unfinished():
            pass
    except DamagedError as error:
        verdict.problems[f"{cache.root / 'runs'}"] = str(error)
    verdict.repairs = list(dict.fromkeys(verdict.repairs))
    return verdict


def _checked(kind: Kind[Info], cache: Cache, verdict: Verdict) -> Iterator[Info]:
    """Yield what the results of a kind say, and put what is wrong with them into the verdict."""
    for folder in kind.folders(cache.root):
        verdict.results += 1
        try:
            info = kind.read(folder)
            verdict.problems |= kind.damaged(folder, info)
        except DamagedError as error:
            verdict.problems[str(folder)] = str(error)
        else:
            yield info


def garbage(
    cache: Cache, *, unfinished: bool = False, activations: bool = False
) -> dict[Path, int]:
    """Return the files that nothing names, with their sizes in bytes, and remove none.

    Shards named by no table and no model and wanted by no unfinished run, converted trunks that
    have no rows, advice on tables that are gone, and the temporary files of processes that are. A
    fingerprint whose lock is held is left alone.

    Args:
        unfinished: give up unfinished runs: their manifests and states, and what only they want,
            count too.
        activations: give up what only models name; fine-tuning again computes it again.

    Raises:
        DamagedError: a table or a run's manifest cannot be read, so that what it names is
            unknown; nothing may be removed then.
    """
    named: set[tuple[str, str]] = set()
    tables: set[str] = set()
    for path in cache.table_files():
        table = FeatureTable.open(path)
        tables.add(table.table_id)
        named.update((table.fingerprint, name) for name in table.shards)
    if not activations:
        for info in map(MODEL.read, MODEL.folders(cache.root)):
            named.update((info.activations, name) for name in info.shards)
    wanted: dict[str, set[tuple[bytes, int]]] = {}
    found: dict[Path, int] = {}
    for path, fingerprint, keys in cache.unfinished():
        if unfinished:
            found[path] = path.stat().st_size
        else:
            wanted.setdefault(fingerprint, set()).update(keys)
    if unfinished:
        found.update((p, p.stat().st_size) for p in (cache.root / "training").glob("*.safetensors"))
    for store in cache.stores():
        keys = wanted.get(store.fingerprint, set())
        for name in _unnamed(store, named):
            if keys and _holds(store, name, keys):
                continue
            found[store.folder / name] = (store.folder / name).stat().st_size
    used = {store.fingerprint for store in cache.stores() if store.names()}
    for path in cache.compiled.glob("*.ov"):
        if path.stem not in used:  # a converted trunk that has no rows: made again when needed
            found[path] = path.stat().st_size
    for path in advice.files(cache):
        if path.stem not in tables:
            found[path] = path.stat().st_size
    for folder, folders, names in os.walk(cache.root):
        for name in (*names, *folders):
            path = Path(folder, name)
            if name.startswith(TEMPORARY) and not _alive(name):
                found[path] = path.stat().st_size
    return found


def _unnamed(store: RowStore, named: set[tuple[str, str]]) -> list[str]:
    names = [name for name in store.names() if (store.fingerprint, name) not in named]
    if not names:
        return []
    try:
        with store.lock():
            return names
    except LockedError:
        return []


def _holds(store: RowStore, name: str, keys: set[tuple[bytes, int]]) -> bool:
    try:
        digests, views, _ = store.check(name)
    except DamagedError:
        return False
    pairs = zip((digest.tobytes() for digest in digests), views.tolist(), strict=True)
    return any(pair in keys for pair in pairs)


def _alive(name: str) -> bool:
    """Say whether the process that a temporary name tells of still runs."""
    pid = name.removeprefix(TEMPORARY).split("-")[0]
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def remove(cache: Cache, paths: list[Path]) -> None:
    """Remove files that `garbage` found, and row folders that are empty then."""
    for path in paths:
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise PipelineError(f"Cannot remove {path}: {error.strerror}.") from error
    for store in cache.stores():
        if {entry.name for entry in store.folder.iterdir()} <= {"lock", in_flight.NAME}:
            try:
                with store.lock():
                    shutil.rmtree(store.folder)
            except LockedError:
                continue
