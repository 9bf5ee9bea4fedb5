"""Compute missing rows: a reader gives batches, an engine their rows, writers commit them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import lru_cache, partial
from itertools import accumulate, chain, islice, pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.errors import PipelineError
from pipeline.extraction import batch_size, canary, engines
from pipeline.extraction.crashes import noted
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.plan import Done, Part, Plan, Rows, make_plan
from pipeline.extraction.spread.plan_file import recover
from pipeline.extraction.wanted import WantedImages
from pipeline.extraction.writer import Commits, Pending, ShardWriter, named
from pipeline.images.decoding.reading import PASSING
from pipeline.images.names import counted
from pipeline.images.sources.shelf import is_there
from pipeline.progress import Progress
from pipeline.store import timings
from pipeline.store.cache import Cache
from pipeline.store.shards import Index, Key, Keys

if TYPE_CHECKING:
    from pipeline.images.decoding.loader import Batch
    from pipeline.images.decoding.reading import Guard
    from pipeline.trunks.engines.choice import Batches
    from pipeline.trunks.engines.engine import Engine
    from pipeline.trunks.registry import LoadedTrunk

#: Takes what `compute_parts` does, without an engine; see `pipeline.extraction.spread.anywhere`.
Elsewhere = Callable[..., Generator[Done]]


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
    elsewhere: Elsewhere | None = None,
) -> None:
    """Complete the rows of several layers and poolings of a trunk, in one pass over the images.

    A lock for each fingerprint spares others on this machine the same work: they wait for the
    rows. Nothing else depends on it. Until `cache.end_run` a manifest keeps the rows from the
    collector.

    Args:
        several: from `find_rows`, of one trunk, preprocessing and precision; completed in place.
        sources: (digest, view) to the path of each image, or its bytes, in data set order.
        trunk: where it is loaded already.
        engine: in place of the one that `make_engine` gives; only for a single fingerprint.
        unit: what a row is, for the person.
        wanted: bad ones are counted before, and after each part.
        elsewhere: computes the parts in place of this process, if need be; only for a single
            fingerprint.

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
        held.enter_context(_locked(cache, several, sources, options, progress, wanted))
        if any(rows.computed for rows in several):
            started = time.monotonic()
            batches = engines.batches_of(several[0].key, options)
            plan = make_plan(cache, several, sources, batch_size=batches.size)
            for rows in plan.lacking:
                cache.begin_run(rows.key.fingerprint, plan.wanted)
            compute = elsewhere or partial(compute_parts, engine=engine)
            parts = held.enter_context(
                closing(compute(plan, plan.parts, cache, options, progress, trunk=trunk))
            )
            try:
                for done in parts:
                    plan.enter(done)
                    for rows in plan.lacking:
                        check_there(done.part, rows.index, sources)
                        if wanted is not None:
                            wanted.check(rows.index)
            except KeyboardInterrupt:
                parts.close()  # what was being committed is
                for rows in plan.lacking:
                    rows.store.refresh(rows.index)
                kept = min(int(r.index.having(sources).sum()) for r in plan.lacking)
                progress.say(f"{kept:,} of {len(sources):,} {unit} are in the cache.")
                raise
            seconds = (time.monotonic() - started) / len(plan.lacking)
            for rows in plan.lacking:
                rows.store.keep(rows.index)
                rows.seconds += seconds
                timings.note(cache.memo, rows.key.fingerprint, len(rows.computed), seconds)
    for rows in several:
        rows.store.discard_damaged(rows.index.damaged)


