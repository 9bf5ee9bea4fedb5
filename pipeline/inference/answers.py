"""What a predictor predicts for labelled images, which come from a table or from DATA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import PipelineError, UsageError
from pipeline.extraction import scan
from pipeline.extraction.scan import check_images
from pipeline.finetuning.predictor import Predictor
from pipeline.heads.resolve import find_table, table_of
from pipeline.images.datasets.imageset import ALL, ImageSet
from pipeline.images.names import class_name, counted
from pipeline.inference.logit_stream import through_trunk
from pipeline.inference.options import ComputeOptions
from pipeline.progress import Progress
from pipeline.store.cache import Cache
from pipeline.store.table import FeatureTable

#: Said where an option is given that nothing needs.
IDLE = "The features are the table's: --device and --engine had nothing to compute."


def parts(images: ImageSet, asked: str | None) -> dict[str, np.ndarray]:
    """Return split → rows of its labelled images.

    Args:
        images: a labelled one at least.
        asked: `train`, `val`, `test`, `all`, or None for those of val and test that there are,
            and all images where there is neither.

    Raises:
        UsageError: there is no such split.
    """
    known = np.flatnonzero(images.labels >= 0)
    labelled = images.take(known.tolist())
    names = [asked]
    if asked is None:
        names = [name for name in labelled.split_names if name != "train"] or [ALL]
    return {str(name): known[labelled.rows(split=name)] for name in names}


def find(
    cache: Cache,
    word: FeatureTable | str | Path | None,
    predictor: Predictor,
    *,
    data: str | None,
    workers: int | None,
    progress: Progress,
) -> tuple[ImageSet, FeatureTable | None]:
    """Return the images that are meant, and the table where they come from one: row by row.

    Args:
        cache: where tables are.
        word: a table, its file, name or id; a folder, a CSV or TSV file, or a built-in set; None
            for the table that the predictor was made on.
        predictor: whose table is preferred where a name fits several.
        data: folder in which a table's images lie now.
        workers: threads.
        progress: told of hashing.

    Raises:
        PipelineError: there is no such thing, or no labelled image in it.
    """
    if isinstance(word, FeatureTable):
        table: FeatureTable | None = word
    else:
        table = _table(cache, None if word is None else str(word), predictor)
    if table is not None:
        if not (table.labels >= 0).any():
            raise PipelineError(f"{table.path} has no labels to compare predictions with.")
        return scan.of_table(table, data), table
    assert isinstance(word, str | Path)
    if data is not None:
        raise UsageError("--data says where the images of a table lie; this is no table.")
    images = scan.of_data(word, cache, progress, workers=workers)
    if not (images.labels >= 0).any():
        raise PipelineError(
            f"{images.root} has no labelled images: give a folder with a folder for each class, "
            "or a CSV file with a column label."
        )
    return images, None


def place(images: ImageSet, table: FeatureTable | None) -> str:
    """Return the table's file, or the folder of the images, for people."""
    return str(images.root if table is None else table.path)


def unlabelled_note(images: ImageSet) -> list[str]:
    """Return a sentence where images have no label, and so are not among what is measured."""
    count = int((images.labels < 0).sum())
    return [f"Left out {counted(count, 'image')} without a label."] if count else []


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


@dataclass(frozen=True, eq=False)
class Answers:
    """What a predictor predicts for some images of a set.

    Attributes:
        rows: [n] of the image set: images whose class it knows and that could be read.
        labels: [n] int64, index into its classes.
        logits: [n, K], not calibrated.
        unknown: class that it does not know → images.
        bad: path and reason of images that could not be read.
        notes: sentences for the person.
    """

    rows: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    unknown: dict[str, int]
    bad: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def answer(
    predictor: Predictor,
    images: ImageSet,
    rows: np.ndarray,
    *,
    split: str,
    table: FeatureTable | None,
    options: ComputeOptions,
    cache: Cache,
    progress: Progress,
) -> Answers:
    """Return what a predictor predicts: from the table's features where they are its own and in
    the precision that is asked for, else from the images. Classes match by name.

    Args:
        predictor: a head or model.
        images: with digests.
        rows: [n] of them, all labelled.
        split: that these are, for people.
        table: whose rows the images are; None where they are of none.
        options: how to compute.
        cache: where converted networks, and the notes on what is decoded, are.
        progress: told of the images.

    Raises:
        PipelineError: no class is known, no image could be read, or a table's images have moved.
    """
    number = {class_name(name): k for k, name in enumerate(predictor.classes)}
    names = [class_name(images.classes[images.labels[row]]) for row in rows]
    unknown = Counter(name for name in names if name not in number)
    known = [(row, number[name]) for row, name in zip(rows, names, strict=True) if name in number]
    if not known:
        raise PipelineError(
            f"No class of {place(images, table)} ({_few(unknown)}) is one that the "
            f"{predictor.title} knows ({_few(predictor.classes)}). Classes match by name."
        )
    at, labels = (np.array(values, np.int64) for values in zip(*known, strict=True))
    wanted = predictor.info.fingerprint if predictor.kind == "head" else None
    precise = options.precision in ("auto", predictor.key.precision)
    if table is not None and table.fingerprint == wanted and precise:
        logits = predictor.classify(np.asarray(table.features[at]))
        idle = (options.device, options.engine) != ("auto", "auto")
        seen = _seen_notes(cache, predictor, split, (images.digests[row] for row in at))
        return Answers(at, labels, logits, dict(unknown), (), ((IDLE,) if idle else ()) + seen)
    if table is not None:
        paths = {images.digests[row]: images.file(row) for row in at}
        check_images(paths, cache, workers=options.workers)
    progress.start("evaluating", len(at))
    parts: list[np.ndarray] = []
    bad: list[tuple[int, str]] = []
    done = 0
    files = (images.file(row) for row in at)
    for batch in through_trunk(predictor, files, options, cache, progress):
        parts.append(batch.logits)
        bad += [(done + slot, reason) for slot, reason in sorted(batch.bad.items())]
        done += len(batch.logits)
        progress.advance(len(batch.logits), len(batch.bad))
    good = np.ones(len(at), bool)
    good[[slot for slot, _ in bad]] = False
    if not good.any():
        raise PipelineError(
            f"No image of {place(images, table)} could be read: {images.paths[at[0]]}: "
            f"{bad[0][1]}, …"
        )
    unread = tuple((images.paths[at[slot]], reason) for slot, reason in bad)
    logits = np.concatenate(parts)[good]
    seen = _seen_notes(cache, predictor, split, (images.digests[row] for row in at[good]))
    return Answers(at[good], labels[good], logits, dict(unknown), unread, seen)


def _seen_notes(
    cache: Cache, predictor: Predictor, split: str, digests: Iterable[bytes]
) -> tuple[str, ...]:
    """Return a sentence where images are among those that the predictor was fitted on."""
    table = table_of(cache, predictor.info)
    if table is None:
        return ()
    pairs = zip(table.digests, table.splits, strict=True)
    trained = {bytes.fromhex(digest) for digest, of in pairs if of == "train"}
    seen = sum(digest in trained for digest in digests)
    if not seen:
        return ()
    return (
        f"{counted(seen, 'image')} of {split} are training images of the table that the "
        f"{predictor.kind} was made on: on these it is better than on new ones.",
    )


def _few(names: Any, most: int = 5) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (", …" if len(listed) > most else "")
