"""Find the rows that are there, compute those that are missing, commit them shard by shard."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import PipelineError
from pipeline.store import costs
from pipeline.store.cache import Cache
from pipeline.store.shards import Index, Key, RowStore
from pipeline.trunks import spec
from pipeline.trunks.spec import FeatureKey, TrunkFacts
from pipeline.verbs import engines
from pipeline.verbs.cores import usable_cores
from pipeline.verbs.crashes import noted
from pipeline.verbs.progress import Progress
from pipeline.verbs.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from pipeline.images.loader import Batch, Guard
    from pipeline.trunks.engine import Engine
    from pipeline.trunks.registry import LoadedTrunk

#: Rows of a shard, rounded down to whole batches: what a kill can cost.
SHARD_ROWS = 256
#: A shard is also ended at the batch with which its rows reach so many bytes.
SHARD_BYTES = 64 << 20
#: Largest relative error (L2) that float16 may make; rounding alone makes half of 2⁻¹⁰.
HALF_ERROR = 1e-3


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


def wanted(facts: TrunkFacts, recipe: Recipe) -> FeatureKey:
    """Return what the rows depend on, the precision as it was asked for.

    Raises:
        UsageError: a layer or pooling that the trunk does not have.
    """
    layer, pool = spec.check_layer(facts, recipe.layer, recipe.pool)
    preprocess = facts.preprocess
    if recipe.image_size is not None:
        preprocess = preprocess.with_size(recipe.image_size)
    return FeatureKey(facts.name, facts.weights_digest, layer, pool, preprocess, recipe.precision)


def choose(cache: Cache, asked: FeatureKey, device: str, keys: Sequence[Key]) -> Rows:
    """Return what the store holds; precision `auto` is settled here.

    It is the one of which the store holds most of the rows; in a new store what the hardware
    computes fastest.
    """
    if asked.precision == "auto":
        held: list[tuple[int, Rows]] = []
        for precision in spec.PRECISIONS:
            key = replace(asked, precision=precision)
            store = cache.rows(key.fingerprint)
            if store.names():
                index = store.index()
                count = sum(wanted in index for wanted in keys)
                # rows made in fp16 on a GPU serve anywhere, but more of them need that GPU
                if count == len(keys) or precision != "fp16":
                    held.append((count, Rows(key, store, index)))
        if held:
            return max(held, key=lambda entry: entry[0])[1]
    else:
        store = cache.rows(asked.fingerprint)
        index = store.index()
        if all(wanted in index for wanted in keys):  # nothing is left that needs a device
            return Rows(asked, store, index)
    from pipeline.trunks.devices import choose_device, choose_precision

    key = replace(asked, precision=choose_precision(asked.precision, choose_device(device)))
    store = cache.rows(key.fingerprint)
    return Rows(key, store, store.index())


def fill(
    cache: Cache,
    recipe: Recipe,
    rows: Rows,
    sources: Mapping[Key, str | bytes],
    *,
    trunk: LoadedTrunk | None,
    progress: Progress,
    unit: str = "images",
    check_bad: Callable[[Index], None] = lambda index: None,
    engine: Callable[[], tuple[Engine, int]] | None = None,
) -> Rows:
    """Return the rows of `sources`, having computed and committed those that were missing.

    Until `cache.end_run` a manifest keeps them from the collector.

    Args:
        rows: from `choose`; completed and returned.
        sources: (digest, view) to the path of each image, or its bytes, in data set order.
        trunk: where it is loaded already.
        unit: what a row is, for the person.
        check_bad: called before, and after each batch; raises when too many images are bad.
        engine: gives an engine for these rows, and the batch size, in place of `make_engine`.

    Raises:
        LockedError: another process computes rows of this fingerprint.
        HalfRangeError: float16 cannot hold the rows that the key asks for.
    """
    for reason in rows.index.damaged.values():
        progress.say(f"{reason} Its rows are computed again.")
    if recipe.rehash:
        rows.index.bad.clear()  # perhaps a newer decoder reads them
    check_bad(rows.index)
    rows.computed = [key for key in sources if key not in rows.index]
    if rows.computed:
        cache.begin_run(rows.key.fingerprint, list(sources))
        with rows.store.lock():
            started = time.monotonic()
            make = engine or partial(engines.make_engine, trunk, rows.key, recipe, cache)
            runs, batch_size = make()
            try:
                files = {key: sources[key] for key in rows.computed}
                with noted(rows.store, progress) as guard:
                    compute(
                        runs,
                        files,
                        key=rows.key,
                        store=rows.store,
                        index=rows.index,
                        guard=guard,
                        batch_size=batch_size,
                        workers=recipe.workers or usable_cores(),
                        progress=progress,
                        check_bad=check_bad,
                    )
            except KeyboardInterrupt:
                kept = sum(key in rows.index.rows for key in sources)
                progress.say(f"{kept:,} of {len(sources):,} {unit} are in the cache.")
                raise
            rows.notes += runs.notes
            rows.seconds = time.monotonic() - started
            costs.note(cache.memo, rows.key.fingerprint, len(rows.computed), rows.seconds)
    rows.store.discard_damaged(rows.index.damaged)
    return rows


def compute(
    engine: Engine,
    files: Mapping[Key, str | bytes],
    *,
    key: FeatureKey,
    store: RowStore,
    index: Index,
    guard: Guard,
    batch_size: int,
    workers: int,
    progress: Progress,
    check_bad: Callable[[Index], None],
) -> None:
    """Compute the rows of `files` in order, commit them, and enter them in the index.

    The plan is cut into shards of whole batches, bad images keep their place in it, and the last
    batch is padded: a run that was killed after any shard goes on with the same batches.

    Args:
        files: (digest, view) to the path of each image (or its bytes), in data set order.
        guard: notes what is being decoded, and knows what must not be.
        check_bad: called after each batch; raises when there are too many bad images.
    """
    from pipeline.images.loader import load

    keys = list(files)
    shard_rows = batch_size * max(1, SHARD_ROWS // batch_size)
    held = 0  # bytes since the last commit
    good: list[Key] = []
    bad: list[tuple[Key, str]] = []
    parts: list[np.ndarray] = []
    progress.start("extracting", len(keys))

    def commit() -> None:
        rows = np.concatenate(parts) if parts else np.empty((0, 0), key.dtype)
        name = store.commit(good, rows, bad=bad, engine=engine.name)
        index.engines[name] = engine.name
        index.rows.update((key, (name, row)) for row, key in enumerate(good))
        good.clear()
        bad.clear()
        parts.clear()

    batches = load(
        [(path, digest, view) for (digest, view), path in files.items()],
        key.preprocess,
        batch_size=batch_size,
        workers=workers,
        pin=engine.pinned,
        guard=guard,
    )
    running: deque[Batch] = deque()  # given to the engine, which may take some ahead

    def crops() -> Iterator[torch.Tensor]:
        for batch in batches:
            running.append(batch)
            yield batch.crops

    for computed in engine.run(crops()):
        batch = running.popleft()
        slots = [slot for slot in range(batch.count) if slot not in batch.bad]
        if slots:
            rows = stored(computed[slots], key)
            parts.append(rows)
            held += rows.nbytes
        good += [keys[batch.start + slot] for slot in slots]
        bad += [(keys[batch.start + slot], reason) for slot, reason in sorted(batch.bad.items())]
        index.bad.update(bad)
        end = batch.start + batch.count
        if end % shard_rows == 0 or end == len(keys) or held >= SHARD_BYTES:
            commit()
            held = 0
        progress.advance(batch.count, len(batch.bad))
        check_bad(index)


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
