"""From DATA to images with digests and splits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.cores import usable_cores
from pipeline.errors import PipelineError, UsageError
from pipeline.extraction.options import ExtractOptions
from pipeline.images.datasets import sources, split
from pipeline.images.datasets.imageset import ImageSet
from pipeline.images.digest import StatMemo, digest_all
from pipeline.progress import Progress
from pipeline.store.cache import Cache

DEFAULT_DATA = "digits"
FRACTION = 0.15  # of val and of test, where the data have no splits


def gather(
    data: str | Path | None, options: ExtractOptions, cache: Cache, progress: Progress
) -> tuple[ImageSet, list[bytes]]:
    """Return the images, each with a split, and the digest of each.

    Args:
        data: a folder, a CSV or TSV file, or the name of a built-in set; `digits` without it.

    Raises:
        PipelineError: there is nothing to work on, or a file cannot be read.
        UsageError: fractions for data that bring their own splits.
    """
    if data is None:
        data = DEFAULT_DATA
    if str(data) in sources.BUILTIN and not Path(data).exists():
        data = sources.builtin(str(data), cache.data)
    images = sources.scan(data)
    images, digests = _digest(images, options, cache, progress)
    if images.splits is None:
        val = FRACTION if options.val_fraction is None else options.val_fraction
        test = FRACTION if options.test_fraction is None else options.test_fraction
        splits = split.assign(
            digests, images.labels, images.groups, val=val, test=test, seed=options.seed
        )
        told = split.notes(splits, images.labels, images.classes, val=val, test=test)
        return replace(images, splits=tuple(splits), notes=(*images.notes, *told)), digests
    if options.val_fraction is not None or options.test_fraction is not None:
        there = ", ".join(sorted({*images.splits} - {""}))
        why = f"{data} has {there}" if there else f"{data} has no labels, and so no splits"
        raise UsageError(
            f"--val-fraction and --test-fraction are for labelled data without splits; {why}."
        )
    return replace(images, notes=(*images.notes, *split.leaks(digests, images.splits))), digests


def _digest(
    images: ImageSet, options: ExtractOptions, cache: Cache, progress: Progress
) -> tuple[ImageSet, list[bytes]]:
    """Hash every file; what is not an image is left out with its reason."""
    progress.start("hashing", len(images.paths))
    done = 0

    def tell(count: int, total: int) -> None:
        nonlocal done
        progress.advance(count - done)
        done = count

    files = digest_all(
        images.root,
        images.paths,
        StatMemo(cache.memo),
        rehash=options.rehash,
        threads=options.workers or usable_cores(),
        progress=tell,
    )
    digests = [file.digest for file in files if file.digest is not None]
    reasons = {row: file.reason for row, file in enumerate(files) if file.digest is None}
    if not digests:
        listed = "; ".join(f"{images.paths[row]}: {reasons[row]}" for row in list(reasons)[:3])
        raise PipelineError(
            f"{images.root} holds no images: all {len(reasons)} files were left out ({listed})."
        )
    return images.without(reasons), digests
