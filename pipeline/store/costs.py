"""What computing rows took: rows and seconds by fingerprint, so that savings can be told.

Kept in the memo, which may be lost at any time: then what the cache saves is not known.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from pipeline.store.records import ModelInfo

_TABLE = """CREATE TABLE IF NOT EXISTS costs_1 (
    fingerprint TEXT PRIMARY KEY, rows INTEGER NOT NULL, seconds REAL NOT NULL
) WITHOUT ROWID"""
_ADD = """INSERT INTO costs_1 VALUES (?, ?, ?) ON CONFLICT (fingerprint)
    DO UPDATE SET rows = rows + excluded.rows, seconds = seconds + excluded.seconds"""
_PATIENCE = 10.0  # seconds to wait for another process


def note(memo: Path, fingerprint: str, rows: int, seconds: float) -> None:
    """Add what a run computed to what earlier runs did.

    Args:
        memo: SQLite file, which holds other tables too.
        fingerprint: of the rows.
        rows: that were computed, bad images included.
        seconds: that they took, starting the engine included.
    """
    try:
        with closing(sqlite3.connect(memo, timeout=_PATIENCE)) as connection, connection:
            connection.execute(_TABLE)
            connection.execute(_ADD, (fingerprint, rows, seconds))
    except sqlite3.Error:
        return  # nothing depends on it


def rate(memo: Path, fingerprint: str) -> float | None:
    """Return the mean seconds of a row over all runs that computed some; None where not known."""
    try:
        place = f"{memo.absolute().as_uri()}?mode=ro"  # asking makes no file
        with closing(sqlite3.connect(place, uri=True, timeout=_PATIENCE)) as connection:
            query = "SELECT seconds / rows FROM costs_1 WHERE fingerprint = ? AND rows > 0"
            found = connection.execute(query, (fingerprint,)).fetchone()
    except sqlite3.Error:
        return None
    return None if found is None else float(found[0])


def uses(info: ModelInfo) -> int:
    """Return how often fine-tuning needed the frozen part's answer for an image.

    Once for each training image in every epoch, for each image that chooses before the first and
    after every epoch, and for each that is scored at the end.

    Args:
        info: `model.json`.
    """
    scored = {split: one.model.images for split, one in info.metrics.items()}
    epochs = info.epochs
    chose = (epochs + 1) * scored[info.selected_on]
    return epochs * info.train_images + chose + sum(scored.values())
