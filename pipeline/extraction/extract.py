"""Stage one: from a folder of images to a table of features."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError, UsageError
from pipeline.extraction.assemble import assemble, write_left_out
from pipeline.extraction.compute import fill
from pipeline.extraction.notes import pooling_notes, small_notes, unread_notes
from pipeline.extraction.options import DEFAULT_TRUNK, ExtractOptions
from pipeline.extraction.plan import Rows, feature_key, find_rows
from pipeline.extraction.scan import gather
from pipeline.extraction.spread.anywhere import compute_anywhere
from pipeline.extraction.wanted import WantedImages, first
from pipeline.images.datasets.given import AnyData, Data, as_data
from pipeline.images.datasets.imageset import ImageSet
from pipeline.images.remarks import Remarks
from pipeline.images.views import CLASSIC
from pipeline.progress import Progress, Silent
from pipeline.store.atomic import make_folder, may_only_be_read
from pipeline.store.cache import Cache
from pipeline.store.index.keys import joined as every
from pipeline.store.records import PassCost
from pipeline.store.shards import Keys
from pipeline.store.table import FeatureTable, flat_notes
from pipeline.trunks import permitted, spec
from pipeline.trunks.spec import TrunkFacts

if TYPE_CHECKING:
    from torch import nn

    from pipeline.trunks.registry import LoadedTrunk


@dataclass(frozen=True)
class Extraction:
    """What `extract` did.

    Attributes:
        table: the table, opened.
        images: images found: extracted + reused + bad.
        extracted: images that went through the trunk in this run.
        reused: images whose row was there already, equal images included.
        bad: path and reason of every image that could not be decoded.
        left_out: path and reason of every file that was not taken for an image.
        remarks: path and what decoding converted, assumed or passed over, of images in the table.
        listing: the file beside the table that lists all three, or None.
        notes: sentences for the person.
        seconds: of the whole run.
        views: of each training image that the table holds.
        views_computed: views that went through the trunk in this run.
        images_per_second: extracted images and views over the seconds that extracting took.
    """

    table: FeatureTable
    images: int
    extracted: int
    reused: int
    bad: tuple[tuple[str, str], ...]
    left_out: tuple[tuple[str, str], ...]
    remarks: tuple[tuple[str, str], ...]
    listing: Path | None
    notes: tuple[str, ...]
    views: int
    views_computed: int
    seconds: float
    images_per_second: float

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        table, provenance = self.table, self.table.provenance
        return {
            "table": str(table.path),
            "table_id": table.table_id,
            "fingerprint": table.fingerprint,
            "trunk": provenance.trunk,
            "weights": provenance.weights,
            "images": self.images,
            "extracted": self.extracted,
            "reused": self.reused,
            "bad": [{"path": path, "reason": reason} for path, reason in self.bad],
            "left_out": [{"path": path, "reason": reason} for path, reason in self.left_out],
            "remarks": [{"path": path, "remark": remark} for path, remark in self.remarks],
            "notes": list(self.notes),
            "rows": len(table.labels),
            "dim": table.dim,
            "classes": list(table.classes),
            "splits": table.split_counts,
            "views": self.views,
            "views_computed": self.views_computed,
            "precision": provenance.precision,
            "engine": provenance.engine,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 2),
        }


def extract(
    data: AnyData = None,
    *,
    trunk: str | nn.Module = DEFAULT_TRUNK,
    weights: str | Path = "default",
    keys: str = "name",
    layer: str | Sequence[str] | None = None,
    pool: str | None = None,
    views: int = 0,
    augment: str = CLASSIC,
    image_size: int | None = None,
    precision: str = "auto",
    dtype: str = "float32",
    device: str = "auto",
    engine: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    processes: int | None = None,
    on: str | None = None,
    name: str | None = None,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
    wait: bool = True,
    max_bad: int | None = None,
    rehash: bool = False,
    preprocess: Mapping[str, Any] | None = None,
    cache: str | Path | None = None,
) -> FeatureTable:
    """Run a frozen trunk over the images of `data` and return the table of their features.

    What the cache holds already is not computed again.

    Args:
        data: a folder, a CSV or TSV file, an archive or several, Parquet files, a data set saved by
            Hugging Face, the address of any of these, or the name of a built-in set; a data frame,
            paths, or (path or bytes of a file, label) pairs; `digits` without it.
        trunk: built-in, torchvision's name, `timm/NAME`, `module:function` that makes one's own,
            or such a network itself, with `name` and `preprocess`. Its last Linear is the
            classifier; without one, what it gives is the feature.
        weights: `default`, a name of the library's, `random`, or a file; `FILE::KEY` for one of
            several networks in it.
        keys: match a weights file's tensors by `name` or by `order`.
        layer: `stem`, `layer1` … `layer4` or `neck`, or several with commas, side by side; None
            for the trunk's own feature.
        pool: `avg`, `max`, `gem` or `flat`, of the layers' activations; `cls` or `cls+avg` where
            there is a class token.
        views: augmented views of each training image that are kept besides.
        augment: what they look like: `crop+mirror`, `crop`, `shift+mirror`, `shift` or `mirror`.
        image_size: side of the input in pixels; None for the weights' own.
        precision: `auto`, `fp32`, `tf32`, `bf16` or `fp16`.
        dtype: `float32`, or `float16` for rows, and a table, of half the size.
        device: `auto`, `cpu`, `cuda` or `mps`.
        engine: `auto`, `torch`, `compiled` or `openvino`: what runs the trunk.
        batch_size: images at once; None for the device's default.
        workers: decoding threads; None for the cores that the process may use.
        processes: that compute, each with its share of the cores, or a GPU of its own; None for
            one, or one for each GPU.
        on: `dask` for processes of a Dask cluster on this machine, or the address of a running
            Dask scheduler, whose workers see images and cache at the same places.
        name: the table's name; None for the data's. A network given itself has the same name,
            which stands for its code; `own_trunk` names it apart from its tables.
        val_fraction: share of val, in [0, 1), where the data have no splits; None for 0.15.
        test_fraction: share of test, likewise.
        seed: of the automatic splits, from 0.
        wait: for another process that computes the same rows, and take its rows.
        max_bad: most images that may be undecodable; None for no limit.
        rehash: read every file again, and try bad images again.
        preprocess: of a network given itself: `size`, `mean`, `std` and `interpolation`, perhaps
            `resize` (else the size) and `squash`.
        cache: the cache's folder; else `$PIPELINE_CACHE`, else `./cache`.

    Returns:
        The table, with `features` [N, D] in that `dtype` and `labels` [N] int64.

    Raises:
        UsageError: an option that cannot be right, or does not fit the data; a `ValueError` too.
        PipelineError: there are no images, none could be decoded, or more are bad than `max_bad`;
            the weights cannot be had; a file cannot be read or written; another process computes
            the same rows, and it is not to be waited for.

    Example:
        >>> import pipeline
        >>> table = pipeline.extract("digits")
        >>> table.features.shape
        (1797, 1280)
    """
    if not isinstance(trunk, str):
        trunk = _given(trunk, name, preprocess)
    elif preprocess is not None:
        raise UsageError("preprocess is of a network given itself; a library's has its own.")
    return extract_table(as_data(data), ExtractOptions.of(locals()), Cache.at(cache)).table


def _given(trunk: Any, name: str | None, preprocess: Any) -> str:
    """Return the name under which a network given in Python is found."""
    from torch import nn

    from pipeline.trunks.sources import own

    given = isinstance(trunk, nn.Module)
    return own.own_trunk(trunk, name=name, preprocess=preprocess) if given else trunk


def extract_table(
    data: Data,
    options: ExtractOptions,
    cache: Cache,
    progress: Progress | None = None,
) -> Extraction:
    """Do what `extract` does and report on it."""
    began = time.monotonic()
    progress = progress or Silent()
    facts, loaded, gathered = prepare(data, options, cache, progress)
    (done,) = extract_tables(
        data, [options], cache, progress, gathered=gathered, facts=facts, trunk=loaded
    )
    assert done.table.path is not None
    notes = list(done.notes)
    with _where_allowed(notes, cache, "its current table stays the one before"):
        cache.set_current(done.table.path)
    if not os.access(cache.root, os.W_OK) and not any(_READ_ONLY in note for note in notes):
        notes.append(f"{cache.root} {_READ_ONLY}: it gave what it holds, and nothing was written.")
    return replace(done, notes=tuple(notes), seconds=time.monotonic() - began)


def prepare(
    data: Data, options: ExtractOptions, cache: Cache, progress: Progress
) -> tuple[TrunkFacts, LoadedTrunk | None, ImageSet]:
    """Return the trunk's facts, the trunk where it had to be loaded for them, and the images."""
    options.check()
    permitted.permit(options.trunk)
    make_folder(cache.root)  # its memo remembers from here on
    facts, loaded = spec.resolve(
        options.trunk, options.weights, options.keys, size=options.image_size, memo=cache.memo,
        state_dir=cache.weights,
    )  # fmt: skip
    feature_key(facts, options)  # a layer that is not there is refused before a file is read
    return facts, loaded, gather(data, options, cache, progress)


