"""The boundary cache: activations of the frozen part, each image and view computed once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.errors import PipelineError
from pipeline.extraction.compute import fill
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.plan import Rows, find_rows
from pipeline.extraction.scan import check_images
from pipeline.extraction.shard_writer import HalfRangeError
from pipeline.progress import Progress
from pipeline.store.cache import Cache
from pipeline.store.shards import Key
from pipeline.store.table import FeatureTable
from pipeline.trunks.registry import LoadedTrunk
from pipeline.trunks.spec import FeatureKey

#: Bytes of the disk that stay free.
SPARE = 256 << 20


def boundary_key(table: FeatureTable, after: str) -> FeatureKey:
    """Return what the activations at a boundary of a table's trunk depend on."""
    key = FeatureKey.of(table.provenance)
    if after == "feature":
        return key
    if after == "pixels":  # crops are the same for all trunks that see alike
        bare = replace(key.preprocess, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        return FeatureKey("", "", "pixels", "map", bare, "", "uint8")
    return replace(key, layer=after, pool="map", dtype="float16")


@dataclass(frozen=True)
class Wanted:
    """Which images are needed, and in how many views.

    Attributes:
        train: digests to learn from; in views 1 to `views`, or in view 0 where that is 0.
        scored: digests that are scored, in view 0.
        views: of each training image.
        paths: digest to the path of each image.
    """

    train: tuple[bytes, ...]
    scored: tuple[bytes, ...]
    views: int
    paths: dict[bytes, str]

    def every(self) -> list[Key]:
        """Return every (digest, view), an image's views together."""
        numbers = range(1, self.views + 1) if self.views else (0,)
        found: list[Key] = [(digest, 0) for digest in self.scored]
        found += [(digest, number) for digest in self.train for number in numbers]
        return list(dict.fromkeys(found))


def options_of(table: FeatureTable, *, device: str, workers: int | None) -> ExtractOptions:
    """Return the options that load a table's trunk again."""
    given = table.provenance
    return ExtractOptions(
        trunk=given.trunk,
        weights=given.weights_asked,
        keys=given.keys,
        device=device,
        workers=workers,
    )


def collect(
    cache: Cache,
    key: FeatureKey,
    wanted: Wanted,
    *,
    options: ExtractOptions,
    trunk: LoadedTrunk,
    shape: Callable[[], tuple[int, ...]],
    progress: Progress,
) -> tuple[Rows, Wanted] | None:
    """Return the activations, and the views that there was room for; None where there is none.

    A manifest keeps them from the collector until `cache.end_run`.

    Args:
        key: from `boundary_key`.
        wanted: what is needed.
        options: from `options_of`.
        trunk: loaded.
        shape: gives the shape of one activation.
        progress: told what is computed and what it takes.

    Raises:
        PipelineError: images that must be read are not there, or are others now.
    """
    dtypes = (key.dtype, "float32")
    looked_in = [f for dtype in dtypes for f in replace(key, dtype=dtype).fingerprints]
    with cache.reading(looked_in, wanted.every()):
        for dtype in dtypes:
            rows = _fullest(cache, key, dtype, wanted.every(), options.device)
            fitting = _room(cache, rows, wanted, shape, progress)
            if fitting is None:
                return None
            keys = fitting.every()
            paths = {k[0]: fitting.paths[k[0]] for k in keys if k not in rows.index}
            check_images(paths, cache, workers=options.workers)
            sources: dict[Key, str | bytes] = {k: fitting.paths[k[0]] for k in keys}
            try:
                fill(
                    cache, options, [rows], sources, trunk=trunk, progress=progress,
                    unit="activations",
                )  # fmt: skip
                cache.begin_run(rows.key.fingerprint, keys)
            except HalfRangeError:
                cache.end_run(rows.key.fingerprint, list(sources))
                progress.say(
                    "float16 cannot hold these activations to a thousandth: keeping float32, which "
                    "takes twice the space."
                )
                continue
            bad = [fitting.paths[k[0]] for k in keys if k in rows.index.bad]
            if bad:
                raise PipelineError(
                    f"{len(bad)} images can no longer be decoded, such as {bad[0]}."
                )
            return rows, fitting
    raise AssertionError("float32 holds everything")


def _fullest(cache: Cache, key: FeatureKey, dtype: str, keys: Sequence[Key], device: str) -> Rows:
    """Return the store in a dtype, or the float32 one where an earlier run had to use that."""
    found = find_rows(cache, replace(key, dtype=dtype), keys, device=device)
    if dtype == "float16" and not found.index.rows:
        wide = find_rows(cache, replace(key, dtype="float32"), keys, device=device)
        if wide.index.rows:
            return wide
    return found


def _room(
    cache: Cache,
    rows: Rows,
    wanted: Wanted,
    shape: Callable[[], tuple[int, ...]],
    progress: Progress,
) -> Wanted | None:
    """Tell what the activations take, and return as many views as the disk has room for."""
    missing = sum(key not in rows.index for key in wanted.every())
    if not missing:
        return wanted
    each = int(np.prod(shape())) * np.dtype(rows.key.dtype).itemsize
    free = max(0, shutil.disk_usage(cache.root).free - SPARE)
    progress.say(
        f"{missing:,} activations of {rows.key.layer} take {each * missing / 1e6:,.0f} MB; "
        f"{free / 1e6:,.0f} MB are free."
    )
    fitting = wanted
    while each * missing > free:
        if fitting.views <= 1:
            progress.say("There is no room for activations: going on with --live.")
            return None
        fitting = replace(fitting, views=fitting.views - 1)
        missing = sum(key not in rows.index for key in fitting.every())
    if fitting.views < wanted.views:
        progress.say(
            f"There is room for {fitting.views} of {wanted.views} views of each image: going on "
            "with these. --live needs no room."
        )
    return fitting
