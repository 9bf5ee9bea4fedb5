"""What there is to work with: tables, heads, models and trunks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.arguments import named, plain
from pipeline.errors import PipelineError, UsageError
from pipeline.heads.leaderboard import Ranked, rank_heads, rank_models
from pipeline.store.cache import Cache
from pipeline.store.result_records import HeadInfo, ModelInfo
from pipeline.store.results import HEAD, MODEL
from pipeline.store.table import FeatureTable
from pipeline.trunks import listed

if TYPE_CHECKING:
    from pipeline.trunks.registry import TrunkInfo

#: More trunks than this are listed by name alone: each has to be built to be described.
DESCRIBED = 24
_SHOWN = ("trunk", "weights", "layer", "pool", "precision", "root", "created")


@dataclass(frozen=True, eq=False)
class TableSummary:
    """A table of the cache. Equal only when identical.

    Attributes:
        path: its file.
        current: whether it is that of the last `extract`.
        bytes: of its files.
        table: opened; None where it is damaged.
        heads: its leaderboard.
        damaged: the reason; else empty.
    """

    path: Path
    current: bool
    bytes: int
    table: FeatureTable | None
    heads: tuple[Ranked[HeadInfo], ...] = ()
    damaged: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        entry: dict[str, Any] = {
            "name": self.path.stem,
            "path": str(self.path),
            "current": self.current,
            "bytes": self.bytes,
        }
        table = self.table
        if table is None:
            return {**entry, "damaged": self.damaged}
        return {
            **entry,
            "table_id": table.table_id,
            "fingerprint": table.fingerprint,
            "images": len(table.labels),
            "dim": table.dim,
            "classes": list(table.classes),
            "splits": table.split_counts,
            "heads": [one.to_json() for one in self.heads],
            **{name: getattr(table.provenance, name) for name in _SHOWN},
        }


def list_tables(cache: str | Path | None = None) -> list[TableSummary]:
    """Return what each table of the cache is, with its heads, newest first.

    Args:
        cache: the cache's folder; else `$PIPELINE_CACHE`, else `./cache`.

    Raises:
        PipelineError: the cache cannot be read.
    """
    store = Cache.at(cache)
    current = store.current()
    infos, _ = HEAD.every(store.root)
    found = []
    for path in store.table_files():
        try:
            table = FeatureTable.open(path)
        except PipelineError as error:
            size = path.stat().st_size
            found.append(TableSummary(path, path == current, size, None, damaged=str(error)))
        else:
            heads = rank_heads(infos, table.table_id)
            one = TableSummary(path, path == current, table.nbytes, table, tuple(heads))
            found.append(one)
    return found


def list_heads(
    table: FeatureTable | str | Path | None = None, *, cache: str | Path | None = None
) -> list[Ranked[HeadInfo]]:
    """Return the leaderboard of a table's heads, best first.

    Args:
        table: a table, its file, name or id; the cache's current one without it.
        cache: the cache's folder; else `$PIPELINE_CACHE`, else `./cache`.

    Returns:
        Each head's `info`, the number of its `group` (those that can be compared) and whether it
        is the `best` of it.

    Raises:
        PipelineError: there is no such table.
    """
    store = Cache.at(cache)
    return rank_heads(HEAD.every(store.root)[0], _table(store, table).table_id)


def list_models(
    table: FeatureTable | str | Path | None = None, *, cache: str | Path | None = None
) -> list[Ranked[ModelInfo]]:
    """Return the leaderboard of a table's fine-tuned models, best first.

    Arguments, what is returned and what is raised are as in `list_heads`.
    """
    store = Cache.at(cache)
    return rank_models(MODEL.every(store.root)[0], _table(store, table).table_id)


def _table(store: Cache, table: FeatureTable | str | Path | None) -> FeatureTable:
    return table if isinstance(table, FeatureTable) else store.open_table(table)


def list_trunks(pattern: str | None = None) -> dict[str, TrunkInfo | str | None]:
    """Return the trunks whose name holds a pattern, and what each is made of.

    Args:
        pattern: part of a name, or a pattern with `*` and `?`; None for all.

    Returns:
        Name to its stages, channels, strides, D, parameters and weights, or to the reason why it
        cannot be used. None for each where more than 24 fit, since each has to be built.

    Raises:
        UsageError: none fits; a `ValueError` too.
    """
    pattern = plain(pattern, str)
    if not isinstance(pattern, str | None):
        raise UsageError(f"A pattern must be a text, not {named(pattern)}.")
    names = _trunk_names(pattern)
    if not names:
        raise UsageError(f"No trunk's name holds '{pattern}'. `pipeline trunks` lists them all.")
    found: dict[str, TrunkInfo | str | None] = dict.fromkeys(names)
    if len(names) > DESCRIBED:
        return found
    from pipeline.trunks import registry

    for name in names:
        try:
            found[name] = registry.describe(name)
        except PipelineError as error:
            found[name] = str(error)
    return found


def _trunk_names(pattern: str | None) -> list[str]:
    """Return the names that match, from the table where it is that of what is installed."""
    if (table := listed.table()) is not None:
        return listed.matching(table.names, pattern)
    from pipeline.trunks import registry

    return registry.names(pattern)
