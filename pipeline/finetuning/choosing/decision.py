"""Whether a model is better than its head, and how much of the way to it is kept.

What decides is not what chose: of ten candidates that are judged on 49 images, a false one is kept
in half of all cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.heads.metrics import losses, softmax
from pipeline.heads.uncertainty import mcnemar, mean_error

#: A gain counts that exceeds so many of its standard errors: chance alone does that once in twenty
#: times. So does one in images that are right which chance makes less often than this.
LEVEL, ONE_SIDED = 1.65, 0.01


@dataclass(frozen=True)
class Decision:
    """What decided between a model and its head.

    Attributes:
        on: `folds`, or the split half of which decided.
        images: that decided; 0 where no model was left.
        share: of the way from the head to the model that is kept; 0: the head stays best.
        gain: by how much the log-loss is lower than the head's, in the mean.
        error: standard error of that, paired.
        head_alone: images that are right with the head alone.
        model_alone: with the model alone.
    """

    on: str
    images: int
    share: float
    gain: float
    error: float
    head_alone: int
    model_alone: int

    @property
    def kept(self) -> bool:
        """Tell whether the model is kept."""
        return self.share > 0


def better(
    labels: np.ndarray,
    head: np.ndarray,
    model: np.ndarray,
    groups: np.ndarray | None,
    weights: np.ndarray | None = None,
) -> tuple[bool, float, float, int, int]:
    """Tell whether logits are better than a head's by more than chance explains.

    They are where their log-loss is lower and one of two holds: it is lower by more than chance
    explains, and they are not more often wrong; or they are more often right by more than chance
    explains. (Where a few per cent of the labels are wrong, a model that fits well is sure and
    wrong there: its log-loss gains little where its accuracy gains much.)

    Args:
        labels: int64 [n].
        head: logits [n, K].
        model: logits [n, K].
        groups: from `heads.uncertainty.draws`: images of a group are one draw.
        weights: [K] of the classes; None: all alike.

    Returns:
        That, the mean gain in log-loss, its standard error, and the images that are right with
        the head alone and with the model alone.
    """
    before, after = softmax(head), softmax(model)
    each = losses(labels, before, weights) - losses(labels, after, weights)
    gain, error = float(each.mean()), mean_error(each, groups)
    right = before.argmax(1) == labels, after.argmax(1) == labels
    alone = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    surer = gain > LEVEL * error and alone[1] >= alone[0]
    righter = alone[1] > alone[0] and mcnemar(*right, groups).p / 2 < ONE_SIDED
    return gain > 0 and (surer or righter), gain, error, *alone


def decide(
    on: str,
    labels: np.ndarray,
    head: np.ndarray,
    models: Mapping[float, np.ndarray],
    *,
    groups: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> Decision:
    """Return what is kept: the head, the model, or what lies between.

    Args:
        on: which images decide.
        labels: int64 [n] of these.
        head: logits [n, K] of the head.
        models: share of the way from the head to the model → logits [n, K] there.
        groups: from `heads.uncertainty.draws`.
        weights: [K] of the classes; None: all alike.
    """
    found = {}
    for share, logits in models.items():
        is_better, gain, error, *alone = better(labels, head, logits, groups, weights)
        kept = share if is_better else 0.0
        found[share] = Decision(on, len(labels), kept, gain, error, *alone)
    # of those that are better the best; of none the one that came nearest
    return max(found.values(), key=lambda one: (one.kept, one.gain))
