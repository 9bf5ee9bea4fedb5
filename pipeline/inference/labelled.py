"""Labelled images, from a table or from DATA, and what heads and models predict for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import PipelineError, UsageError
from pipeline.extraction import scan
from pipeline.extraction.scan import check_images
from pipeline.finetuning.model import Predictor
from pipeline.heads.resolve import find_table, table_of
from pipeline.heads.uncertainty import draws
from pipeline.images.datasets.given import Data
from pipeline.images.datasets.imageset import ALL, ImageSet, class_notes
from pipeline.images.datasets.kept import Pictures
from pipeline.images.datasets.lists.listing import Given
from pipeline.images.digest import UNREAD
from pipeline.images.names import class_name, counted
from pipeline.images.remarks import Remarks
from pipeline.inference.logit_stream import through_trunk
from pipeline.inference.options import EvaluateOptions
from pipeline.progress import Progress
from pipeline.store.cache import Cache
from pipeline.store.table import FeatureTable

#: Said where an option is given that nothing needs.
IDLE = "The features are the table's: --device and --engine had nothing to compute."


@dataclass(frozen=True, eq=False)
class Answers:
    """What a predictor predicts for some images of a set.

    Attributes:
        rows: [n] of the image set: images whose class it knows and that could be read.
        labels: [n] int64, index into its classes.
        logits: [n, K], not calibrated.
        unknown: class that it does not know → images.
        bad: path and reason of images that could not be read.
        remarks: path and remark of images of which decoding converted, assumed or passed over
            something.
        notes: sentences for the person.
    """

    rows: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    unknown: dict[str, int]
    bad: tuple[tuple[str, str], ...]
    remarks: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    @property
    def right(self) -> np.ndarray:
        """Return which predictions are right, bool [n]."""
        return np.asarray(self.logits.argmax(1) == self.labels)


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labelled images, on which heads and models are measured.

    Attributes:
        images: a labelled one at least, with digests.
        table: whose rows the images are; None where they are of none.
        options: whose images, and how to compute.
        cache: where converted networks, and the journal of what is decoded, are.
        progress: told of the images.
    """

    images: ImageSet
    table: FeatureTable | None
    options: EvaluateOptions
    cache: Cache
    progress: Progress

    @property
    def place(self) -> str:
        """Return the table's file, or the folder of the images, for people."""
        return str(self.images.root if self.table is None else self.table.path)

    @property
    def unlabelled(self) -> int:
        """Return how many images have no label, and so are not among what is measured."""
        return int((self.images.labels < 0).sum())

    @property
    def notes(self) -> list[str]:
        """Return what a person should know of how the images were found, not of their classes."""
        known = class_notes(self.images)
        return [note for note in self.images.notes if note not in known]

    @property
    def unread(self) -> list[tuple[str, str]]:
        """Return path and reason of files that were left out before, being no images to read."""
        return [(path, reason) for path, reason in self.images.left_out if reason in UNREAD]

    def draws(self, rows: np.ndarray) -> np.ndarray | None:
        """Return which of some rows come together, as `uncertainty.draws` has it."""
        groups = self.images.groups
        return draws(None if groups is None else [groups[row] for row in rows])

    def parts(self) -> dict[str, np.ndarray]:
        """Return split → rows of its labelled images.

        The splits are the one that is asked for; else those of val and test that there are, and
        all images where there is neither.

        Raises:
            UsageError: there is no such split.
        """
        known = np.flatnonzero(self.images.labels >= 0)
        labelled = self.images.take(known.tolist())
        names = [self.options.split]
        if names == [None]:
            names = [name for name in labelled.split_names if name != "train"] or [ALL]
        return {str(name): known[labelled.rows(split=name)] for name in names}

    def answers(self, predictor: Predictor, split: str, rows: np.ndarray) -> Answers:
        """Return what a predictor predicts: from the table's features where they are its own and in
        the precision that is asked for, else from the images. Classes match by name.

        Args:
            predictor: a head or model.
            split: that the rows are of, for people.
            rows: [n] of the images, all labelled.

        Raises:
            PipelineError: no class is known, no image could be read, or a table's images have
                moved.
        """
        images, table, options = self.images, self.table, self.options
        number = {class_name(name): k for k, name in enumerate(predictor.classes)}
        names = [class_name(images.classes[images.labels[row]]) for row in rows]
        unknown = Counter(name for name in names if name not in number)
        known = [(row, number[k]) for row, k in zip(rows, names, strict=True) if k in number]
        if not known:
            raise PipelineError(
                f"No class of {self.place} ({_few(unknown)}) is one that the "
                f"{predictor.title} knows ({_few(predictor.classes)}). Classes match by name."
            )
        at, labels = (np.array(values, np.int64) for values in zip(*known, strict=True))
        fingerprint = predictor.info.fingerprint if predictor.kind == "head" else None
        precise = options.precision in ("auto", predictor.key.precision)
        bad: dict[int, str] = {}
        remarks: list[tuple[str, str]] = []
        notes: list[str] = []
        if table is not None and table.fingerprint == fingerprint and precise:
            logits = predictor.classify(np.asarray(table.features[at]))
            if (options.device, options.engine) != ("auto", "auto"):
                notes.append(IDLE)
        else:
            logits, bad, remarks = self._computed(predictor, at)
        good = np.ones(len(at), bool)
        good[list(bad)] = False
        unread = tuple((images.paths[at[slot]], reason) for slot, reason in bad.items())
        trained = images_of(self.cache, predictor, "train")
        if seen := sum(images.digests[row] in trained for row in at[good]):
            notes.append(
                f"{counted(seen, 'image')} of {split} are training images of the table that the "
                f"{predictor.kind} was made on: on these it is better than on new ones."
            )
        return Answers(
            at[good],
            labels[good],
            logits[good],
            dict(unknown),
            unread,
            tuple(remarks),
            tuple(notes),
        )

    def _computed(
        self, predictor: Predictor, at: np.ndarray
    ) -> tuple[np.ndarray, dict[int, str], list[tuple[str, str]]]:
        """Return the logits [n, K] of images, position → reason of bad ones, path and remarks."""
        if self.table is not None:
            paths = {self.images.digests[row]: self.images.file(row) for row in at}
            check_images(paths, self.cache, self.progress, workers=self.options.workers)
        self.progress.start("evaluating", len(at))
        logits: list[np.ndarray] = []
        bad: dict[int, str] = {}
        remarks: list[tuple[str, str]] = []
        done = 0
        files = (self.images.file(row) for row in at)
        for batch in through_trunk(predictor, files, self.options, self.cache, self.progress):
            logits.append(batch.logits)
            bad |= {done + slot: reason for slot, reason in sorted(batch.bad.items())}
            for slot in sorted(batch.remarks.keys() - batch.bad.keys()):
                path = self.images.paths[at[done + slot]]
                remarks += [(path, remark) for remark in batch.remarks[slot]]
            done += len(batch.logits)
            self.progress.advance(len(batch.logits), len(batch.bad))
        if len(bad) == len(at):
            raise PipelineError(
                f"No image of {self.place} could be read: {self.images.paths[at[0]]}: {bad[0]}, …"
            )
        return np.concatenate(logits), bad, remarks


