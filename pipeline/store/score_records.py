"""Records of what heads and models score: metrics, calibration, paired differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from pipeline.store.typed_json import Record

ClassMetrics = TypedDict(
    "ClassMetrics",
    {
        "class": str,
        "images": int,
        "precision": float | None,
        "recall": float | None,
        "f1": float | None,
    },
)


@dataclass(frozen=True)
class Metrics(Record):
    """How well predictions fit labels.

    Attributes:
        images: N, labelled images that were scored.
        accuracy: share of right predictions.
        interval: 95% interval of the accuracy: Wilson's over images, or resampled over groups
            (of many, as if normal).
        groups: how many groups of images it is resampled over; None where it is over images.
        balanced_accuracy: mean recall over the classes that occur.
        f1_macro: mean F1 over the classes that occur or are predicted.
        log_loss: mean of −ln p(label).
        top5: share of labels among the five likeliest classes; None below six classes.
        calibration_error: expected calibration error, 15 equal bins (Guo et al. 2017).
        baseline: accuracy of always predicting the training images' commonest class.
        classes: per class: name, images, precision, recall, F1 (None where undefined).
        confusion: [K][K] counts, rows are labels and columns predictions.
    """

    images: int
    accuracy: float
    interval: tuple[float, float]
    groups: int | None
    balanced_accuracy: float
    f1_macro: float
    log_loss: float
    top5: float | None
    calibration_error: float
    baseline: float
    classes: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class SplitMetrics(Metrics):
    """What a head scored on a split. See also `Metrics`.

    Attributes:
        selected_on: whether these images chose the head.
    """

    selected_on: bool


@dataclass(frozen=True)
class Calibration(Record):
    """What logits are divided by so that probabilities mean something.

    Attributes:
        temperature: above 0; 1 leaves them.
        on: which images it was fitted on: `cv`, `val` or `train-part`.
        images: how many.
        before: their log-loss without it.
        after: their log-loss with it.
    """

    temperature: float
    on: str
    images: int
    before: float
    after: float


@dataclass(frozen=True)
class Paired(Record):
    """How two predictors differ on the same images.

    Attributes:
        head_alone: images that are right with the head alone.
        model_alone: with the model alone.
        p: of McNemar's exact test, or of a sign-flip test over groups (of many, as if normal).
        log_loss_error: standard error of the difference of their log-losses.
        groups: how many groups of images both are over; None where they are over images.
    """

    head_alone: int
    model_alone: int
    p: float
    log_loss_error: float
    groups: int | None


@dataclass(frozen=True)
class ModelScores(Record):
    """A model and the head that it started from on the images of a split.

    Attributes:
        selected_on: whether these images chose the model or the head.
        model: what the model scored.
        start: what the head scored.
        paired: how they differ.
    """

    selected_on: bool
    model: Metrics
    start: Metrics
    paired: Paired
