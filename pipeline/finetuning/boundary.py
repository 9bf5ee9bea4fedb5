"""Activations of the frozen part: from the cache, each image and view computed once; or live."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch

from pipeline.cores import usable_cores
from pipeline.extraction.compute import fill
from pipeline.extraction.crashes import noted
from pipeline.extraction.engines import make_engine
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.plan import Rows, find_rows
from pipeline.extraction.scan import check_images, of_table
from pipeline.extraction.writer import HalfRangeError
from pipeline.finetuning.activations import Cached, Live, Source
from pipeline.finetuning.task import Task
from pipeline.progress import Progress
from pipeline.store.cache import Cache
from pipeline.store.shards import Key
from pipeline.store.table import FeatureTable
from pipeline.trunks.engines.finite import FiniteRows
from pipeline.trunks.feature_net import FeatureNet
from pipeline.trunks.registry import LoadedTrunk
from pipeline.trunks.spec import FeatureKey

#: Bytes of the disk that stay free.
SPARE = 256 << 20


@dataclass(frozen=True)
class Wanted:
    """Which images are needed, and in how many views.

    Attributes:
        train: digests to learn from, in view 0 and in `views`.
        scored: digests that are scored, in view 0.
        views: numbers of views of each training image.
        paths: digest to the path of each image.
    """

    train: tuple[bytes, ...]
    scored: tuple[bytes, ...]
    views: tuple[int, ...]
    paths: dict[bytes, str]

    def without(self, lost: Mapping[bytes, str]) -> Wanted:
        """Return what is needed where some images cannot be had."""
        return replace(
            self,
            train=tuple(digest for digest in self.train if digest not in lost),
            scored=tuple(digest for digest in self.scored if digest not in lost),
        )

    def every(self) -> list[Key]:
        """Return every (digest, view), an image's views together."""
        keys: list[Key] = [(digest, 0) for digest in self.scored]
        keys += [(digest, number) for digest in self.train for number in (0, *self.views)]
        return list(dict.fromkeys(keys))


def wanted_images(task: Task, rows: np.ndarray, views: tuple[int, ...]) -> Wanted:
    """Return what a task learns from and scores, where its images lie now.

    Args:
        task: whose images they are.
        rows: of the table, to learn from.
        views: numbers of their views.

    Raises:
        PipelineError: `--data` is no folder.
    """
    images = of_table(task.table, task.options.data)
    scored = np.concatenate(list(task.scored.values()))
    every = np.unique(np.concatenate([rows, scored]))
    return Wanted(
        train=tuple(images.digests[row] for row in rows),
        scored=tuple(images.digests[row] for row in scored),
        views=views,
        paths={images.digests[row]: images.file(row) for row in every},
    )


@dataclass(frozen=True)
class Prepared:
    """Where activations come from.

    Attributes:
        source: gives them.
        views: numbers of the views that epochs draw from.
        fresh: the policy of which every epoch draws new ones besides; empty for none.
        rows: that hold them; None where they are computed anew at every use (live).
        keys: their (digest, view); none where live.
        lost: digest to the reason of each image that has no activation.
    """

    source: Source
    views: tuple[int, ...]
    fresh: str
    rows: Rows | None
    keys: list[Key]
    lost: Mapping[bytes, str] = field(default_factory=dict)


def make_source(
    task: Task,
    cache: Cache,
    trunk: LoadedTrunk,
    *,
    rows: np.ndarray,
    policy: str,
    after: str,
    device: str,
    progress: Progress,
) -> Prepared:
    """Return the activations of the frozen part, from the cache, or live.

    Args:
        task: which images.
        cache: where activations are kept.
        trunk: loaded.
        rows: of the table, to learn from.
        policy: of their views.
        after: the boundary, as `Cut.after` has it.
        device: where to compute, and where batches are wanted.
        progress: told what is computed and what it takes.

    Raises:
        PipelineError: images that must be read are not there, or are others now.
    """
    given, options = task.table.provenance, task.options
    wanted = wanted_images(task, rows, options.numbers(policy))
    key, workers = boundary_key(task.table, after), options.workers
    extract = reading(task, device)
    place = torch.device(device)
    cached = None if options.live else collect(cache, key, wanted, extract, trunk, progress)
    if cached is not None:
        stored, fitting, lost = cached
        keys = fitting.every()
        source = Cached(stored.store, stored.index, keys, place)
        return Prepared(source, (0, *fitting.views), "", stored, keys, lost)
    check_images(wanted.paths, cache, progress, workers=workers)
    live = Live(
        make_engine(trunk, key, extract, cache), wanted.paths, key.preprocess,
        workers=workers or usable_cores(), device=place,
        guarded=partial(noted, cache, progress),
        finite=FiniteRows(given.trunk, str(given.precision)),
    )  # fmt: skip
    if wanted.views and (options.views is None or not options.live):
        return Prepared(live, (0,), policy, None, [])
    return Prepared(live, (0, *wanted.views), "", None, [])


