"""`ShardWriter`: takes rows as they come, and commits them in shards of about a size."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import PipelineError
from pipeline.extraction.plan import Rows, Shard
from pipeline.images.decoding.reading import PASSING
from pipeline.images.names import shown
from pipeline.store.shards import Key
from pipeline.trunks.engines import finite
from pipeline.trunks.spec import FeatureKey

if TYPE_CHECKING:
    from pipeline.images.decoding.loader import Batch

#: A part is committed in several shards where its rows reach so many bytes: a bound of memory.
SHARD_BYTES = 64 << 20
#: No reason at all, and those of which no shard speaks.
_UNSAID = PASSING | {""}
#: Largest relative error (L2) that float16 may make; rounding alone makes half of 2⁻¹⁰.
HALF_ERROR = 1e-3


class ShardWriter:
    """Commits the rows of one fingerprint.

    Args:
        rows: `rows.computed` says which of the pass's images lack a row.
        columns: of what the engine gives.
        engine: its name.
        wanted: (digest, view) of all images that are wanted.
    """

    def __init__(self, rows: Rows, columns: slice, engine: str, wanted: Collection[Key]):
        self.rows, self.columns, self.engine = rows, columns, engine
        self.lacking = set(rows.computed)
        key, bad = rows.key, rows.index.bad
        before = sum(bad.get(one) == finite.reason(key.precision) for one in wanted)
        self.finite = finite.FiniteRows(key.trunk, key.precision, total=len(wanted), found=before)
        self.good: list[Key] = []
        self.bad: list[tuple[Key, str]] = []
        self.blocks: list[np.ndarray] = []
        self.remarks: dict[Key, tuple[str, ...]] = {}
        self.shards: list[Shard] = []

    def take(
        self,
        computed: np.ndarray,
        keys: Sequence[Key],
        batch: Batch,
        sources: Mapping[Key, str | bytes],
    ) -> int:
        """Take a batch's rows, slot by slot those of `keys`; return how many of these are bad.

        Args:
            computed: [B, …]; what is behind the last of `keys` is padding.
            keys: (digest, view) of each slot.
            batch: which of them are bad, and what was found when they were decoded.
            sources: (digest, view) to the path of each image, or its bytes.

        Raises:
            PipelineError: so many rows are not finite that the trunk is to blame.
            HalfRangeError: as `stored`.
        """
        own = [slot for slot, key in enumerate(keys) if key in self.lacking]
        slots = [slot for slot in own if slot not in batch.bad]
        rows = computed[slots][:, self.columns]
        names = [named(sources[keys[slot]]) for slot in slots]
        lost = self.finite.bad(rows, names)
        bad = {**batch.bad, **{slots[at]: reason for at, reason in lost.items()}}
        if kept := [at for at in range(len(slots)) if at not in lost]:
            self.blocks.append(stored(rows[kept] if lost else rows, self.rows.key))
        self.good += [keys[slots[at]] for at in kept]
        self.bad += [(keys[slot], bad[slot]) for slot in own if bad.get(slot, "") not in _UNSAID]
        self.remarks |= {keys[slot]: batch.remarks[slot] for slot in slots if slot in batch.remarks}
        if sum(block.nbytes for block in self.blocks) >= SHARD_BYTES:
            self.commit()
        return sum(slot in bad for slot in range(len(keys)))

    def commit(self) -> None:
        """Write a shard of what was taken since the last one, if there is anything."""
        if self.good or self.bad:
            key = self.rows.key
            whole = np.concatenate(self.blocks) if self.blocks else np.empty((0, 0), key.dtype)
            name = self.rows.store.commit(
                self.good, whole, bad=self.bad, remarks=self.remarks, engine=self.engine
            )
            made = Shard(name, tuple(self.good), tuple(self.bad), self.remarks, self.engine)
            self.shards.append(made)
        self.good, self.bad, self.blocks, self.remarks = [], [], [], {}

    def end(self) -> tuple[Shard, ...]:
        """Commit the rest of a part and return its shards."""
        self.commit()
        shards, self.shards = tuple(self.shards), []
        return shards


def named(source: str | bytes) -> str:
    """Return what an image is called in a sentence."""
    return shown(source) if isinstance(source, str) else "a picture"


class HalfRangeError(PipelineError):
    """Rows that float16 cannot hold to a thousandth."""


def stored(rows: np.ndarray, key: FeatureKey) -> np.ndarray:
    """Return finite rows in the dtype that their key says.

    Raises:
        HalfRangeError: float16 would change them by more than a thousandth (relative L2).
    """
    if rows.dtype == key.dtype:
        return rows
    with np.errstate(over="ignore"):
        narrow = rows.astype(key.dtype)
    wide = rows.astype(np.float64)  # whose squares do not overflow
    error = np.linalg.norm(narrow - wide)
    if not error <= HALF_ERROR * np.linalg.norm(wide):
        raise HalfRangeError(
            f"Rows of {key.trunk} at {key.layer} do not fit {key.dtype}: give --dtype float32."
        )
    return narrow
