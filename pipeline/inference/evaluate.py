"""How well a head or model does on labelled images, which come from a table or from DATA."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import PipelineError, UsageError
from pipeline.extraction import scan
from pipeline.extraction.scan import check_images
from pipeline.finetuning.model import Model, Predictor, open_predictor
from pipeline.heads import resolve
from pipeline.heads.head import Head
from pipeline.heads.metrics import measure
from pipeline.heads.resolve import find_table, table_of
from pipeline.heads.uncertainty import draws
from pipeline.images.datasets.given import AnyData, Data, as_data
from pipeline.images.datasets.imageset import ALL, ImageSet, class_notes
from pipeline.images.datasets.listing import Given
from pipeline.images.digest import UNREAD
from pipeline.images.names import class_name, counted
from pipeline.images.remarks import Remarks
from pipeline.inference.logit_stream import through_trunk
from pipeline.inference.options import EvaluateOptions
from pipeline.progress import Progress, Silent
from pipeline.store.cache import Cache
from pipeline.store.result_records import Metrics
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
        notes: sentences for the person.
    """

    rows: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    unknown: dict[str, int]
    bad: tuple[tuple[str, str], ...]
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
        notes: list[str] = []
        if table is not None and table.fingerprint == fingerprint and precise:
            logits = predictor.classify(np.asarray(table.features[at]))
            if (options.device, options.engine) != ("auto", "auto"):
                notes.append(IDLE)
        else:
            logits, bad = self._computed(predictor, at)
        good = np.ones(len(at), bool)
        good[list(bad)] = False
        unread = tuple((images.paths[at[slot]], reason) for slot, reason in bad.items())
        trained = images_of(self.cache, predictor, "train")
        if seen := sum(images.digests[row] in trained for row in at[good]):
            notes.append(
                f"{counted(seen, 'image')} of {split} are training images of the table that the "
                f"{predictor.kind} was made on: on these it is better than on new ones."
            )
        return Answers(at[good], labels[good], logits[good], dict(unknown), unread, tuple(notes))

    def _computed(self, predictor: Predictor, at: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
        """Return the logits [n, K] of images, and the position of each bad one with its reason."""
        if self.table is not None:
            paths = {self.images.digests[row]: self.images.file(row) for row in at}
            check_images(paths, self.cache, self.progress, workers=self.options.workers)
        self.progress.start("evaluating", len(at))
        logits: list[np.ndarray] = []
        bad: dict[int, str] = {}
        done, said = 0, Remarks()
        files = (self.images.file(row) for row in at)
        for batch in through_trunk(predictor, files, self.options, self.cache, self.progress):
            logits.append(batch.logits)
            bad |= {done + slot: reason for slot, reason in sorted(batch.bad.items())}
            for slot, remarks in batch.remarks.items():
                for remark in remarks:
                    said.add(self.images.paths[at[done + slot]], remark)
            done += len(batch.logits)
            self.progress.advance(len(batch.logits), len(batch.bad))
        if len(bad) == len(at):
            raise PipelineError(
                f"No image of {self.place} could be read: {self.images.paths[at[0]]}: {bad[0]}, …"
            )
        for note in said.notes:
            self.progress.say(note)
        return np.concatenate(logits), bad


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
    elif not isinstance(word, Given):
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


def _few(names: Any, most: int = 5) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (", …" if len(listed) > most else "")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        predictor: that was evaluated.
        why: it was taken, where nobody named it.
        on: the images' table or folder.
        metrics: split to its figures.
        unknown: class that the predictor does not know → images, which are not in the figures.
        unlabelled: images without a label.
        bad: path and reason of every image that could not be read.
        calibrated: whether probabilities are.
        notes: sentences for the person.
        seconds: of the whole run.
    """

    predictor: Predictor
    why: str
    on: str
    metrics: dict[str, Metrics]
    unknown: dict[str, int]
    unlabelled: int
    bad: tuple[tuple[str, str], ...]
    calibrated: bool
    notes: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            self.predictor.kind: self.predictor.id,
            "why": self.why,
            "on": self.on,
            "metrics": {split: values.to_json() for split, values in self.metrics.items()},
            "temperature": self.predictor.temperature if self.calibrated else 1.0,
            "unknown_classes": self.unknown,
            "unlabelled": self.unlabelled,
            "bad": [{"path": path, "reason": reason} for path, reason in self.bad],
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
        }


def evaluate(
    images: FeatureTable | AnyData = None,
    model: Head | Model | str | Path | None = None,
    *,
    split: str | None = None,
    calibration: bool = True,
    data: str | Path | None = None,
    precision: str = "auto",
    device: str = "auto",
    engine: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    cache: str | Path | None = None,
) -> dict[str, Metrics]:
    """Return the figures of a head or model on labelled images, by split.

    Args:
        images: a table, its file, name or id, a folder, a CSV or TSV file, or a built-in set; the
            table that the head or model was made on without it. Classes match by name.
        model: a `Head` or `Model`, its id or folder, a kind of head; the best of the current
            table without it.
        split: `train`, `val`, `test` or `all`; None for val and test, or all where there is
            neither.
        calibration: divide logits by the temperature that was fitted on held-out images.
        data: folder in which the images of a table lie now; None for where they were.
        precision: `fp32`, `tf32`, `bf16`, `fp16`, or `auto` for that of the stored predictions.
        device: `auto`, `cpu`, `cuda` or `mps`.
        engine: `torch`, `openvino`, or `auto`: what `extract` takes; PyTorch for a few images.
        batch_size: images at once; None for the device's default.
        workers: decoding threads; None for the cores that the process may use.
        cache: the cache's folder; else `$PIPELINE_CACHE`, else `./cache`.

    Returns:
        Split to its `Metrics`: accuracy with its 95% interval, log-loss, confusion [K, K], ….

    Raises:
        UsageError: an option that cannot be right; a `ValueError` too.
        PipelineError: there is no such head or model, or no labelled image that can be read.

    Example:
        >>> import pipeline
        >>> head = pipeline.fit_head(pipeline.extract("digits"), clf="logreg")
        >>> pipeline.evaluate(model=head)["test"].accuracy > 0.9  # doctest: +SKIP
        True
    """
    options, store = EvaluateOptions.of(locals()), Cache.at(cache)
    options.check()
    shown = images if isinstance(images, FeatureTable) else as_data(images)
    return evaluate_predictor(resolve.find(store, model), shown, options, store).metrics


def understand(
    words: Sequence[str], cache: Cache, asked: str | None = None
) -> tuple[resolve.Artefact, str | None]:
    """Return the head or model and the data that words mean.

    Args:
        words: perhaps a head or model, then perhaps a table or data; see `resolve.split`.
        cache: where they are.
        asked: the head or model; then the only word is data.
    """
    found, rest = (None, list(words)) if asked else resolve.split(cache, words)
    if len(rest) > 1:
        raise UsageError(
            f"'{rest[0]}' is no head or model, and one table or folder can be evaluated on."
        )
    return found or resolve.find(cache, asked), rest[0] if rest else None


def evaluate_predictor(
    artefact: resolve.Artefact,
    images: FeatureTable | Data,
    options: EvaluateOptions,
    cache: Cache,
    progress: Progress | None = None,
) -> Evaluation:
    """Do what `evaluate` does and report on it."""
    began = time.monotonic()
    options.check()
    predictor = open_predictor(artefact, cache)
    labelled = find_images(cache, images, predictor, options, progress or Silent())
    metrics: dict[str, Metrics] = {}
    unknown: Counter[str] = Counter()
    bad = [(path, reason) for path, reason in labelled.images.left_out if reason in UNREAD]
    notes = labelled.notes
    majority = predictor.classes.index(predictor.info.majority)
    for split, rows in labelled.parts().items():
        one = labelled.answers(predictor, split, rows)
        probabilities = predictor.probabilities(one.logits, calibrated=options.calibration)
        metrics[split] = measure(
            one.labels, probabilities, predictor.classes, majority,
            group_ids=labelled.draws(one.rows),
        )  # fmt: skip
        unknown.update(one.unknown)
        bad += one.bad
        notes += one.notes
    return Evaluation(
        predictor, artefact.why, labelled.place, metrics, dict(unknown),
        labelled.unlabelled, tuple(bad), options.calibration,
        tuple(dict.fromkeys(notes)), time.monotonic() - began,
    )  # fmt: skip
