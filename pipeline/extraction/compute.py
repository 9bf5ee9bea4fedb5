"""Compute missing rows: a reader gives batches, an engine their rows, writers commit them."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import accumulate, chain, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.cores import usable_cores
from pipeline.errors import PipelineError
from pipeline.extraction import canary, engines
from pipeline.extraction.crashes import noted
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.plan import Part, Plan, Rows, WantedImages, make_plan
from pipeline.images.decoding.reading import PASSING
from pipeline.images.names import counted, shown
from pipeline.progress import Progress
from pipeline.store import timings
from pipeline.store.cache import Cache
from pipeline.store.shards import Index, Key, Keys
from pipeline.trunks.engines import finite
from pipeline.trunks.spec import FeatureKey

if TYPE_CHECKING:
    from pipeline.images.decoding.loader import Batch
    from pipeline.images.decoding.reading import Guard
    from pipeline.trunks.engines.choice import Batches
    from pipeline.trunks.engines.engine import Engine
    from pipeline.trunks.registry import LoadedTrunk

#: A part is committed in several shards where its rows reach so many bytes: a bound of memory.
SHARD_BYTES = 64 << 20
#: Largest relative error (L2) that float16 may make; rounding alone makes half of 2⁻¹⁰.
HALF_ERROR = 1e-3


def fill(
    cache: Cache,
    options: ExtractOptions,
    several: Sequence[Rows],
    sources: Mapping[Key, str | bytes],
    *,
    progress: Progress,
    trunk: LoadedTrunk | None = None,
    engine: Engine | None = None,
    unit: str = "images",
    wanted: WantedImages | None = None,
) -> None:
    """Complete the rows of several layers and poolings of a trunk, in one pass over the images.

    A lock for each fingerprint spares others the same work: they wait for the rows. Until
    `cache.end_run` a manifest keeps the rows from the collector.

    Args:
        several: from `find_rows`, of one trunk, preprocessing and precision; completed in place.
        sources: (digest, view) to the path of each image, or its bytes, in data set order.
        trunk: where it is loaded already.
        engine: in place of the one that `make_engine` gives; only for a single fingerprint.
        unit: what a row is, for the person.
        wanted: bad ones are counted before, and after each part.

    Raises:
        LockedError: another process computes rows of one of these fingerprints, and `options` say
            not to wait for it.
        HalfRangeError: float16 cannot hold the rows that a key asks for.
        PipelineError: more images are bad than are allowed, so many rows are not finite that the
            trunk is to blame, the images' disk has gone, or the trunk has other weights now.
        UsageError: this machine cannot compute in the precision of what is missing.
    """
    for rows in several:
        for reason in rows.index.damaged.values():
            progress.say(f"{reason} Its rows are computed again.")
    with ExitStack() as held:
        held.enter_context(_locked(several, sources, options, progress, wanted))
        if any(rows.computed for rows in several):
            from pipeline.trunks.engines.engine import run_batches

            started = time.monotonic()
            batches = engines.batches_of(several[0].key, options)
            plan = make_plan(cache, several, sources, batch_size=batches.size)
            for rows in plan.lacking:
                cache.begin_run(rows.key.fingerprint, plan.wanted)
            guard = held.enter_context(noted(plan.lacking[0].store, progress))
            reader = held.enter_context(closing(read(plan, batches, options, guard)))
            try:
                first = next(reader)  # images are decoded already while the engine is made
                engine, columns = _engine_for(plan, cache, options, trunk, engine)
                canary.check(
                    engine, [r.key for r in plan.rows], [r.store for r in plan.rows], columns
                )
                writers = [
                    ShardWriter(rows, part, batches.names(engine), sources)
                    for rows, part in zip(plan.rows, columns, strict=True)
                ]
                computed = run_batches(engine, chain([first], reader))
                progress.start("extracting", len(plan.missing))
                for part in plan.parts:
                    compute_part(part, computed, writers, progress)
                    for rows in plan.lacking:
                        check_there(part, rows.index, sources)
                        if wanted is not None:
                            wanted.check(rows.index)
            except KeyboardInterrupt:
                kept = min(int(r.index.having(sources).sum()) for r in plan.lacking)
                progress.say(f"{kept:,} of {len(sources):,} {unit} are in the cache.")
                raise
            seconds = (time.monotonic() - started) / len(plan.lacking)
            for rows in plan.lacking:
                rows.store.keep(rows.index)
                rows.notes += engine.notes
                rows.seconds += seconds
                timings.note(cache.memo, rows.key.fingerprint, len(rows.computed), seconds)
    for rows in several:
        rows.store.discard_damaged(rows.index.damaged)


@contextmanager
def _locked(
    several: Sequence[Rows],
    sources: Mapping[Key, str | bytes],
    options: ExtractOptions,
    progress: Progress,
    wanted: WantedImages | None,
) -> Iterator[None]:
    """Hold the lock of each fingerprint that lacks rows, and say in `computed` which it lacks then.

    Arguments are those of `fill`.
    """

    def lacking() -> list[Rows]:
        for rows in several:
            if options.rehash:
                for key in sources:  # perhaps a newer decoder reads them
                    rows.index.bad.pop(key, None)
            if wanted is not None:
                wanted.check(rows.index)
            keys = Keys.of(sources)
            rows.computed = list(keys.take(~rows.index.known(keys)))
        return [rows for rows in several if rows.computed]

    with ExitStack() as held:
        # in the same order everywhere, so that two runs never wait for each other
        locked = sorted(lacking(), key=lambda rows: rows.key.fingerprint)
        for rows in locked:
            held.enter_context(rows.store.lock(progress, wait=options.wait))
        for rows in locked:
            rows.store.refresh(rows.index)  # others computed meanwhile
        if locked:
            lacking()
        yield


def compute_part(
    part: Part,
    computed: Iterator[tuple[Batch, np.ndarray]],
    writers: Sequence[ShardWriter],
    progress: Progress,
) -> None:
    """Take the rows of a part's images and commit them: the loop of stage one.

    Reader and engine go on from part to part, so that neither waits where one ends.

    Args:
        part: of a plan; parts come in the plan's order.
        computed: batches from the reader with the rows that the engine made of each.
        writers: one for each fingerprint.
        progress: told of each batch.
    """
    keys = iter(part.keys)
    for batch, rows in islice(computed, part.batches):
        slots = list(islice(keys, batch.count))
        bad = [writer.take(rows, slots, batch) for writer in writers]
        progress.advance(batch.count, max(bad))
    for writer in writers:
        writer.commit()


def read(plan: Plan, batches: Batches, options: ExtractOptions, guard: Guard) -> Generator[Batch]:
    """Yield the batches of a plan's missing images in order, decoded ahead of need.

    Args:
        plan: whose images.
        batches: how crops are put together.
        options: how many threads.
        guard: notes what is being decoded, and knows what must not be.
    """
    from pipeline.images.decoding.loader import AHEAD, HEAD_START, load

    preprocess = plan.rows[0].key.preprocess
    return load(
        ((plan.missing[key], *key) for part in plan.parts for key in part.keys),
        preprocess,
        batch_size=batches.size,
        workers=options.workers or usable_cores(),
        pin=batches.pinned,
        ahead=max(AHEAD, HEAD_START // (batches.size * 3 * preprocess.crop**2)),
        guard=guard,
        cut=batches.cut,
    )


def _engine_for(
    plan: Plan,
    cache: Cache,
    options: ExtractOptions,
    trunk: LoadedTrunk | None,
    engine: Engine | None,
) -> tuple[Engine, list[slice]]:
    """Return the engine for a plan's rows, and which columns of what it gives are whose."""
    keys = [rows.key for rows in plan.rows]
    if len(keys) == 1:
        return engine or engines.make_engine(trunk, keys[0], options, cache), [slice(None)]
    engine, widths = engines.make_joint_engine(trunk, keys, options, cache)
    return engine, [slice(a, b) for a, b in pairwise(accumulate(widths, initial=0))]


