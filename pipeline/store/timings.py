"""What each stage cost, and what the cache saved: one account for `run` and for the report.

What computing rows took, rows and seconds by fingerprint, is kept in the memo, which may be lost at
any time: then what the cache saves is not known.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.database import Database
from pipeline.store.cache import Cache
from pipeline.store.table import FeatureTable

if TYPE_CHECKING:
    from pipeline.store.result_records import HeadInfo, ModelInfo

_TABLE = """CREATE TABLE IF NOT EXISTS costs_1 (
    fingerprint TEXT PRIMARY KEY, rows INTEGER NOT NULL, seconds REAL NOT NULL
) WITHOUT ROWID"""
_ADD = """INSERT INTO costs_1 VALUES (?, ?, ?) ON CONFLICT (fingerprint)
    DO UPDATE SET rows = rows + excluded.rows, seconds = seconds + excluded.seconds"""


@dataclass(frozen=True)
class StageCost:
    """What a stage cost. A pass is one image or view through the trunk or its frozen part.

    Attributes:
        stage: `features`, `heads`, `fine-tuning` or `page`.
        seconds: that it took; None where that was not recorded.
        passes: that it made.
        saved_passes: that it would have made besides, with nothing kept.
        saved_seconds: that these, and what was found made already, took when they were computed;
            None where that is not known.
    """

    stage: str
    seconds: float | None
    passes: int = 0
    saved_passes: int = 0
    saved_seconds: float | None = 0.0


def of_features(
    table: FeatureTable, cache: Cache, *, computed: int, seconds: float | None
) -> StageCost:
    """Return the cost of stage one: a pass for each image and view, saved for those reused.

    Args:
        table: N images, perhaps with views of T of them.
        cache: whose memo knows what a pass takes.
        computed: images and views that went through the trunk.
        seconds: that stage one took.
    """
    views = table.view_count and table.view_count * len(table.training_rows)
    saved = max(0, len(table.labels) + views - computed)
    saved_seconds = _seconds(cache, table.fingerprint, saved)
    return StageCost("features", seconds, computed, saved, saved_seconds)


def of_heads(heads: Sequence[HeadInfo], reused: Collection[str], *, seconds: float) -> StageCost:
    """Return the cost of stage two, which makes no pass: saved is the fitting of heads reused.

    Args:
        heads: `head.json` of each.
        reused: ids of those that were fitted already.
        seconds: that stage two took.
    """
    saved = sum(info.seconds for info in heads if info.id in reused)
    return StageCost("heads", seconds, saved_seconds=saved)


def of_tuning(info: ModelInfo, cache: Cache, *, reused: bool, seconds: float) -> StageCost:
    """Return the cost of stage three.

    Without the cache the frozen part would run anew for every image in every epoch (`uses`).

    Args:
        info: `model.json`.
        cache: whose memo knows what a pass takes.
        reused: whether the model was there already.
        seconds: that stage three took.
    """
    needed = info.uses
    made = needed if info.live else info.activations_computed
    made = 0 if reused else made
    spared = max(0, needed - made)
    saved = _seconds(cache, info.activations, spared)
    parts = info.seconds
    if reused and saved is not None:
        saved += parts["head"] + parts["training"] + parts["evaluation"]
    elif reused:  # of its activations is known what its own run computed
        saved = sum(parts.values())
    return StageCost("fine-tuning", seconds, made, spared, saved)


def _seconds(cache: Cache, fingerprint: str, passes: int) -> float | None:
    """Return what passes took, by the mean of all that were ever computed for a fingerprint."""
    if not passes:
        return 0.0
    each = rate(cache.memo, fingerprint)
    return None if each is None else each * passes


def note(memo: Path, fingerprint: str, rows: int, seconds: float) -> None:
    """Add what a run computed to what earlier runs did.

    Args:
        memo: SQLite file, which holds other tables too.
        fingerprint: of the rows.
        rows: that were computed, bad images included.
        seconds: that they took, starting the engine included.
    """

    def add(connection: sqlite3.Connection) -> None:
        connection.execute(_TABLE)
        connection.execute(_ADD, (fingerprint, rows, seconds))

    Database(memo).use(add)


def rate(memo: Path, fingerprint: str) -> float | None:
    """Return the mean seconds of a row over all runs that computed some; None where not known."""
    query = "SELECT seconds / rows FROM costs_1 WHERE fingerprint = ? AND rows > 0"
    if not memo.exists():  # asking makes no file
        return None
    found = Database(memo).use(lambda memo: memo.execute(query, (fingerprint,)).fetchone())
    return None if found is None else float(found[0])
