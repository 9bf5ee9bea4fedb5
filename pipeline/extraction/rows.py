"""Find the rows that are there, compute those that are missing, commit them shard by shard."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import numpy as np

from pipeline.cores import usable_cores
from pipeline.extraction import engines
from pipeline.extraction.crashes import noted
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.shard_writer import Sink
from pipeline.progress import Progress
from pipeline.store import costs
from pipeline.store.cache import Cache
from pipeline.store.shards import Index, Key, RowStore
from pipeline.trunks import spec
from pipeline.trunks.spec import FeatureKey, TrunkFacts

if TYPE_CHECKING:
    import torch

    from pipeline.images.decoding.loader import Batch
    from pipeline.images.decoding.reading import Guard
    from pipeline.trunks.engines.choice import Batches
    from pipeline.trunks.engines.engine import Engine
    from pipeline.trunks.registry import LoadedTrunk

#: Rows of a shard, rounded down to whole batches: what a kill can cost.
SHARD_ROWS = 256
#: A shard is also ended at the batch with which its rows reach so many bytes.
SHARD_BYTES = 64 << 20


@dataclass
class Rows:
    """The rows that a run wants, as far as they exist.

    Attributes:
        key: what they depend on.
        store: where they are.
        index: what is there, the images that could not be decoded included.
        computed: (digest, view) of those that this run tried to compute.
        notes: sentences for the person.
        seconds: that computing took, loading the trunk included.
    """

    key: FeatureKey
    store: RowStore
    index: Index
    computed: list[Key] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


def wanted(facts: TrunkFacts, options: ExtractOptions) -> FeatureKey:
    """Return what the rows depend on, the precision as it was asked for.

    Raises:
        UsageError: a layer or pooling that the trunk does not have.
    """
    layer, pool = spec.check_layer(facts, options.layer, options.pool)
    preprocess = facts.preprocess
    if options.image_size is not None:
        preprocess = preprocess.with_size(options.image_size)
    return FeatureKey(facts.name, facts.weights_digest, layer, pool, preprocess, options.precision)


def choose(cache: Cache, asked: FeatureKey, device: str, keys: Sequence[Key]) -> Rows:
    """Return what the store holds; precision `auto` is settled here.

    It is the one of which the store holds most of the rows; in a new store what the hardware
    computes fastest.
    """
    auto = asked.precision == "auto"
    there: dict[FeatureKey, Rows] = {}
    held: list[tuple[int, Rows]] = []
    for precision in spec.PRECISIONS if auto else (asked.precision,):
        key = replace(asked, precision=precision)
        store = cache.rows(key.fingerprint)
        if store.names():
            one = there[key] = Rows(key, store, store.index())
            count = sum(wanted in one.index for wanted in keys)
            # rows made in fp16 on a GPU serve anywhere, but more of them need that GPU
            if 0 < count == len(keys) or (auto and precision != "fp16"):
                held.append((count, one))
    if held:
        return max(held, key=lambda entry: entry[0])[1]
    from pipeline.trunks.engines.devices import choose_device, choose_precision

    key = replace(asked, precision=choose_precision(asked.precision, choose_device(device)))
    store = cache.rows(key.fingerprint)
    return there.get(key) or Rows(key, store, store.index())


def fill(
    cache: Cache,
    options: ExtractOptions,
    rows: Rows,
    sources: Mapping[Key, str | bytes],
    *,
    trunk: LoadedTrunk | None,
    progress: Progress,
    unit: str = "images",
    check_bad: Callable[[Index], None] = lambda index: None,
    engine: Callable[[], Engine] | None = None,
) -> Rows:
    """Return the rows of `sources`, having computed and committed those that were missing.

    Until `cache.end_run` a manifest keeps them from the collector.

    Args:
        rows: from `choose`; completed and returned.
        sources: (digest, view) to the path of each image, or its bytes, in data set order.
        trunk: where it is loaded already.
        unit: what a row is, for the person.
        check_bad: called before, and after each batch; raises when too many images are bad.
        engine: gives an engine for these rows in place of `make_engine`.

    Raises:
        LockedError: another process computes rows of this fingerprint.
        HalfRangeError: float16 cannot hold the rows that the key asks for.
    """
    fill_together(
        cache, options, [rows], sources, trunk=trunk, progress=progress, unit=unit,
        check_bad=check_bad, engine=engine,
    )  # fmt: skip
    return rows


def fill_together(
    cache: Cache,
    options: ExtractOptions,
    several: Sequence[Rows],
    sources: Mapping[Key, str | bytes],
    *,
    trunk: LoadedTrunk | None,
    progress: Progress,
    unit: str = "images",
    check_bad: Callable[[Index], None] = lambda index: None,
    engine: Callable[[], Engine] | None = None,
) -> None:
    """Do what `fill` does for several layers and poolings of a trunk, in one pass over the images.

    Args:
        several: rows of one trunk, preprocessing and precision.
        engine: only for a single one.
    """
    for rows in several:
        for reason in rows.index.damaged.values():
            progress.say(f"{reason} Its rows are computed again.")
        if options.rehash:
            rows.index.bad.clear()  # perhaps a newer decoder reads them
        check_bad(rows.index)
        rows.computed = [key for key in sources if key not in rows.index]
    lacking = [rows for rows in several if rows.computed]
    if lacking:
        missing = {key for rows in lacking for key in rows.computed}
        files = {key: source for key, source in sources.items() if key in missing}
        # A run that was killed may have completed some of them. It goes on with the same network:
        # one converted for fewer of them may round otherwise.
        wanted = list(sources)
        together = [
            rows for rows in several
            if rows.computed or cache.has_begun(rows.key.fingerprint, wanted)
        ]  # fmt: skip
        with ExitStack() as held:
            for rows in lacking:
                cache.begin_run(rows.key.fingerprint, wanted)
                held.enter_context(rows.store.lock())
            started = time.monotonic()
            try:
                with noted(lacking[0].store, progress) as guard:
                    notes = compute(
                        partial(_prepare, cache, options, together, trunk, engine),
                        files,
                        lacking[0].key,
                        guard=guard,
                        options=options,
                        progress=progress,
                        check_bad=check_bad,
                    )
            except KeyboardInterrupt:
                kept = min(sum(key in rows.index.rows for key in sources) for rows in lacking)
                progress.say(f"{kept:,} of {len(sources):,} {unit} are in the cache.")
                raise
            seconds = (time.monotonic() - started) / len(lacking)
            for rows in lacking:
                rows.notes += notes
                rows.seconds += seconds
                costs.note(cache.memo, rows.key.fingerprint, len(rows.computed), seconds)
    for rows in several:
        rows.store.discard_damaged(rows.index.damaged)


def _prepare(
    cache: Cache,
    options: ExtractOptions,
    together: Sequence[Rows],
    trunk: LoadedTrunk | None,
    engine: Callable[[], Engine] | None,
    batches: Batches,
) -> tuple[Engine, list[Sink]]:
    """Return an engine for all of these rows, and where the columns go of those that lack some."""
    columns = [slice(None)]
    if len(together) == 1:
        make = engine or partial(engines.make_engine, trunk, together[0].key, options, cache)
        runs = make()
    else:
        keys = [rows.key for rows in together]
        runs, widths = engines.make_joint_engine(trunk, keys, options, cache)
        ends = np.cumsum([0, *widths]).tolist()
        columns = [slice(a, b) for a, b in pairwise(ends)]
    name = batches.names(runs)
    every = [Sink(*one, name) for one in zip(together, columns, strict=True)]
    return runs, [sink for sink in every if sink.wanted]


def compute(
    prepare: Callable[[Batches], tuple[Engine, list[Sink]]],
    files: Mapping[Key, str | bytes],
    key: FeatureKey,
    *,
    options: ExtractOptions,
    guard: Guard,
    progress: Progress,
    check_bad: Callable[[Index], None],
) -> list[str]:
    """Compute the rows of `files` in order, commit them, and enter them in the indices.

    The plan is cut into shards of whole batches, bad images keep their place in it, and the last
    batch is padded: a run that was killed after any shard goes on with the same batches. Images
    are decoded already while the engine is made.

    Args:
        prepare: gives the engine for such batches, and a sink for each fingerprint.
        files: (digest, view) to the path of each image (or its bytes), in data set order; one at
            least.
        key: of the rows, or of one kind of them.
        options: batch size, device and workers.
        guard: notes what is being decoded, and knows what must not be.
        check_bad: called after each batch; raises when there are too many bad images.

    Returns:
        The engine's notes for the person.
    """
    from pipeline.images.decoding.loader import AHEAD, HEAD_START, load

    keys = list(files)
    kind = engines.batches_of(key, options)
    size = kind.size
    shard_rows = size * max(1, SHARD_ROWS // size)
    batches = load(
        [(path, digest, view) for (digest, view), path in files.items()],
        key.preprocess,
        batch_size=size,
        workers=options.workers or usable_cores(),
        pin=kind.pinned,
        ahead=max(AHEAD, HEAD_START // (size * 3 * key.preprocess.crop**2)),
        guard=guard,
        cut=kind.cut,
    )
    running: deque[Batch] = deque()  # given to the engine, which may take some ahead

    def crops(first: Batch) -> Iterator[torch.Tensor]:
        for batch in chain([first], batches):
            running.append(batch)
            yield batch.crops

    with closing(batches):
        first = next(batches)
        engine, sinks = prepare(kind)
        progress.start("extracting", len(keys))
        for computed in engine.run(crops(first)):
            batch = running.popleft()
            end = batch.start + batch.count
            for sink in sinks:
                sink.take(computed, keys[batch.start : end], batch.bad)
            full = sum(sink.held for sink in sinks) >= SHARD_BYTES
            if end % shard_rows == 0 or end == len(keys) or full:
                for sink in sinks:
                    sink.commit()
            progress.advance(batch.count, len(batch.bad))
            check_bad(sinks[0].rows.index)
    return engine.notes