def reading(task: Task, device: str) -> ExtractOptions:
    """Return the options with which a table's trunk computes anything of it."""
    given = task.table.provenance
    return ExtractOptions(
        trunk=given.trunk, weights=given.weights_asked, keys=given.keys, device=device,
        workers=task.options.workers,
    )  # fmt: skip


def boundary_key(table: FeatureTable, after: str) -> FeatureKey:
    """Return what the activations at a boundary of a table's trunk depend on."""
    key = replace(FeatureKey.of(table.provenance), decoder="auto")  # this machine's
    if after == "feature":
        return key
    if after == "pixels":  # crops are the same for all trunks that see alike
        bare = replace(key.preprocess, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        return FeatureKey("", "", "pixels", "map", bare, "", "uint8")
    return replace(key, layer=after, pool="map", dtype="float16")


def collect(
    cache: Cache,
    key: FeatureKey,
    wanted: Wanted,
    options: ExtractOptions,
    trunk: LoadedTrunk,
    progress: Progress,
) -> tuple[Rows, Wanted, dict[bytes, str]] | None:
    """Return the activations, what there are of, and the images without; None without room.

    A manifest keeps them from the collector until `cache.end_run`.

    Args:
        key: from `boundary_key`.
        wanted: what is needed.
        options: that load the trunk again, and how to compute.
        trunk: loaded.
        progress: told what is computed and what it takes.

    Raises:
        PipelineError: images that must be read are not there, or are others now.
    """
    dtypes = (key.dtype, "float32")
    looked_in = [f for dtype in dtypes for f in replace(key, dtype=dtype).fingerprints]
    with cache.reading(looked_in, wanted.every()):
        for dtype in dtypes:
            rows = _fullest(cache, key, dtype, wanted.every(), options.device)
            fitting = _room(cache, rows, wanted, trunk, progress)
            if fitting is None:
                return None
            keys = fitting.every()
            known = rows.index.known(keys).tolist()
            paths = {k[0]: fitting.paths[k[0]] for k, is_known in zip(keys, known, strict=True)
                     if not is_known}  # fmt: skip
            check_images(paths, cache, progress, workers=options.workers)
            sources: dict[Key, str | bytes] = {k: fitting.paths[k[0]] for k in keys}
            try:
                fill(
                    cache, options, [rows], sources, trunk=trunk, progress=progress,
                    unit="activations",
                )  # fmt: skip
            except HalfRangeError:
                cache.end_run(rows.key.fingerprint, list(sources))
                progress.say(
                    "float16 cannot hold these activations to a thousandth: keeping float32, which "
                    "takes twice the space."
                )
                continue
            lost = {k[0]: rows.index.bad[k] for k in keys if k in rows.index.bad}
            fitting = fitting.without(lost)
            cache.begin_run(rows.key.fingerprint, fitting.every())
            if lost:
                cache.end_run(rows.key.fingerprint, keys)
            return rows, fitting, lost
    raise AssertionError("float32 holds everything")


def _fullest(cache: Cache, key: FeatureKey, dtype: str, keys: Sequence[Key], device: str) -> Rows:
    """Return the store in a dtype, or the float32 one where an earlier run had to use that."""
    narrow = find_rows(cache, replace(key, dtype=dtype), keys, device=device)
    if dtype == "float16" and narrow.index.is_empty:
        wide = find_rows(cache, replace(key, dtype="float32"), keys, device=device)
        if not wide.index.is_empty:
            return wide
    return narrow


def _room(
    cache: Cache, rows: Rows, wanted: Wanted, trunk: LoadedTrunk, progress: Progress
) -> Wanted | None:
    """Tell what the activations take, and return as many views as the disk has room for."""
    missing = int((~rows.index.known(wanted.every())).sum())
    if not missing:
        return wanted
    each = int(np.prod(_shape(trunk, rows.key))) * np.dtype(rows.key.dtype).itemsize
    free = max(0, shutil.disk_usage(cache.root).free - SPARE)
    progress.say(
        f"{missing:,} activations of {rows.key.layer} take {each * missing / 1e6:,.0f} MB; "
        f"{free / 1e6:,.0f} MB are free."
    )
    fitting = wanted
    while each * missing > free:
        if not fitting.views:
            progress.say("There is no room for activations: going on with --live.")
            return None
        fitting = replace(fitting, views=fitting.views[:-1])
        missing = int((~rows.index.known(fitting.every())).sum())
    if len(fitting.views) < len(wanted.views):
        progress.say(
            f"There is room for {len(fitting.views)} of {len(wanted.views)} views of each image "
            "beside the evaluation view: going on with these. --live needs no room."
        )
    return fitting


@torch.no_grad()
def _shape(trunk: LoadedTrunk, key: FeatureKey) -> tuple[int, ...]:
    """Return the shape of one activation."""
    side = key.preprocess.crop
    if key.layer == "pixels":
        return (side, side, 3)
    net = FeatureNet(trunk.module, key.preprocess, key.layer, key.pool)
    return tuple(net(torch.zeros(1, 3, side, side)).shape[1:])
