"""`Sink`: from what an engine computed to shards, in the key's dtype, and nothing but numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import PipelineError
from pipeline.store.shards import Key
from pipeline.trunks.spec import FeatureKey

if TYPE_CHECKING:
    from pipeline.extraction.rows import Rows

#: Largest relative error (L2) that float16 may make; rounding alone makes half of 2⁻¹⁰.
HALF_ERROR = 1e-3


class Sink:
    """Takes the rows of one fingerprint from the batches of a pass to shards.

    Args:
        rows: `rows.computed` says which of the pass's images lack a row.
        columns: of what the engine gives.
        engine: its name.
    """

    def __init__(self, rows: Rows, columns: slice, engine: str):
        self.rows, self.columns, self.engine = rows, columns, engine
        self.wanted = set(rows.computed)
        self.held = 0  # bytes since the last commit
        self.good: list[Key] = []
        self.bad: list[tuple[Key, str]] = []
        self.parts: list[np.ndarray] = []

    def take(self, computed: np.ndarray, keys: Sequence[Key], bad: Mapping[int, str]) -> None:
        """Take a batch's rows: slot by slot those of `keys`, but for the bad ones."""
        mine = [slot for slot, key in enumerate(keys) if key in self.wanted]
        slots = [slot for slot in mine if slot not in bad]
        if slots:
            part = stored(computed[slots][:, self.columns], self.rows.key)
            self.parts.append(part)
            self.held += part.nbytes
        self.good += [keys[slot] for slot in slots]
        refused = [(keys[slot], bad[slot]) for slot in mine if slot in bad]
        self.bad += refused
        self.rows.index.bad.update(refused)

    def commit(self) -> None:
        """Write a shard of what was taken since the last one, and enter it in the index."""
        if not self.good and not self.bad:
            return
        rows, index = self.rows, self.rows.index
        whole = np.concatenate(self.parts) if self.parts else np.empty((0, 0), rows.key.dtype)
        name = rows.store.commit(self.good, whole, bad=self.bad, engine=self.engine)
        index.engines[name] = self.engine
        index.rows.update((key, (name, row)) for row, key in enumerate(self.good))
        self.good, self.bad, self.parts, self.held = [], [], [], 0


class HalfRangeError(PipelineError):
    """Rows that float16 cannot hold to a thousandth."""


def stored(rows: np.ndarray, key: FeatureKey) -> np.ndarray:
    """Return rows in the dtype that their key says.

    Raises:
        PipelineError: they are not finite.
        HalfRangeError: float16 would change them by more than a thousandth (relative L2).
    """
    if rows.dtype == key.dtype:
        _check_finite(rows, key)
        return rows
    with np.errstate(over="ignore"):
        narrow = rows.astype(key.dtype)
    error = np.linalg.norm(narrow.astype(np.float32) - rows)
    if not error <= HALF_ERROR * np.linalg.norm(rows):
        _check_finite(rows, key)
        raise HalfRangeError(f"Activations of {key.trunk} at {key.layer} do not fit {key.dtype}.")
    return narrow


def _check_finite(rows: np.ndarray, key: FeatureKey) -> None:
    if not np.isfinite(rows).all():
        other = "fp32" if key.precision != "fp32" else "another trunk or other weights"
        raise PipelineError(
            f"{key.trunk} gave features that are not finite in {key.precision}; "
            f"{'give --precision ' if key.precision != 'fp32' else 'use '}{other}."
        )
