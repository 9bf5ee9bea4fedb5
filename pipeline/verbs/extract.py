"""Stage one: from a folder of images to a table of features."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.images.formats import NOT_AN_IMAGE, SUFFIXES
from pipeline.store.cache import Cache
from pipeline.store.shards import Index, Key
from pipeline.store.table import FeatureTable
from pipeline.trunks import spec
from pipeline.verbs import rows
from pipeline.verbs.assemble import assemble, describe, write_left_out
from pipeline.verbs.checks import from_options
from pipeline.verbs.gather import gather
from pipeline.verbs.progress import Progress, Silent
from pipeline.verbs.recipe import Recipe


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
        images_per_second: extracted images over the seconds that extracting them took.
    """

    table: FeatureTable
    images: int
    extracted: int
    reused: int
    bad: tuple[tuple[str, str], ...]
    left_out: tuple[tuple[str, str], ...]
    listing: Path | None
    notes: tuple[str, ...]
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
    return run(data, recipe, Cache.at(cache)).table


def run(
    data: str | Path | None, recipe: Recipe, cache: Cache, progress: Progress | None = None
) -> Extraction:
    """Do what `extract` does and report on it."""
    began = time.monotonic()
    progress = progress or Silent()
    recipe.check()
    facts, trunk = spec.resolve(
        recipe.trunk, recipe.weights, recipe.keys, memo=cache.memo, state_dir=cache.weights
    )
    asked = rows.wanted(facts, recipe)
    images, digests = gather(data, recipe, cache, progress)
    keys: list[Key] = [(digest, 0) for digest in digests]
    # what is called an image and is none counts as a bad one, not as a stray file
    false = [entry for entry in images.left_out if _claims(*entry)]
    left_out = tuple(entry for entry in images.left_out if not _claims(*entry))

    def bad(index: Index) -> list[tuple[str, str]]:
        pairs = zip(images.paths, keys, strict=True)
        return [*((path, index.bad[key]) for path, key in pairs if key in index.bad), *false]

    def check_bad(index: Index) -> None:
        if recipe.max_bad is not None and len(index.bad) + len(false) > recipe.max_bad:
            _refuse_bad(bad(index), recipe.max_bad)

    sources: dict[Key, str | bytes] = {}
    for key, path in zip(keys, images.paths, strict=True):
        sources.setdefault(key, f"{images.root}/{path}")
    there = rows.choose(cache, asked, recipe.device, keys)
    done = rows.fill(
        cache, recipe, there, sources, trunk=trunk, progress=progress, check_bad=check_bad
    )
    unread = bad(done.index)
    if not any(key in done.index.rows for key in keys):
        raise PipelineError(f"No image of {images.root} could be decoded. {_first(unread)}")

    extracted = sum(key in done.index.rows for key in done.computed)
    cost = {"computed": extracted, "seconds": done.seconds}
    provenance = {**describe(data, recipe, facts, done.key, images, cache), "cost": cost}
    name = recipe.name or images.name
    table = assemble(
        cache, images, keys, store=done.store, index=done.index, provenance=provenance, name=name
    )
    assert table.path is not None
    listing = write_left_out(table.path, left_out, unread)
    cache.set_current(table.path)
    cache.end_run(done.key.fingerprint, list(sources))
    notes = [*images.notes, *done.notes]
    if "+" in (engines := str(table.provenance["engine"])):
        notes.append(f"The rows come from several engines: {engines.replace('+', ', ')}.")
    total = len(keys) + len(false)
    return Extraction(
        table=table,
        images=total,
        extracted=extracted,
        reused=total - extracted - len(unread),
        bad=tuple(unread),
        left_out=left_out,
        listing=listing,
        notes=tuple(notes),
        seconds=time.monotonic() - began,
        images_per_second=extracted / done.seconds if done.seconds else 0.0,
    )


def _claims(path: str, reason: str) -> bool:
    return reason == NOT_AN_IMAGE and Path(path).suffix.lower() in SUFFIXES


def _refuse_bad(bad: list[tuple[str, str]], most: int) -> None:
    if len(bad) > most:
        raise PipelineError(
            f"{len(bad)} images could not be decoded, and --max-bad allows {most}. {_first(bad)} "
            "Mend or remove them, or allow more; what was computed is kept."
        )


def _first(bad: list[tuple[str, str]], most: int = 5) -> str:
    listed = "; ".join(f"{path}: {reason}" for path, reason in bad[:most])
    more = f"; and {len(bad) - most} more" if len(bad) > most else ""
    return f"{listed}{more}."