class ShardWriter:
    """Commits the rows of one fingerprint, and enters them in its index.

    Args:
        rows: `rows.computed` says which of the pass's images lack a row.
        columns: of what the engine gives.
        engine: its name.
        sources: (digest, view) to the path of each image that the run wants, or its bytes.
    """

    def __init__(self, rows: Rows, columns: slice, engine: str, sources: Mapping[Key, str | bytes]):
        self.rows, self.columns, self.engine, self.sources = rows, columns, engine, sources
        self.lacking = set(rows.computed)
        key, bad = rows.key, rows.index.bad
        before = sum(bad.get(one) == finite.reason(key.precision) for one in sources)
        self.finite = finite.FiniteRows(key.trunk, key.precision, total=len(sources), found=before)
        self.good: list[Key] = []
        self.bad: list[tuple[Key, str]] = []
        self.blocks: list[np.ndarray] = []
        self.remarks: dict[Key, tuple[str, ...]] = {}

    def take(self, computed: np.ndarray, keys: Sequence[Key], batch: Batch) -> int:
        """Take a batch's rows, slot by slot those of `keys`; return how many of these are bad.

        Args:
            computed: [B, …]; what is behind the last of `keys` is padding.
            keys: (digest, view) of each slot.
            batch: which of them are bad, and what was found when they were decoded.

        Raises:
            PipelineError: so many rows are not finite that the trunk is to blame.
            HalfRangeError: as `stored`.
        """
        own = [slot for slot, key in enumerate(keys) if key in self.lacking]
        slots = [slot for slot in own if slot not in batch.bad]
        rows = computed[slots][:, self.columns]
        names = [_name(self.sources[keys[slot]]) for slot in slots]
        lost = self.finite.bad(rows, names)
        bad = {**batch.bad, **{slots[at]: reason for at, reason in lost.items()}}
        if kept := [at for at in range(len(slots)) if at not in lost]:
            self.blocks.append(stored(rows[kept] if lost else rows, self.rows.key))
        self.good += [keys[slots[at]] for at in kept]
        self.bad += [(keys[slot], bad[slot]) for slot in own if slot in bad]
        self.remarks |= {keys[slot]: batch.remarks[slot] for slot in slots if slot in batch.remarks}
        self.rows.sides += [side for slot, side in batch.sides.items() if not keys[slot][1]]
        if sum(block.nbytes for block in self.blocks) >= SHARD_BYTES:
            self.commit()
        return sum(slot in bad for slot in range(len(keys)))

    def commit(self) -> None:
        """Write a shard of what was taken since the last one, if there is anything."""
        key, index = self.rows.key, self.rows.index
        index.bad.update(self.bad)  # the passing ones, too
        lasting = [(one, reason) for one, reason in self.bad if reason not in PASSING]
        if self.good or lasting:
            whole = np.concatenate(self.blocks) if self.blocks else np.empty((0, 0), key.dtype)
            self.rows.store.commit(
                self.good, whole, bad=lasting, remarks=self.remarks, engine=self.engine, index=index
            )
        self.good, self.bad, self.blocks, self.remarks = [], [], [], {}


def check_there(part: Part, index: Index, sources: Mapping[Key, str | bytes]) -> None:
    """Tell a part of which each image has vanished by itself from a disk that has gone.

    Raises:
        PipelineError: none of the part's images could be read any more, and none of a hundred
            others is there.
    """
    if not all(index.bad.get(key) in PASSING for key in part.keys):
        return
    every = [source for source in sources.values() if isinstance(source, str)]
    if not any(Path(path).is_file() for path in every[:: max(1, len(every) // 100)]):
        raise PipelineError(
            f"{counted(len(part.keys), 'image')} in a row vanished while they were read "
            f"({_name(sources[part.keys[0]])} first), and the others are gone as well: is their "
            "disk still there? What was computed is kept. Run the same command again when it is "
            "back."
        )


def _name(source: str | bytes) -> str:
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
        raise HalfRangeError(f"Activations of {key.trunk} at {key.layer} do not fit {key.dtype}.")
    return narrow
