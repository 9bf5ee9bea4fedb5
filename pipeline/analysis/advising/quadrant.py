"""Where a data set stands among the four quadrants of transfer learning, and what follows.

The quadrants (few or many images, similar to the source task or not) are those of Stanford's
cs231n, "Transfer Learning": a linear classifier; fine-tuning; a linear classifier on an earlier
layer; fine-tuning everything or training from scratch. What is a rule of thumb there is
measured here, and two numbers decide; what fine-tuning gained, as far as it was tried, outranks
them. `docs/advise.md` says where they come from.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.analysis.advising.similarity import Similarity
from pipeline.heads.uncertainty import PermutationTest
from pipeline.store.result_records import ModelInfo
from pipeline.store.table import FeatureTable

#: Standard errors beyond which a fall of the log-loss is more than chance.
SURE = 1.96
#: A fifth of train may be set aside to choose the epoch; what learned from less is an experiment.
WHOLE = 0.7


@dataclass(frozen=True)
class Gain:
    """A fine-tuned model beside the head that it started from, on images that chose nothing.

    Attributes:
        model: its id; empty for a short training on a part of train, of which nothing is kept.
        unfreeze: what learned; `from scratch` where everything did, from random weights.
        split: that both are measured on.
        chose: whether that split chose the model's epoch, so that the gain is too good.
        images: of it.
        train_images: that were learned from.
        head: the head's accuracy.
        head_interval: 95%.
        accuracy: the model's.
        interval: 95%.
        log_loss_fell: by how much, the head's minus the model's.
        log_loss_error: its standard error over the images.
        head_alone: images that the head alone has right.
        model_alone: images that the model alone has right.
        kept_head: whether no epoch beat the head, so that the model is the head.
    """

    model: str
    unfreeze: str
    split: str
    chose: bool
    images: int
    train_images: int
    head: float
    head_interval: tuple[float, float]
    accuracy: float
    interval: tuple[float, float]
    log_loss_fell: float
    log_loss_error: float
    head_alone: int
    model_alone: int
    kept_head: bool

    @property
    def gained(self) -> float:
        """Return the difference of the accuracies."""
        return self.accuracy - self.head

    @property
    def verdict(self) -> str:
        """Return `gained`, `nothing` or `unclear`.

        A model gained where its accuracy is higher and its log-loss lower by more than chance, and
        nothing where one of them is no better. Log-loss decides since it counts how sure each
        image is, and so tells small gains from chance where the accuracy cannot.
        """
        if self.kept_head or self.gained <= 0 or self.log_loss_fell <= 0:
            return "nothing"
        sure = self.log_loss_fell > SURE * self.log_loss_error
        return "gained" if sure else "unclear"

    @property
    def whole(self) -> bool:
        """Tell whether all of train was learned from, and not a part."""
        return bool(self.model)

    @property
    def where(self) -> str:
        """Return which model it is, or how much was learned from."""
        return self.model or f"tried with {self.train_images:,} images"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = {"gained": self.gained, "verdict": self.verdict, "where": self.where}
        return {**vars(self), **values}


def find_gains(models: Sequence[ModelInfo], table_id: str, *, images: int) -> tuple[Gain, ...]:
    """Return the gain of each way of fine-tuning that was tried on a table.

    Of the models that unfroze the same the one counts that has the lowest log-loss on the images
    that chose its epoch; so the reported split chooses nothing here either.

    Args:
        models: every `model.json` of the cache.
        table_id: of the table.
        images: that the table has to train on; what learned from less than `WHOLE` of them is
            passed over.
    """
    best: dict[str, tuple[float, ModelInfo]] = {}
    for info in models:
        if info.table_id != table_id or info.train_images < WHOLE * images:
            continue
        way = "from scratch" if info.from_scratch else info.unfreeze
        loss = info.chosen.model.log_loss
        if way not in best or loss < best[way][0]:
            best[way] = loss, info
    return tuple(_gain(way, info) for way, (_, info) in best.items())


def _gain(way: str, info: ModelInfo) -> Gain:
    scored = info.metrics
    reported = [name for name in scored if not scored[name].selected_on]
    split = "test" if "test" in reported else next(iter(reported), info.selected_on)
    of = scored[split]
    return Gain(
        model=info.id,
        unfreeze=way,
        split=split,
        chose=split not in reported,
        images=of.model.images,
        train_images=info.train_images,
        head=of.start.accuracy,
        head_interval=of.start.interval,
        accuracy=of.model.accuracy,
        interval=of.model.interval,
        log_loss_fell=of.start.log_loss - of.model.log_loss,
        log_loss_error=of.paired.log_loss_error,
        head_alone=of.paired.head_alone,
        model_alone=of.paired.model_alone,
        kept_head=not info.beats_head,
    )


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
    most first, a whole model before a trial on a part. Where the rule's own way was tried and
    gained nothing, the head stays.

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
    # that a part gains nothing does not say that all of train would not
    lost = [
        gain
        for gain in gains
        if gain.verdict == "nothing" and gain.whole and _action(gain) == action
    ]
    if carries and won:
        gain = max(won, key=lambda gain: (gain.whole, gain.gained))
        action = _action(gain)
        reasons.append(
            f"It was tried: {gain.unfreeze} brought {_points(gain)} ({gain.where}), more than "
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