def extract_tables(
    data: Data,
    several: Sequence[ExtractOptions],
    cache: Cache,
    progress: Progress,
    *,
    gathered: ImageSet,
    facts: TrunkFacts,
    trunk: LoadedTrunk | None,
) -> list[Extraction]:
    """Return a table for each of several options, all from one pass; the current one stays.

    Args:
        data: as in `extract`.
        several: checked, that differ in layer and pooling alone.
        cache: where rows and tables are kept.
        progress: told of what is computed.
        gathered: the images, from `gather`.
        facts: of the trunk.
        trunk: where it is loaded already.

    Raises:
        PipelineError: no image could be decoded, or more are bad than `max_bad`.
        UsageError: views where there are no training images, or a layer that there is not.
    """
    options = several[0]
    wanted = WantedImages(gathered, options.max_bad)
    views = wanted.views(None, options.view_numbers)
    if options.views and not views:
        raise UsageError(
            f"--views are of labelled training images, and {gathered.root} has none: leave it out."
        )
    asked = [feature_key(facts, one) for one in several]
    keys = every([Keys.of(wanted.sources), Keys.of(views)])
    with cache.reading([f for key in asked for f in key.fingerprints], keys):
        stored = {
            key: find_rows(cache, key, keys, device=options.device, engine=options.engine)
            for key in dict.fromkeys(asked)
        }
        kinds = [(rows.key.precision, rows.key.decoder) for rows in stored.values()]
        for kind in dict.fromkeys(kinds):
            part = [rows for own, rows in zip(kinds, stored.values(), strict=True) if own == kind]
            fill(
                cache, options, part, wanted.sources, trunk=trunk, progress=progress, wanted=wanted,
                elsewhere=compute_anywhere if len(part) == 1 else None,
            )  # fmt: skip
        return [
            _table(data, one, facts, stored[key], wanted, cache, progress, trunk)
            for one, key in zip(several, asked, strict=True)
        ]


