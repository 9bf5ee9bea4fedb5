"""How well a head or model does on labelled images."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.finetuning.predictor import Predictor
from pipeline.heads import resolve
from pipeline.heads.metrics import Metrics, measure
from pipeline.images.datasets.imageset import ALL, ImageSet
from pipeline.images.digest import UNREAD
from pipeline.images.names import SPLITS, counted
from pipeline.inference import answers, options
from pipeline.inference.answers import Answers
from pipeline.inference.options import Means
from pipeline.inference.predictors import open_predictor
from pipeline.options import faults, from_options
from pipeline.progress import Progress, Silent
from pipeline.store.cache import Cache

_ALLOWED = {**options.ALLOWED, "split": (None, *SPLITS, ALL)}


@dataclass(frozen=True, kw_only=True)
class EvaluateRecipe(Means):
    """The options of `evaluate`, besides those of `Means`. Equal recipes give equal figures.

    Args:
        split: `train`, `val`, `test` or `all`; None for val and test, or all where there is
            neither.
        calibration: divide logits by the temperature that was fitted on held-out images.
        data: folder in which the images of a table lie now; None for where they were.
    """

    split: str | None = None
    calibration: bool = True
    data: str | None = None

    def check(self) -> None:
        """Refuse values that cannot be right, all in one message.

        Raises:
            UsageError: what was given, what is allowed, the nearest name.
        """
        if found := faults(self, least=options.LEAST, allowed=_ALLOWED):
            raise UsageError(" ".join(found))


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
    artefact: Any = None,
    data: str | Path | None = None,
    *,
    cache: str | Path | None = None,
    **options: Any,
) -> dict[str, Metrics]:
    """Return the figures of a head or model on labelled images, by split.

    Args:
        artefact: a `Head` or `Model`, its id or folder, a kind of head; the best of the current
            table without it.
        data: a table's file, name or id, a folder, a CSV or TSV file, or a built-in set; the
            table that it was made on without it.
        cache: the cache's folder; else `$PIPELINE_CACHE`, else `./cache`.
        **options: any field of `EvaluateRecipe`.

    Raises:
        PipelineError: with a sentence that says what to do.

    Example:
        >>> import pipeline
        >>> head = pipeline.fit_head(pipeline.extract("digits"), clf="logreg")
        >>> pipeline.evaluate(head)["test"].accuracy > 0.9  # doctest: +SKIP
        True
    """
    recipe = from_options(EvaluateRecipe, options, verb="evaluate")
    store = Cache.at(cache)
    found = resolve.find(store, artefact)
    return run(found, None if data is None else str(data), recipe, store).metrics


def understand(
    words: Sequence[str], cache: Cache, asked: str | None = None
) -> tuple[resolve.Artefact, str | None]:
    """Return the head or model and the data that words mean.

    Args:
        words: perhaps a head or model, then perhaps a table or data; see `artefacts.split`.
        cache: where they are.
        asked: the head or model; then the only word is data.
    """
    found, rest = (None, list(words)) if asked else resolve.split(cache, words)
    if len(rest) > 1:
        raise UsageError(
            f"'{rest[0]}' is no head or model, and one table or folder can be evaluated on."
        )
    return found or resolve.find(cache, asked), rest[0] if rest else None


def run(
    artefact: resolve.Artefact,
    data: str | None,
    recipe: EvaluateRecipe,
    cache: Cache,
    progress: Progress | None = None,
) -> Evaluation:
    """Do what `evaluate` does and report on it."""
    began = time.monotonic()
    progress = progress or Silent()
    recipe.check()
    predictor = open_predictor(artefact, cache)
    images, table = answers.find(
        cache, data, predictor, data=recipe.data, workers=recipe.workers, progress=progress
    )
    metrics: dict[str, Metrics] = {}
    unknown: Counter[str] = Counter()
    bad = [(path, reason) for path, reason in images.left_out if reason in UNREAD]
    notes: list[str] = []
    for split, rows in answers.parts(images, recipe.split).items():
        said = answers.answer(
            predictor, images, rows, table=table, means=recipe, cache=cache, progress=progress
        )
        majority = predictor.classes.index(predictor.info["majority"])
        chances = predictor.probabilities(said.logits, calibrated=recipe.calibration)
        metrics[split] = measure(said.labels, chances, predictor.classes, majority)
        unknown.update(said.unknown)
        bad += said.bad
        notes += [*said.notes, *seen_notes(cache, predictor, images, split, said)]
    return Evaluation(
        predictor, artefact.why, answers.place(images, table), metrics, dict(unknown),
        int((images.labels < 0).sum()), tuple(bad), recipe.calibration,
        tuple(dict.fromkeys(notes)), time.monotonic() - began,
    )  # fmt: skip


def seen_notes(
    cache: Cache, predictor: Predictor, images: ImageSet, split: str, said: Answers
) -> list[str]:
    """Return a sentence where images are among those that the predictor was fitted on."""
    known = answers.learned_from(cache, predictor.info)
    seen = sum(images.digests[row] in known for row in said.rows)
    if not seen:
        return []
    return [
        f"{counted(seen, 'image')} of {split} are training images of the table that the "
        f"{predictor.kind} was made on: on these it is better than on new ones."
    ]
