"""`ShardWriter`: takes rows as they come; a thread commits them in shards of about a size."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.errors import PipelineError
from pipeline.extraction.plan import Rows, Shard
from pipeline.images.decoding.reading import PASSING
from pipeline.images.names import shown
from pipeline.store.shards import Key, RowStore
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


class Commits:
    """A thread that commits shards one after another, in the order in which it is asked to.

    At its end it waits for what it was asked to commit.
    """

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, "shards")
        self.waiting: deque[Future[str]] = deque()

    def __enter__(self) -> Commits:
        return self

    def __exit__(self, *error: object) -> None:
        self.thread.shutdown()

    def ask(self, store: RowStore, *shard: Any, **more: Any) -> Future[str]:
        """Return the name of a shard to be, of what `RowStore.commit` takes.

        Waits where one is written and another waits: a bound of memory.

        Raises:
            PipelineError: an earlier shard could not be written.
        """
        while len(self.waiting) > 1 or (self.waiting and self.waiting[0].done()):
            self.waiting.popleft().result()
        self.waiting.append(self.thread.submit(store.commit, *shard, **more))
        return self.waiting[-1]


class Pending(NamedTuple):
    """A shard that is being committed; as in `Shard`, but for its name.

    Attributes:
        name: of its file, once it is committed.
    """

    name: Future[str]
    keys: Sequence[Key]
    bad: tuple[tuple[Key, str], ...]
    remarks: Mapping[Key, tuple[str, ...]]
    engine: str

    def wait(self) -> Shard:
        """Return the shard once it is committed.

        Raises:
            PipelineError: the shard and the system's reason, where it cannot be written.
        """
        return Shard(self.name.result(), *self[1:])


class ShardWriter:
    """Has the rows of one fingerprint committed.

    Args:
        rows: `rows.computed` says which of the pass's images lack a row.
        columns: of what the engine gives.
        engine: its name.
        wanted: (digest, view) of all images that are wanted.
        commits: the thread.
    """

    def __init__(
        self, rows: Rows, columns: slice, engine: str, wanted: Collection[Key], commits: Commits
    ):
        self.rows, self.columns, self.engine, self.commits = rows, columns, engine, commits
        self.lacking = set(rows.computed)
        key, bad = rows.key, rows.index.bad
        before = sum(bad.get(one) == finite.reason(key.precision) for one in wanted)
        self.finite = finite.FiniteRows(key.trunk, key.precision, total=len(wanted), found=before)
        self.good: list[Key] = []
        self.bad: list[tuple[Key, str]] = []
        self.blocks: list[np.ndarray] = []
        self.remarks: dict[Key, tuple[str, ...]] = {}
        self.shards: list[Pending] = []

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
        """Have a shard written of what was taken since the last one, if there is anything."""
        if self.good or self.bad:
            key, bad = self.rows.key, tuple(self.bad)
            whole = np.concatenate(self.blocks) if self.blocks else np.empty((0, 0), key.dtype)
            name = self.commits.ask(
                self.rows.store, self.good, whole, bad=bad, remarks=self.remarks,
                engine=self.engine,
            )  # fmt: skip
            made = Pending(name, tuple(self.good), bad, self.remarks, self.engine)
            self.shards.append(made)
        self.good, self.bad, self.blocks, self.remarks = [], [], [], {}

    def end(self) -> tuple[Pending, ...]:
        """Have the rest of a part committed and return its shards."""
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
