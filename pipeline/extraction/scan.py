"""From DATA, or from a table, to images with digests and splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from pipeline.arguments import path_of
from pipeline.cores import usable_cores
from pipeline.errors import PipelineError, UsageError
from pipeline.extraction.options import ExtractOptions
from pipeline.images.datasets import split
from pipeline.images.datasets.builtin import BUILTIN, builtin
from pipeline.images.datasets.given import Data
from pipeline.images.datasets.imageset import ImageSet
from pipeline.images.datasets.kept import Pictures
from pipeline.images.datasets.lists.listing import Given
from pipeline.images.datasets.scan import scan
from pipeline.images.decoding.formats import Unread
from pipeline.images.digest import StatMemo, digest_all
from pipeline.images.names import counted, shown
from pipeline.images.opening import VANISHED
from pipeline.images.sources.address import is_remote, kind_of, known, without_access
from pipeline.images.sources.catalogue import Catalogue
from pipeline.progress import Progress
from pipeline.sequences import Digests
from pipeline.store.cache import Cache
from pipeline.store.table import FeatureTable

DEFAULT_DATA = "digits"
FRACTION = 0.15  # of val and of test, where the data have no splits


def gather(data: Data, options: ExtractOptions, cache: Cache, progress: Progress) -> ImageSet:
    """Return the images of DATA with their digests, each with a split.

    Args:
        data: as in `of_data`.
        options: fractions and seed of the splits, where the data have none.
        cache: its memo spares reading unchanged files.
        progress: told of hashing.

    Raises:
        PipelineError: there is nothing to work on, or a file cannot be read.
        UsageError: fractions for data that bring their own splits.
    """
    images = of_data(data, cache, progress, workers=options.workers, rehash=options.rehash)
    if images.splits is None:
        val = FRACTION if options.val_fraction is None else options.val_fraction
        test = FRACTION if options.test_fraction is None else options.test_fraction
        splits = split.assign(
            images.digests, images.labels, images.groups, val=val, test=test, seed=options.seed
        )
        return replace(images, splits=tuple(splits), fractions=(val, test)).noted(images)
    if options.val_fraction is not None or options.test_fraction is not None:
        have = ", ".join(images.split_names)
        title = without_access(str(data))
        why = f"{title} has {have}" if have else f"{title} has no labels, and so no splits"
        raise UsageError(
            f"--val-fraction and --test-fraction are for labelled data without splits; {why}."
        )
    return images


def of_data(
    data: Data,
    cache: Cache,
    progress: Progress,
    *,
    workers: int | None = None,
    rehash: bool = False,
) -> ImageSet:
    """Return the images of DATA with their digests; splits are those that the data bring.

    Args:
        data: what `datasets.scan` takes, or the name of a built-in set; `digits` without it.
        cache: its memo spares reading unchanged files.
        progress: told of hashing.
        workers: threads; None for the cores that the process may use.
        rehash: read every file all the same.

    Raises:
        PipelineError: there is no image, or a file cannot be read.
    """
    if data is None:
        data = DEFAULT_DATA
    if isinstance(data, Pictures):
        data = data.keep(cache.data)
    if not isinstance(data, Given) and str(data) in BUILTIN and not Path(data).exists():
        data = builtin(str(data), cache.data)
    memo, threads = StatMemo(cache.memo, progress.say), workers or usable_cores()
    read = partial(digest_all, "", memo=memo, rehash=rehash, threads=threads)
    images = scan(data, Catalogue(memo, again=rehash, read=read))
    progress.start("hashing", len(images.paths))
    files = digest_all(
        images.root,
        images.paths,
        memo,
        rehash=rehash,
        threads=threads,
        progress=progress.advance,
    )
    reasons = {row: file.reason for row, file in enumerate(files) if file.digest is None}
    notes = Unread((images.paths[row], reason) for row, reason in reasons.items()).notes
    if len(reasons) == len(files):
        first = "; ".join(f"{images.paths[row]}: {reasons[row]}" for row in list(reasons)[:3])
        known = " ".join(["", *notes])
        raise PipelineError(
            f"{images.root} holds no images: all {len(reasons)} files were left out ({first})."
            f"{known}"
        )
    taken = len(files) - len(reasons)
    if len(reasons) > taken:
        which = "in class folders " if images.classes else ""
        notes.insert(
            0,
            f"WARNING: MORE FILES {which.upper()}WERE LEFT OUT THAN TAKEN: "
            f"{len(reasons):,} of {counted(len(files), 'file')}.",
        )
    digests = Digests.of(file.digest for file in files if file.digest is not None)
    kept = images.without(reasons)
    kept = replace(kept, notes=(*notes, *kept.notes))
    return replace(kept, digests=digests).noted(kept)


def of_table(table: FeatureTable, data: str | Path | None = None) -> ImageSet:
    """Return the images of a table, row by row.

    Args:
        table: names them.
        data: folder in which they lie now; None for where they were.

    Raises:
        PipelineError: `data` is not a folder.
    """
    return ImageSet(
        name="the table" if table.path is None else table.path.stem.split("--")[0],
        root=root_of(table, data),
        paths=table.paths,
        labels=table.labels,
        classes=table.classes,
        splits=table.splits,
        groups=table.groups,
        digests=Digests.of_hex(table.digests),
    )


def root_of(table: FeatureTable, data: str | Path | None = None) -> str | Path:
    """Return the folder, archive or address that a table's paths are relative to.

    Args:
        table: names the folder that it was extracted from.
        data: where the images lie now; None for where they were.

    Raises:
        PipelineError: `data` is not a folder, and no archive.
    """
    given = data or table.provenance.root
    if isinstance(given, str) and is_remote(given):
        return known(given)
    root = path_of(given, "--data").absolute()
    if data is not None and not root.is_dir() and not (root.is_file() and kind_of(str(root))):
        raise PipelineError(f"--data {shown(root)} is not a folder.")
    return root


def check_images(
    paths: Mapping[bytes, str], cache: Cache, progress: Progress, *, workers: int | None
) -> None:
    """Refuse images that are not where they were, or not what they were, in one message.

    Args:
        paths: digest to path of each image that will be read.
        cache: its memo spares reading unchanged files.
        progress: told where the memo cannot be used.
        workers: threads; None for the cores that the process may use.

    Raises:
        PipelineError: images are missing, or have changed.
    """
    files = digest_all(
        "",
        list(paths.values()),
        StatMemo(cache.memo, progress.say),
        threads=workers or usable_cores(),
    )
    pairs = list(zip(paths.items(), files, strict=True))
    gone = [path for (_, path), file in pairs if file.reason == VANISHED]
    changed = [
        path for (digest, path), file in pairs if file.reason != VANISHED and file.digest != digest
    ]
    parts = [
        f"{len(listed):,} {what} ({listed[0]}{', …' if len(listed) > 1 else ''})"
        for listed, what in ((gone, "are missing"), (changed, "have changed"))
        if listed
    ]
    if parts:
        raise PipelineError(
            f"Of the {len(paths):,} images that must be read, {' and '.join(parts)}. Say with "
            "--data where they lie now, or run `pipeline extract` and `pipeline fit-head` again."
        )
