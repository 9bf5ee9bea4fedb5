"""`ShardWriter`: from what an engine computed to shards of finite numbers in the key's dtype."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.errors import PipelineError
from pipeline.extraction.plan import Rows
from pipeline.store.shards import Key
from pipeline.trunks.spec import FeatureKey

#: A part is committed in several shards where its rows reach so many bytes: a bound of memory.
SHARD_BYTES = 64 << 20
#: Largest relative error (L2) that float16 may make; rounding alone makes half of 2⁻¹⁰.
HALF_ERROR = 1e-3


class ShardWriter:
    """Commits the rows of one fingerprint, and enters them in its index.

    Args:
        rows: `rows.computed` says which of the pass's images lack a row.
        columns: of what the engine gives.
        engine: its name.
    """

    def __init__(self, rows: Rows, columns: slice, engine: str):
        self.rows, self.columns, self.engine = rows, columns, engine
        self.lacking = set(rows.computed)
        self.good: list[Key] = []
        self.bad: list[tuple[Key, str]] = []
        self.blocks: list[np.ndarray] = []

    def take(self, computed: np.ndarray, keys: Sequence[Key], bad: Mapping[int, str]) -> None:
        """Take a batch's rows: slot by slot those of `keys`, but for the bad ones.

        Args:
            computed: [B, …]; what is behind the last of `keys` is padding.
            keys: (digest, view) of each slot.
            bad: slot to the reason why there is no row.

        Raises:
            PipelineError: as `stored`.
        """
        own = [slot for slot, key in enumerate(keys) if key in self.lacking]
        slots = [slot for slot in own if slot not in bad]
        if slots:
            self.blocks.append(stored(computed[slots][:, self.columns], self.rows.key))
        self.good += [keys[slot] for slot in slots]
        self.bad += [(keys[slot], bad[slot]) for slot in own if slot in bad]
        if sum(block.nbytes for block in self.blocks) >= SHARD_BYTES:
            self.commit()

    def commit(self) -> None:
        """Write a shard of what was taken since the last one, if there is anything."""
        if not self.good and not self.bad:
            return
        key, index = self.rows.key, self.rows.index
        whole = np.concatenate(self.blocks) if self.blocks else np.empty((0, 0), key.dtype)
        name = self.rows.store.commit(self.good, whole, bad=self.bad, engine=self.engine)
        index.engines[name] = self.engine
        index.rows.update((key, (name, row)) for row, key in enumerate(self.good))
        index.bad.update(self.bad)
        self.good, self.bad, self.blocks = [], [], []


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
