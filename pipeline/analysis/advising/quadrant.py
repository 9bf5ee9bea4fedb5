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

from pipeline.analysis.advising.gains import Gain
from pipeline.analysis.advising.similarity import Similarity
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


#: Action to its title, the reason for it and where that comes from.
RULES = {
    "head": (
        "Fit a head on the features and leave the trunk as it is.",
        "So few images overfit a trunk that learns, and its features fit the task already.",
        (CS231N, TUTORIAL, KUMAR),
    ),
    "layer4": (
        "Fine-tune the last stage, starting from the fitted head.",
        "There are enough images to adapt the last stage, and the earlier ones are useful as they "
        "are; starting from the head keeps good features.",
        (CS231N, D2L, KUMAR),
    ),
    "earlier layer": (
        "Fit a head on an earlier layer, and leave the trunk as it is.",
        "The last layers are specific to the source task, the earlier ones see edges, colours and "
        "textures; there are too few images to fine-tune either.",
        (CS231N, KORNBLITH),
    ),
    "more stages": (
        "Fine-tune more stages, from the fitted head: first two, then all.",
        "The images are unlike those that the trunk was trained on, and there are enough to adapt "
        "it; pretrained weights are still the better start.",
        (CS231N, KORNBLITH, KUMAR),
    ),
    "from scratch": (
        "Train the same network from scratch beside fine-tuning all of it, and compare.",
        "The pretrained weights help no more than random ones would.",
        (CS231N, KORNBLITH),
    ),
    "labels": (
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

    What was measured outranks the rule of thumb. What gained more than chance is what to do, the
    most first. Where the rule's own way was tried and gained nothing, the head stays.

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
    best = linear or near
    carries = any(one is not None and one.p < LEVEL for one in (near, linear))
    size, likeness, action = place(images, similarity, carries=carries)
    close = LARGE / CLOSE < images < LARGE * CLOSE
    reasons = [
        f"{size.capitalize()}: {images:,} training images, and large begins at {LARGE:,}: "
        "fine-tuning gained nothing with 245 ants and bees, and 2 to 3 points with 3,018 flowers."
        f"{' The border is close: the other way is worth a try too.' if close else ''}"
    ]
    if carries:
        low, high = similarity.interval
        reasons.append(
            f"{likeness.capitalize()}: the pretrained weights remove {similarity.share:.0%} of the "
            f"error of {similarity.against} [{100 * low:.0f}, {100 * high:.0f}], and {SIMILAR:.0%} "
            f"counts as similar{'; the interval holds both' if low < SIMILAR < high else ''}."
        )
    else:
        reasons.append(
            f"The features carry nothing: {best.accuracy:.3f} right, and permuted labels give "
            f"{best.random_baseline:.3f} (p = {best.p:.2g}); nearest neighbours do no better."
        )
    outranks = "That outranks the rule of thumb"
    won = [gain for gain in gains if gain.verdict == "gained" and not gain.chose]
    lost = [gain for gain in gains if gain.verdict == "nothing" and _action(gain) == action]
    if carries and won:
        gain = max(won, key=lambda gain: gain.gained)
        action = _action(gain)
        reasons.append(
            f"It was tried: {gain.unfreeze} brought {_points(gain)} ({gain.model}), more than "
            f"chance by log-loss. {outranks}."
        )
    elif carries and lost:
        gain, action = lost[0], "head"
        what = "no epoch beat the head" if gain.kept_head else _points(gain)
        reasons.append(
            f"Fine-tuning was tried: {gain.unfreeze}, {what} ({gain.model}). {outranks}, so the "
            "head stays."
        )
    else:
        reasons.append(RULES[action][1])
    title, _, sources = RULES[action]
    to_run = tuple(commands(action, table, current=current, head=head))
    return Recommendation(size, likeness, action, title, to_run, tuple(reasons), sources)


def _action(gain: Gain) -> str:
    return gain.unfreeze if gain.unfreeze in ("layer4", "from scratch") else "more stages"


def _points(gain: Gain) -> str:
    return f"{100 * gain.gained:+.1f} points on {gain.split}"


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
    before = {"layer1": None, "layer2": "layer1", "layer3": "layer2"}
    layer = before.get(table.provenance.layer, "layer3")  # the stage before the features' own
    if action == "earlier layer" and layer is not None:
        return [f"{table.provenance.command} --layer {layer}", "pipeline fit-head --clf all"]
    return [f"{fit} --clf all"]