def _table(
    data: Data,
    options: ExtractOptions,
    facts: TrunkFacts,
    rows: Rows,
    wanted: WantedImages,
    cache: Cache,
    progress: Progress,
    trunk: LoadedTrunk | None,
) -> Extraction:
    """Return the table of rows that are there, the views of the training images added."""
    index, images = rows.index, wanted.images
    tried = Keys.of(rows.computed)
    extracted = tried.take(index.having(tried))
    views = wanted.view_sources(index, options.view_numbers)
    if views:
        fill(
            cache, options, [rows], views, trunk=trunk, progress=progress, unit="views",
            elsewhere=compute_anywhere,
        )  # fmt: skip
        for digest, view in views:
            if reason := index.bad.get((digest, view)):  # its image has no place in this table
                index.drop((digest, 0), reason)
        wanted.check(index)
    unread, reasons = wanted.listed(index), wanted.reasons(index)
    if len(reasons) == len(wanted.keys):
        raise PipelineError(f"No image of {images.root} could be decoded. {first(unread)}")
    kept = WantedImages(images.without(reasons), None)
    computed = int(index.having(extracted).sum())
    more = int(index.having(rows.computed).sum()) if views else 0
    cost = PassCost(computed + more, rows.seconds)
    table = assemble(
        cache, kept.images, rows, views=kept.views(index, options.view_numbers), data=data,
        options=options, facts=facts, cost=cost,
    )  # fmt: skip
    assert table.path is not None
    remarks = kept.remarks(index)
    listing, unwritten = None, list[str]()
    with _where_allowed(unwritten, cache, "the list of what was left out stays as it was"):
        listing = write_left_out(table.path, wanted.left_out, unread, remarks)
    with _where_allowed([], cache, "what a killed run left stays"):
        # shares know of no bad image before they meet it, and plan its views, too
        planned = dict.fromkeys(wanted.views(None, options.view_numbers))
        for keys in (wanted.sources, views, planned):
            cache.end_run(rows.key.fingerprint, Keys.of(keys))
    told = unread_notes(unread, rows.key.precision)
    told += [*flat_notes(table.features), *Remarks(remarks).notes]
    if not facts.own_pool:  # of tokens, whose number cannot be any
        told += small_notes(rows.sides, rows.key.preprocess)
    told += pooling_notes(facts, rows.key.pool)
    notes = [*kept.images.notes, *facts.notes, *told, *rows.notes, *unwritten]
    if "+" in (engines := table.provenance.engine):
        notes.append(f"The rows come from several engines: {engines.replace('+', ', ')}.")
    return Extraction(
        table=table,
        images=wanted.total,
        extracted=computed,
        reused=wanted.total - computed - len(unread),
        bad=tuple(unread),
        left_out=wanted.left_out,
        remarks=tuple(remarks),
        listing=listing,
        notes=tuple(dict.fromkeys(notes)),
        views=table.view_count,
        views_computed=more,
        seconds=rows.seconds,
        images_per_second=(computed + more) / rows.seconds if rows.seconds else 0.0,
    )


_READ_ONLY = "may only be read"


@contextmanager
def _where_allowed(notes: list[str], cache: Cache, otherwise: str) -> Iterator[None]:
    """Write what a cache for reading only can do without; add a note where it may not be."""
    try:
        yield
    except PipelineError as error:
        if not may_only_be_read(error):
            raise
        notes.append(f"{cache.root} {_READ_ONLY}: {otherwise}.")
