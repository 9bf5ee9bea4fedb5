"""Stage one: from a folder of images to a table of features."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError, UsageError
from pipeline.extraction.assemble import assemble, describe, view_keys, write_left_out
from pipeline.extraction.bad_images import BadImages, first
from pipeline.extraction.compute import fill
from pipeline.extraction.options import Recipe
from pipeline.extraction.plan import Rows, feature_key, find_rows
from pipeline.extraction.scan import gather
from pipeline.images.datasets.imageset import ImageSet
from pipeline.options import from_options
from pipeline.progress import Progress, Silent
from pipeline.store.cache import Cache
from pipeline.store.shards import Key
from pipeline.store.table import FeatureTable
from pipeline.trunks import spec
from pipeline.trunks.spec import TrunkFacts

if TYPE_CHECKING:
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
        listing: the file beside the table that lists both, or None.
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
            "trunk": provenance["trunk"],
            "weights": provenance["weights"],
            "images": self.images,
            "extracted": self.extracted,
            "reused": self.reused,
            "bad": [{"path": path, "reason": reason} for path, reason in self.bad],
            "left_out": [{"path": path, "reason": reason} for path, reason in self.left_out],
            "notes": list(self.notes),
            "rows": len(table.labels),
            "dim": int(table.features.shape[1]),
            "classes": list(table.classes),
            "splits": table.split_counts,
            "views": self.views,
            "views_computed": self.views_computed,
            "precision": provenance["precision"],
            "engine": provenance["engine"],
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 2),
        }


def extract(
    data: str | Path | None = None, *, cache: str | Path | None = None, **options: Any
) -> FeatureTable:
    """Run a frozen trunk over the images of `data` and return the table of their features.

    What the cache holds already is not computed again.

    Args:
        data: a folder, a CSV or TSV file, or the name of a built-in set; `digits` without it.
        cache: the cache's folder; else `$PIPELINE_CACHE`, else `./cache`.
        **options: any field of `Recipe`, by name: `trunk`, `weights`, `layer`, `precision`, …

    Returns:
        The table, with `features` [N, D] float32 and `labels` [N].

    Raises:
        PipelineError: with a sentence that says what to do.

    Example:
        >>> import pipeline
        >>> table = pipeline.extract("digits")
        >>> table.features.shape
        (1797, 1280)
    """
    recipe = from_options(Recipe, options, verb="extract")
    return extract_table(data, recipe, Cache.at(cache)).table


def extract_table(
    data: str | Path | None, recipe: Recipe, cache: Cache, progress: Progress | None = None
) -> Extraction:
    """Do what `extract` does and report on it."""
    began = time.monotonic()
    progress = progress or Silent()
    recipe.check()
    facts, trunk = spec.resolve(
        recipe.trunk, recipe.weights, recipe.keys, memo=cache.memo, state_dir=cache.weights
    )
    feature_key(facts, recipe)  # a layer that is not there is refused before a file is read
    gathered = gather(data, recipe, cache, progress)
    (done,) = extract_tables(
        data, [recipe], cache, progress, gathered=gathered, facts=facts, trunk=trunk
    )
    assert done.table.path is not None
    cache.set_current(done.table.path)
    return replace(done, seconds=time.monotonic() - began)


def extract_tables(
    data: str | Path | None,
    recipes: Sequence[Recipe],
    cache: Cache,
    progress: Progress,
    *,
    gathered: ImageSet,
    facts: TrunkFacts,
    trunk: LoadedTrunk | None,
) -> list[Extraction]:
    """Return a table for each recipe, all of one trunk in one pass; the current one stays.

    Args:
        data: as in `extract`.
        recipes: checked, that differ in layer and pooling alone.
        cache: where rows and tables are kept.
        progress: told of what is computed.
        gathered: the images, from `gather`.
        facts: of the trunk.
        trunk: where it is loaded already.

    Raises:
        PipelineError: no image could be decoded, or more are bad than `max_bad`.
        UsageError: views where there are no training images, or a layer that there is not.
    """
    images, recipe = gathered, recipes[0]
    if recipe.views and not _trains(images):
        raise UsageError(
            f"--views are of labelled training images, and {images.root} has none: leave it out."
        )
    bad = BadImages(images, images.digests, recipe.max_bad)
    sources: dict[Key, str | bytes] = {}
    for key, path in zip(bad.keys, images.paths, strict=True):
        sources.setdefault(key, f"{images.root}/{path}")
    asked = [feature_key(facts, one) for one in recipes]
    wanted = [*sources, *view_keys(images, bad.keys, sources, recipe.views)]
    stored = {
        key: find_rows(cache, key, wanted, device=recipe.device) for key in dict.fromkeys(asked)
    }
    for precision in dict.fromkeys(rows.key.precision for rows in stored.values()):
        several = [rows for rows in stored.values() if rows.key.precision == precision]
        fill(cache, recipe, several, sources, trunk=trunk, progress=progress, bad=bad)
    return [
        _table(data, one, facts, stored[key], cache, progress, images=images, bad=bad,
               sources=sources, trunk=trunk)
        for one, key in zip(recipes, asked, strict=True)
    ]  # fmt: skip


def _table(
    data: str | Path | None,
    recipe: Recipe,
    facts: TrunkFacts,
    rows: Rows,
    cache: Cache,
    progress: Progress,
    *,
    images: ImageSet,
    bad: BadImages,
    sources: Mapping[Key, str | bytes],
    trunk: LoadedTrunk | None,
) -> Extraction:
    """Return the table of rows that are there, the views of the training images added."""
    unread = bad.listed(rows.index)
    if not any(key in rows.index.rows for key in bad.keys):
        raise PipelineError(f"No image of {images.root} could be decoded. {first(unread)}")
    extracted = sum(key in rows.index.rows for key in rows.computed)
    extra = view_keys(images, bad.keys, rows.index.rows, recipe.views)
    views = {key: sources[key[0], 0] for key in extra}
    if views:
        fill(cache, recipe, [rows], views, trunk=trunk, progress=progress, unit="views")
        if lost := [str(views[key]) for key in views if key in rows.index.bad]:
            raise PipelineError(f"{len(lost)} views can no longer be decoded, such as {lost[0]}.")
    more = len(rows.computed) if views else 0
    cost = {"computed": extracted + more, "seconds": rows.seconds}
    table = assemble(
        cache,
        images,
        bad.keys,
        rows=rows,
        provenance={**describe(data, recipe, facts, rows.key, images, cache), "cost": cost},
        name=recipe.name or images.name,
        views=recipe.views,
    )
    assert table.path is not None
    listing = write_left_out(table.path, bad.left_out, unread)
    for keys in (sources, views):
        cache.end_run(rows.key.fingerprint, list(keys))
    notes = [*images.notes, *dict.fromkeys(rows.notes)]
    if "+" in (engines := str(table.provenance["engine"])):
        notes.append(f"The rows come from several engines: {engines.replace('+', ', ')}.")
    return Extraction(
        table=table,
        images=bad.total,
        extracted=extracted,
        reused=bad.total - extracted - len(unread),
        bad=tuple(unread),
        left_out=bad.left_out,
        listing=listing,
        notes=tuple(notes),
        views=0 if table.views is None else table.views.shape[1],
        views_computed=more,
        seconds=rows.seconds,
        images_per_second=(extracted + more) / rows.seconds if rows.seconds else 0.0,
    )


def _trains(images: ImageSet) -> bool:
    pairs = zip(images.splits or (), images.labels, strict=True)
    return any(split == "train" and label >= 0 for split, label in pairs)
