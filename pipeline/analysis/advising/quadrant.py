"""Where a data set stands among the four quadrants of transfer learning, and what follows.

The quadrants (few or many images, similar to the source task or not) are those of Stanford's
cs231n, "Transfer Learning": a linear classifier; fine-tuning; a linear classifier on an earlier
layer; fine-tuning everything or training from scratch. What is a rule of thumb there is
measured here, and two numbers decide. `docs/advise.md` says where they come from.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.analysis.advising.gains import Gain
from pipeline.heads.cross_validation.random_baseline import PermutationTest
from pipeline.store.table import FeatureTable

#: Training images from which a data set is large: in the middle, on a log scale, between those
#: with which fine-tuning gained nothing and those with which it gained (docs/finetune.md).
LARGE = 1000
#: Similar: pretrained weights remove at least this share of the error that random ones leave.
SIMILAR = 0.5
#: Features carry something where permuted labels do as well less often than this.
LEVEL = 0.01
#: Within this factor of `LARGE` the border is called close.
CLOSE = 2

CS231N = "cs231n, Transfer Learning: https://cs231n.github.io/transfer-learning/"
D2L = (
    "Dive into Deep Learning, Fine-Tuning: https://d2l.ai/chapter_computer-vision/fine-tuning.html"
)
TUTORIAL = (
    "PyTorch, Transfer Learning for Computer Vision: "
    "https://pytorch.org/tutorials/beginner/transfer_learning_tutorial.html"
)
KORNBLITH = "Kornblith et al. 2019, Do Better ImageNet Models Transfer Better?: arXiv:1805.08974"
KUMAR = (
    "Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features and Underperform "
    "Out-of-Distribution: arXiv:2202.10054"
)


@dataclass(frozen=True)
class Similarity:
    """How much of the error the pretrained weights remove.

    Attributes:
        share: 1 − error with them / error without; below 0 where random weights do better.
        interval: 95%.
        against: `random weights`, or `chance` where these could not be had.
    """

    share: float
    interval: tuple[float, float]
    against: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**vars(self), "interval": list(self.interval)}


@dataclass(frozen=True)
class Recommendation:
    """What to run, and why.

    Attributes:
        size: `small` or `large`.
        similarity: `similar`, `different`, or `nothing` where the features carry nothing.
        action: `head`, `layer4`, `earlier layer`, `more stages`, `from scratch` or `labels`.
        title: a sentence.
        commands: to run, in order.
        reasons: sentences with the figures.
        sources: of the rule.
    """

    size: str
    similarity: str
    action: str
    title: str
    commands: tuple[str, ...]
    reasons: tuple[str, ...]
    sources: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
        }


class Rule(NamedTuple):
    """What an action says: a sentence, its reason and where that comes from."""

    title: str
    why: str
    sources: tuple[str, ...]


RULES = {
    "head": Rule(
        "Fit a head on the features and leave the trunk as it is.",
        "So few images overfit a trunk that learns, and its features fit the task already.",
        (CS231N, TUTORIAL, KUMAR),
    ),
    "layer4": Rule(
        "Fine-tune the last stage, starting from the fitted head.",
        "There are enough images to adapt the last stage, and the earlier ones are useful as they "
        "are; starting from the head keeps good features.",
        (CS231N, D2L, KUMAR),
    ),
    "earlier layer": Rule(
        "Fit a head on an earlier layer, and leave the trunk as it is.",
        "The last layers are specific to the source task, the earlier ones see edges, colours and "
        "textures; there are too few images to fine-tune either.",
        (CS231N, KORNBLITH),
    ),
    "more stages": Rule(
        "Fine-tune more stages, from the fitted head: first two, then all.",
        "The images are unlike those that the trunk was trained on, and there are enough to adapt "
        "it; pretrained weights are still the better start.",
        (CS231N, KORNBLITH, KUMAR),
    ),
    "from scratch": Rule(
        "Train the same network from scratch beside fine-tuning all of it, and compare.",
        "The pretrained weights help no more than random ones would.",
        (CS231N, KORNBLITH),
    ),
    "labels": Rule(
        "The features carry nothing about these labels: look at the labels first.",
        "A head does no better than chance, so fine-tuning has nothing to start from.",
        (CS231N,),
    ),
}


def recommend(
    table: FeatureTable,
    images: int,
    similarity: Similarity,
    *,
    near: PermutationTest,
    linear: PermutationTest | None,
    gains: Sequence[Gain],
    current: bool,
    head: str | None,
) -> Recommendation:
    """Return what to run on a table.

    Args:
        table: that the advice is on.
        images: to train on.
        similarity: measured.
        near: nearest neighbours against chance.
        linear: the linear head against chance; None where there are no folds.
        gains: of fine-tuning, as far as it was tried.
        current: whether commands take the table without being told.
        head: id of its best head that fine-tuning can start from, if there is one.
    """
    carries = any(one is not None and one.p < LEVEL for one in (near, linear))
    size, likeness, rule = place(images, similarity, carries=carries)
    action, gain = measured(rule, gains) if carries else (rule, None)
    title, why, sources = RULES[action]
    reasons = (
        _of_size(images, size),
        _of_likeness(similarity, likeness, linear or near),
        why if gain is None else _of_gain(gain),
    )
    to_run = tuple(commands(action, table, current=current, head=head))
    return Recommendation(size, likeness, action, title, to_run, reasons, sources)


def _of_size(images: int, size: str) -> str:
    close = LARGE / CLOSE < images < LARGE * CLOSE
    return (
        f"{size.capitalize()}: {images:,} training images, and large begins at {LARGE:,}: "
        "fine-tuning gained nothing with 245 ants and bees, and 2 to 3 points with 3,018 flowers."
        f"{' The border is close: the other way is worth a try too.' if close else ''}"
    )


def _of_likeness(similarity: Similarity, likeness: str, best: PermutationTest) -> str:
    if likeness == "nothing":
        return (
            f"The features carry nothing: {best.accuracy:.3f} right, and permuted labels give "
            f"{best.random_baseline:.3f} (p = {best.p:.2g}); nearest neighbours do no better."
        )
    low, high = similarity.interval
    return (
        f"{likeness.capitalize()}: the pretrained weights remove {similarity.share:.0%} of the "
        f"error of {similarity.against} [{100 * low:.0f}, {100 * high:.0f}], and {SIMILAR:.0%} "
        f"counts as similar{'; the interval holds both' if low < SIMILAR < high else ''}."
    )


def _of_gain(gain: Gain) -> str:
    points = f"{100 * gain.gained:+.1f} points on {gain.split}"
    if gain.verdict == "gained":
        return (
            f"It was tried: {gain.unfreeze} brought {points} ({gain.model}), more than chance by "
            "log-loss. That outranks the rule of thumb."
        )
    what = "no epoch beat the head" if gain.kept_head else points
    return (
        f"Fine-tuning was tried: {gain.unfreeze}, {what} ({gain.model}). That outranks the rule "
        "of thumb, so the head stays."
    )


def place(images: int, similarity: Similarity, *, carries: bool) -> tuple[str, str, str]:
    """Return the size, the similarity and the action that the rule of thumb gives.

    Args:
        images: to train on.
        similarity: measured.
        carries: whether the features say anything about the labels.
    """
    size = "large" if images >= LARGE else "small"
    if not carries:
        return size, "nothing", "labels"
    if similarity.share >= SIMILAR:
        return size, "similar", "layer4" if size == "large" else "head"
    if size == "small":
        return size, "different", "earlier layer"
    helps = similarity.against == "chance" or similarity.interval[1] > 0
    return size, "different", "more stages" if helps else "from scratch"


def measured(rule: str, gains: Sequence[Gain]) -> tuple[str, Gain | None]:
    """Return the action once what was measured outranks the rule of thumb, and what did.

    What gained more than chance is what to do, the most first. Where the rule's own way was tried
    and gained nothing, the head stays. Everything else leaves the rule as it is.
    """
    won = [gain for gain in gains if gain.verdict == "gained" and not gain.chose]
    if won:
        best = max(won, key=lambda gain: gain.gained)
        return _action(best), best
    for gain in gains:
        if _action(gain) == rule and gain.verdict == "nothing":
            return "head", gain
    return rule, None


def _action(gain: Gain) -> str:
    return gain.unfreeze if gain.unfreeze in ("layer4", "from scratch") else "more stages"


def commands(action: str, table: FeatureTable, *, current: bool, head: str | None) -> list[str]:
    """Return the command lines of an action.

    Args:
        action: of `RULES`.
        table: that the advice is on.
        current: whether commands take it without being told.
        head: id of its best head that fine-tuning can start from, if there is one.
    """
    name = [] if current or table.path is None else [table.path.stem]
    fit = shlex.join(["pipeline", "fit-head", *name])
    first = [] if head else [f"{fit} --clf logreg"]
    tune = f"pipeline finetune {head or 'logreg'}"
    if action == "layer4":
        return [*first, f"{tune} --unfreeze layer4"]
    if action == "more stages":
        return [*first, f"{tune} --unfreeze 2", f"{tune} --unfreeze all"]
    if action == "from scratch":
        return [*first, f"{tune} --unfreeze all", f"{tune} --from-scratch --epochs 50"]
    if action == "earlier layer" and (layer := earlier(table)) is not None:
        return [f"{table.provenance.command} --layer {layer}", "pipeline fit-head --clf all"]
    return [f"{fit} --clf all"]


def earlier(table: FeatureTable) -> str | None:
    """Return the stage before the one that a table's features come from; None before the first."""
    before = {"layer1": None, "layer2": "layer1", "layer3": "layer2"}
    return before.get(table.provenance.layer, "layer3")