@contextmanager
def _locked(
    cache: Cache,
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
            recover(cache, rows, tuple(sources))
        if locked:
            lacking()
        yield


def compute_parts(
    plan: Plan,
    parts: Iterable[Part],
    cache: Cache,
    options: ExtractOptions,
    progress: Progress,
    *,
    trunk: LoadedTrunk | None = None,
    engine: Engine | None = None,
    total: int | None = None,
    shared: bool = False,
) -> Generator[Done]:
    """Compute parts of a plan in this process and yield what came of each, in order.

    Reader and engine go on from part to part, so that neither waits where one ends. There is no
    lock: what two processes compute at once is there twice, and harmless.

    Args:
        plan: of which they are.
        parts: taken one by one, each a little before it is computed.
        cache: where shards go, and the notes of what crashes the decoder.
        options: how to compute.
        progress: told of each batch.
        trunk: where it is loaded already.
        engine: as in `fill`.
        total: images in these parts, for the person; None for those of the whole plan.
        shared: other processes take parts from where these come from: none is taken long before
            it is computed.
    """
    from pipeline.trunks.engines.engine import run_batches

    made = lru_cache(partial(_engine_for, plan, cache, options, trunk, engine))
    if parts is plan.parts:
        plan = batch_size.settled(plan, cache, options, lambda: made()[0])
        parts = plan.parts
    batches = engines.batches_of(plan.rows[0].key, options)._replace(size=plan.parts.batch_size)
    taken: deque[Part] = deque()
    start = plan.parts[0].batches if shared else None
    with ExitStack() as held:
        guard = held.enter_context(noted(cache, progress, again=options.rehash))
        reader = held.enter_context(
            closing(read(plan, parts, taken, batches, options, guard, start))
        )
        first = next(reader, None)  # images are decoded already while the engine is made
        if first is None:
            return
        engine, columns = made()
        canary.check(engine, [r.key for r in plan.rows], [r.store for r in plan.rows], columns)
        commits = held.enter_context(Commits())
        writers = [
            ShardWriter(rows, part, batches.names(engine), plan.wanted, commits)
            for rows, part in zip(plan.rows, columns, strict=True)
        ]
        computed = run_batches(engine, chain([first], reader))
        progress.start("extracting", len(plan.parts.keys) if total is None else total)
        written: deque[Computed] = deque()
        while taken:  # the reader is always ahead
            written.append(compute_part(taken.popleft(), computed, writers, progress))
            while len(written) > batches.behind:
                yield written.popleft().done(engine.notes)
        for one in written:
            yield one.done(engine.notes)


class Computed(NamedTuple):
    """A part whose shards are perhaps still being committed; as in `Done`."""

    part: Part
    shards: tuple[tuple[Pending, ...], ...]
    passing: tuple[tuple[Key, str], ...]
    sides: tuple[int, ...]

    def done(self, notes: Iterable[str]) -> Done:
        """Return what came of it, once it is committed.

        Raises:
            PipelineError: a shard could not be written.
        """
        shards = tuple(tuple(one.wait() for one in each) for each in self.shards)
        return Done(self.part, shards, self.passing, self.sides, tuple(notes))


def compute_part(
    part: Part,
    computed: Iterator[tuple[Batch, np.ndarray]],
    writers: Sequence[ShardWriter],
    progress: Progress,
) -> Computed:
    """Take the rows of a part's images and have them committed: the loop of stage one.

    Args:
        part: the next one of those that are read.
        computed: batches from the reader with the rows that the engine made of each.
        writers: one for each fingerprint.
        progress: told of each batch.
    """
    sources = dict(zip(part.keys, part.sources, strict=True))
    keys = iter(part.keys)
    passing: dict[Key, str] = {}
    sides: list[int] = []
    for batch, rows in islice(computed, part.batches):
        slots = list(islice(keys, batch.count))
        bad = [writer.take(rows, slots, batch, sources) for writer in writers]
        passing |= {slots[at]: reason for at, reason in batch.bad.items() if reason in PASSING}
        sides += [side for slot, side in batch.sides.items() if not slots[slot][1]]
        progress.advance(batch.count, max(bad))
    shards = tuple(writer.end() for writer in writers)
    return Computed(part, shards, tuple(passing.items()), tuple(sides))


def read(
    plan: Plan,
    parts: Iterable[Part],
    taken: deque[Part],
    batches: Batches,
    options: ExtractOptions,
    guard: Guard,
    start: int | None = None,
) -> Generator[Batch]:
    """Yield the batches of parts in order, decoded ahead of need.

    Args:
        plan: of which they are.
        parts: of which each begins with a batch of its own.
        taken: gets each part when its first batch is begun.
        batches: how crops are put together.
        options: how many threads.
        guard: notes what is being decoded, and knows what must not be.
        start: most batches to begin before an engine is there; None for as many as memory allows.
    """
    from pipeline.images.decoding.loader import AHEAD, HEAD_START, File, cut_into, load_batches

    def begun() -> Iterator[Sequence[File]]:
        for part in parts:
            taken.append(part)
            files = ((source, *key) for source, key in zip(part.sources, part.keys, strict=True))
            yield from cut_into(files, batches.size)

    preprocess = plan.rows[0].key.preprocess
    fits = HEAD_START // (batches.size * 3 * preprocess.crop**2)
    return load_batches(
        begun(),
        preprocess,
        batch_size=batches.size,
        workers=options.workers or options.cores,
        pin=batches.pinned,
        ahead=max(AHEAD, fits if start is None else min(fits, start)),
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


def check_there(part: Part, index: Index, sources: Mapping[Key, str | bytes]) -> None:
    """Tell a part of which each image has vanished by itself from a disk that has gone.

    Raises:
        PipelineError: none of the part's images could be read any more, and none of a hundred
            others is there.
    """
    if not all(index.bad.get(key) in PASSING for key in part.keys):
        return
    every = [source for source in sources.values() if isinstance(source, str)]
    if not any(is_there(path) for path in every[:: max(1, len(every) // 100)]):
        raise PipelineError(
            f"{counted(len(part.keys), 'image')} in a row vanished while they were read "
            f"({named(sources[part.keys[0]])} first), and the others are gone as well: is their "
            "disk still there? What was computed is kept. Run the same command again when it is "
            "back."
        )
