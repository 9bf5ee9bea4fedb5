"""`Sample`: labelled images to evaluate on, from a table or from DATA, and logits for them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cores import usable_cores
from pipeline.errors import PipelineError, UsageError
from pipeline.extraction.options import ExtractOptions
from pipeline.finetuning.boundary import check_images
from pipeline.finetuning.predictor import Predictor
from pipeline.heads.resolve import find_table, table_of
from pipeline.images.datasets import sources
from pipeline.images.digest import StatMemo, digest_all
from pipeline.images.names import class_name
from pipeline.inference.logit_stream import through_trunk
from pipeline.inference.options import ComputeOptions
from pipeline.progress import Progress
from pipeline.store.cache import Cache
from pipeline.store.records import ResultInfo
from pipeline.store.table import FeatureTable

SPLITS = ("train", "val", "test", "all")
#: What `Sample.parts` calls images of data without splits.
WHOLE = "all"


@dataclass(frozen=True, eq=False)
class Sample:
    """N labelled images. Two are equal when they are the same object.

    Attributes:
        name: for people.
        root: folder that paths are relative to.
        paths: N.
        digests: N, hexadecimal sha256.
        classes: N names.
        splits: N of `train`, `val`, `test` or "".
        rows: int64 [N], rows of `table`.
        table: where the images come from one.
        unlabelled: images without a label, left out.
        bad: path and reason of files that are no images, left out.
    """

    name: str
    root: Path
    paths: tuple[str, ...]
    digests: tuple[str, ...]
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    rows: np.ndarray
    table: FeatureTable | None
    unlabelled: int
    bad: tuple[tuple[str, str], ...] = ()

    def parts(self, asked: str | None) -> dict[str, np.ndarray]:
        """Return split → positions of its images.

        Args:
            asked: `train`, `val`, `test`, `all`, or None for those of val and test that there
                are, and all images where there is neither.

        Raises:
            UsageError: there is no such split.
        """
        names = np.array(self.splits, dtype=object)
        there = [name for name in ("train", "val", "test") if (names == name).any()]
        if asked == WHOLE:
            return {WHOLE: np.arange(len(names))}
        if asked is not None:
            if asked not in there:
                have = ", ".join(there) or "no splits"
                raise UsageError(f"--split {asked}: {self.name} has {have}; or give all.")
            return {asked: np.flatnonzero(names == asked)}
        held = [name for name in there if name != "train"]
        return {name: np.flatnonzero(names == name) for name in held} or self.parts(WHOLE)


def find(
    cache: Cache,
    word: str | None,
    predictor: Predictor,
    *,
    data: str | None,
    workers: int | None,
    progress: Progress,
) -> Sample:
    """Return the images that are meant.

    Args:
        cache: where tables are.
        word: a table's file, name or id; a folder, a CSV or TSV file, or a built-in set; None for
            the table that the predictor was made on.
        predictor: whose table is preferred where a name fits several.
        data: folder in which a table's images lie now.
        workers: threads.
        progress: told of hashing.

    Raises:
        PipelineError: there is no such thing, or no labelled image in it.
    """
    table = _table(cache, word, predictor)
    if table is not None:
        return _of_table(table, data)
    assert word is not None
    if data is not None:
        raise UsageError("--data says where the images of a table lie; this is no table.")
    return _of_data(cache, word, workers, progress)


def _table(cache: Cache, word: str | None, predictor: Predictor) -> FeatureTable | None:
    own = table_of(cache, predictor.info)
    if word is None:
        if own is None:
            raise PipelineError(
                f"The table of the {predictor.title} is not in the cache {cache.root} (any more). "
                "Name a table, or a folder of labelled images."
            )
        return own
    stem = "" if own is None or own.path is None else own.path.stem
    if stem.startswith(f"{word}--") and not Path(word).exists():
        return own
    return find_table(cache, word)


def _of_table(table: FeatureTable, data: str | None) -> Sample:
    rows = np.flatnonzero(table.labels >= 0)
    if not len(rows):
        raise PipelineError(f"{table.path} has no labels to compare predictions with.")
    root = Path(data or table.provenance.root).expanduser().absolute()
    if data is not None and not root.is_dir():
        raise PipelineError(f"--data {root} is not a folder.")
    return Sample(
        name=str(table.path),
        root=root,
        paths=tuple(table.paths[row] for row in rows),
        digests=tuple(table.digests[row] for row in rows),
        classes=tuple(table.classes[table.labels[row]] for row in rows),
        splits=tuple(table.splits[row] for row in rows),
        rows=rows,
        table=table,
        unlabelled=len(table.labels) - len(rows),
    )


def _of_data(cache: Cache, word: str, workers: int | None, progress: Progress) -> Sample:
    place: str | Path = word
    if word in sources.BUILTIN and not Path(word).exists():
        place = sources.builtin(word, cache.data)
    images = sources.scan(place)
    progress.start("hashing", len(images.paths))
    files = digest_all(
        images.root, images.paths, StatMemo(cache.memo), threads=workers or usable_cores()
    )
    known = images.labels >= 0
    rows = [row for row, file in enumerate(files) if file.digest is not None and known[row]]
    if not rows:
        raise PipelineError(
            f"{images.root} has no labelled images: give a folder with a folder for each class, "
            "or a CSV file with a column label."
        )
    digests = (files[row].digest or b"" for row in rows)
    return Sample(
        name=str(images.root),
        root=images.root,
        paths=tuple(images.paths[row] for row in rows),
        digests=tuple(digest.hex() for digest in digests),
        classes=tuple(images.classes[images.labels[row]] for row in rows),
        splits=tuple(images.splits[row] if images.splits else "" for row in rows),
        rows=np.array(rows),
        table=None,
        unlabelled=int((~known).sum()),
        bad=tuple(
            (images.paths[row], file.reason)
            for row, file in enumerate(files)
            if file.digest is None and known[row]
        ),
    )


@dataclass(frozen=True, eq=False)
class Answers:
    """What a predictor says of some images of a sample.

    Attributes:
        positions: [n] of the sample: images whose class it knows and that could be read.
        labels: [n] int64, index into its classes.
        logits: [n, K], not calibrated.
        unknown: class that it does not know → images.
        bad: path and reason of images that could not be read.
        cached: whether the features came from the table.
    """

    positions: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    unknown: dict[str, int]
    bad: tuple[tuple[str, str], ...]
    cached: bool


def answer(
    predictor: Predictor,
    sample: Sample,
    positions: np.ndarray,
    *,
    means: ComputeOptions,
    cache: Cache,
    progress: Progress,
) -> Answers:
    """Return what a predictor says: from the table's features where they are its own, else from
    the images. Classes match by name.

    Raises:
        PipelineError: no class is known, no image could be read, or a table's images have moved.
    """
    number = {class_name(name): k for k, name in enumerate(predictor.classes)}
    names = [class_name(sample.classes[at]) for at in positions]
    unknown = Counter(name for name in names if name not in number)
    known = [(at, number[n]) for at, n in zip(positions, names, strict=True) if n in number]
    if not known:
        raise PipelineError(
            f"No class of {sample.name} ({_few(unknown)}) is one that the {predictor.title} knows "
            f"({_few(predictor.classes)}). Classes match by name."
        )
    at, labels = (np.array(values, np.int64) for values in zip(*known, strict=True))
    table = sample.table
    wanted = predictor.info.fingerprint if predictor.kind == "head" else None
    if table is not None and table.fingerprint == wanted:
        logits = predictor.classify(np.asarray(table.features[sample.rows[at]]))
        return Answers(at, labels, logits, dict(unknown), (), True)
    if table is not None:
        paths = {bytes.fromhex(sample.digests[i]): f"{sample.root}/{sample.paths[i]}" for i in at}
        check_images(paths, cache, ExtractOptions(workers=means.workers))
    progress.start("evaluating", len(at))
    parts: list[np.ndarray] = []
    bad: list[tuple[int, str]] = []
    done = 0
    files = (f"{sample.root}/{sample.paths[i]}" for i in at)
    for batch in through_trunk(predictor, files, means, cache, progress):
        parts.append(batch.logits)
        bad += [(done + slot, reason) for slot, reason in sorted(batch.bad.items())]
        done += len(batch.logits)
        progress.advance(len(batch.logits), len(batch.bad))
    good = np.ones(len(at), bool)
    good[[slot for slot, _ in bad]] = False
    if not good.any():
        raise PipelineError(
            f"No image of {sample.name} could be read: {sample.paths[at[0]]}: {bad[0][1]}, …"
        )
    told = tuple((sample.paths[at[slot]], reason) for slot, reason in bad)
    return Answers(at[good], labels[good], np.concatenate(parts)[good], dict(unknown), told, False)


def learned_from(cache: Cache, info: ResultInfo) -> set[str]:
    """Return the digests of the images that a head or model was fitted on, as far as is known."""
    table = table_of(cache, info)
    if table is None:
        return set()
    return {d for d, split in zip(table.digests, table.splits, strict=True) if split == "train"}


def _few(names: Any, most: int = 5) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (", …" if len(listed) > most else "")
