"""Find the rows that are there, compute those that are missing, commit them shard by shard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import PipelineError
from pipeline.store.cache import Cache
from pipeline.store.shards import Index, Key, RowStore
from pipeline.trunks import spec
from pipeline.trunks.spec import FeatureKey, TrunkFacts
from pipeline.verbs.progress import Progress
from pipeline.verbs.recipe import Recipe

if TYPE_CHECKING:
    from pipeline.trunks.engine import Engine
    from pipeline.trunks.registry import LoadedTrunk

#: Rows of a shard, rounded down to whole batches: what a kill can cost.
SHARD_ROWS = 256
BATCH_SIZE = {"cpu": 32, "cuda": 128, "mps": 64}


def choose(
    cache: Cache, facts: TrunkFacts, recipe: Recipe, keys: Sequence[Key]
) -> tuple[FeatureKey, RowStore, Index]:
    """Return which rows to use, their store, and what it holds.

    Precision `auto` is the one of which the store holds most of the rows; in a new store what
    the hardware computes fastest.
    """
    layer, pool = spec.check_layer(facts, recipe.layer, recipe.pool)
    preprocess = facts.preprocess
    if recipe.image_size is not None:
        preprocess = preprocess.with_size(recipe.image_size)

    def at(precision: str) -> FeatureKey:
        return FeatureKey(facts.name, facts.weights_digest, layer, pool, preprocess, precision)

    if recipe.precision == "auto":
        held: list[tuple[int, FeatureKey, RowStore, Index]] = []
        for key in map(at, spec.PRECISIONS):
            store = cache.rows(key.fingerprint)
            if store.names():
                index = store.index()
                count = sum(wanted in index for wanted in keys)
                # rows made in fp16 on a GPU serve anywhere, but more of them need that GPU
                if count == len(keys) or key.precision != "fp16":
                    held.append((count, key, store, index))
        if held:
            return max(held, key=lambda entry: entry[0])[1:]
    from pipeline.trunks.engine import choose_device, choose_precision

    key = at(choose_precision(recipe.precision, choose_device(recipe.device)))
    store = cache.rows(key.fingerprint)
    return key, store, store.index()


def make_engine(
    trunk: LoadedTrunk | None, key: FeatureKey, recipe: Recipe, cache: Cache
) -> tuple[Engine, int]:
    """Return the engine for a key's rows, and the batch size; loads the trunk where needed."""
    from pipeline.trunks.engine import FeatureNet, TorchEngine, choose_device, choose_precision
    from pipeline.trunks.registry import load

    device = choose_device(recipe.device)
    precision = choose_precision(key.precision, device)
    trunk = trunk or load(recipe.trunk, recipe.weights, keys=recipe.keys, state_dir=cache.weights)
    net = FeatureNet(trunk.module, key.preprocess, key.layer, key.pool)
    engine = TorchEngine(net, device=device, precision=precision, size=key.preprocess.crop)
    return engine, recipe.batch_size or BATCH_SIZE[device]


def compute(
    engine: Engine,
    files: Mapping[Key, str] | Mapping[Key, str | bytes],
    *,
    key: FeatureKey,
    store: RowStore,
    index: Index,
    batch_size: int,
    workers: int,
    progress: Progress,
    check_bad: Callable[[], None],
) -> None:
    """Compute the rows of `files` in order, commit them, and enter them in the index.

    The plan is cut into shards of whole batches, bad images keep their place in it, and the last
    batch is padded: a run that was killed after any shard goes on with the same batches.

    Args:
        files: (digest, view) to the path of each image (or its bytes), in data set order.
        check_bad: called after each batch; raises when there are too many bad images.
    """
    from pipeline.images.loader import load

    keys = list(files)
    shard_rows = batch_size * max(1, SHARD_ROWS // batch_size)
    good: list[Key] = []
    bad: list[tuple[Key, str]] = []
    parts: list[np.ndarray] = []
    progress.start("extracting", len(keys))

    def commit() -> None:
        rows = np.concatenate(parts) if parts else np.empty((0, 0), np.float32)
        name = store.commit(good, rows, bad=bad, engine=engine.name)
        index.engines[name] = engine.name
        index.rows.update((key, (name, row)) for row, key in enumerate(good))
        good.clear()
        bad.clear()
        parts.clear()

    batches = load(
        [(path, digest) for (digest, _), path in files.items()],
        key.preprocess,
        batch_size=batch_size,
        workers=workers,
        pin=engine.name == "torch-cuda",
    )
    for batch in batches:
        slots = [slot for slot in range(batch.count) if slot not in batch.bad]
        if slots:
            rows = engine.rows(batch.crops)[slots]
            _check_finite(rows, key)
            parts.append(rows)
        good += [keys[batch.start + slot] for slot in slots]
        bad += [(keys[batch.start + slot], reason) for slot, reason in sorted(batch.bad.items())]
        index.bad.update(bad)
        end = batch.start + batch.count
        if end % shard_rows == 0 or end == len(keys):
            commit()
        progress.advance(batch.count, len(batch.bad))
        check_bad()


def _check_finite(rows: np.ndarray, key: FeatureKey) -> None:
    if not np.isfinite(rows).all():
        other = "fp32" if key.precision != "fp32" else "another trunk or other weights"
        raise PipelineError(
            f"{key.trunk} gave features that are not finite in {key.precision}; "
            f"{'give --precision ' if key.precision != 'fp32' else 'use '}{other}."
        )