def told(answers: Iterable[Answers]) -> tuple[list[tuple[str, str]], list[str]]:
    """Return what several answers tell of their images, each thing of an image once.

    Returns:
        path and reason of images that could not be read, and sentences on what decoding converted,
        assumed or passed over.
    """
    found = list(answers)
    bad = dict.fromkeys(pair for one in found for pair in one.bad)
    remarks = dict.fromkeys(pair for one in found for pair in one.remarks)
    return list(bad), Remarks(remarks).notes


def find_images(
    cache: Cache,
    word: FeatureTable | Data,
    predictor: Predictor,
    options: EvaluateOptions,
    progress: Progress,
) -> Labelled:
    """Return the images that are meant, with the table where they come from one: row by row.

    Args:
        cache: where tables are.
        word: a table, its file, name or id; a folder, a CSV or TSV file, a list in memory, or a
            built-in set; None for the table that the predictor was made on.
        predictor: whose table is preferred where a name fits several.
        options: of `evaluate`: whose images, where they lie now, and how to compute.
        progress: told of hashing.

    Raises:
        PipelineError: there is no such thing, or no labelled image in it.
    """
    table: FeatureTable | None = None
    if isinstance(word, FeatureTable):
        table = word
    elif not isinstance(word, Given | Pictures):
        table = _table(cache, None if word is None else str(word), predictor)
    if table is not None:
        if not (table.labels >= 0).any():
            raise PipelineError(f"{table.path} has no labels to compare predictions with.")
        images = scan.of_table(table, options.data)
    else:
        assert word is not None and not isinstance(word, FeatureTable)
        if options.data is not None:
            raise UsageError("--data says where the images of a table lie; this is no table.")
        images = scan.of_data(word, cache, progress, workers=options.workers)
        if not (images.labels >= 0).any():
            raise PipelineError(
                f"{images.root} has no labelled images: give a folder with a folder for each "
                "class, or a CSV file with a column label."
            )
    return Labelled(images, table, options, cache, progress)


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


def images_of(cache: Cache, predictor: Predictor, split: str) -> set[bytes]:
    """Return the digests of a split of the table that it was made on, as far as is known."""
    table = table_of(cache, predictor.info)
    if table is None:
        return set()
    pairs = zip(table.digests, table.splits, strict=True)
    return {bytes.fromhex(digest) for digest, name in pairs if name == split}


def _few(names: Iterable[str], most: int = 5) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (", …" if len(listed) > most else "")
