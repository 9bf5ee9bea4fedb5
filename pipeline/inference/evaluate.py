"""How well a head or model does on labelled images, which come from a table or from DATA."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.finetuning.model import Model, Predictor, open_predictor
from pipeline.heads import resolve
from pipeline.heads.head import Head
from pipeline.heads.metrics import measure
from pipeline.images.datasets.given import AnyData, Data, as_data
from pipeline.inference.labelled import Answers, find_images, told
from pipeline.inference.options import EvaluateOptions
from pipeline.progress import Progress, Silent
from pipeline.store.cache import Cache
from pipeline.store.score_records import Metrics
from pipeline.store.table import FeatureTable


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
        engine: `torch`, `compiled`, `openvino`, or `auto`: what `extract` takes; PyTorch for a few
            images.
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
    answers: list[Answers] = []
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
        answers.append(one)
        notes += one.notes
    bad, remarks = told(answers)
    return Evaluation(
        predictor, artefact.why, labelled.place, metrics, dict(unknown),
        labelled.unlabelled, (*labelled.unread, *bad), options.calibration,
        tuple(dict.fromkeys([*notes, *remarks])), time.monotonic() - began,
    )  # fmt: skip
