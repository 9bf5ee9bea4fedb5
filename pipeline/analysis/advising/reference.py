"""Features of the same images by the same trunk with random weights, to compare with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.cores import usable_cores
from pipeline.errors import PipelineError
from pipeline.extraction.compute import fill
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.plan import find_rows
from pipeline.images.digest import StatMemo, digest_all
from pipeline.images.preprocess import Preprocess
from pipeline.progress import Progress
from pipeline.store.cache import Cache
from pipeline.store.shards import Key
from pipeline.store.table import FeatureTable
from pipeline.trunks import spec
from pipeline.trunks.spec import FeatureKey


def random_features(
    cache: Cache,
    table: FeatureTable,
    wanted: np.ndarray,
    *,
    data: str | None,
    device: str,
    workers: int | None,
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray]:
    """Return which of a table's rows could be computed, and their features with random weights.

    Everything but the weights is the table's: layer, pooling, preprocessing, size. Rows are kept
    in the cache like any others; no table names them, so `pipeline cache gc` removes them.

    Args:
        cache: where rows are kept.
        table: whose trunk, layer and preprocessing are used.
        wanted: rows, int64 [n].
        data: folder in which the images lie now; None for where they lay.
        device: where to compute.
        workers: decoding threads.
        progress: told of the extraction.

    Returns:
        int64 [m], those of `wanted` that could be computed; float32 [m, D].

    Raises:
        PipelineError: the trunk cannot be made.
    """
    given = table.provenance
    options = ExtractOptions(trunk=given.trunk, weights="random", device=device, workers=workers)
    facts, trunk = spec.resolve(
        options.trunk, options.weights, options.keys, memo=cache.memo, state_dir=cache.weights
    )
    key = FeatureKey(
        facts.name, facts.weights_digest, given.layer, given.pool,
        Preprocess.from_json(given.preprocess), "auto",
    )  # fmt: skip
    keys: list[Key] = [(bytes.fromhex(table.digests[row]), 0) for row in wanted]
    with cache.reading(key.fingerprints, keys):
        rows = find_rows(cache, key, keys, device=device)
        missing = [row for row, k in zip(wanted, keys, strict=True) if k not in rows.index.rows]
        places = _at_hand(cache, table, missing, data, workers) if missing else {}
        sources = {
            k: places.get(int(row), "")
            for row, k in zip(wanted, keys, strict=True)
            if k in rows.index.rows or int(row) in places
        }
        if not sources:
            return wanted[:0], np.empty((0, table.features.shape[1]), np.float32)
        fill(cache, options, [rows], dict(sources), trunk=trunk, progress=progress)
        cache.end_run(rows.key.fingerprint, list(sources))
        good = [i for i, k in enumerate(keys) if k in rows.index.rows]
        if not good:
            return wanted[:0], np.empty((0, table.features.shape[1]), np.float32)
        return wanted[good], rows.gather([keys[i] for i in good])


def _at_hand(
    cache: Cache, table: FeatureTable, rows: list[int], data: str | None, workers: int | None
) -> dict[int, str]:
    """Return row → path of those images that are where they should be, and what they were."""
    root = Path(data or table.provenance.root).expanduser().absolute()
    if data is not None and not root.is_dir():
        raise PipelineError(f"--data {root} is not a folder.")
    if not root.is_dir():
        return {}
    paths = [table.paths[row] for row in rows]
    files = digest_all(root, paths, StatMemo(cache.memo), threads=workers or usable_cores())
    return {
        int(row): f"{root}/{path}"
        for row, path, file in zip(rows, paths, files, strict=True)
        if file.digest is not None and file.digest.hex() == table.digests[row]
    }
