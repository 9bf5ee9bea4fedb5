"""What heads and models write to disk, as types: `head.json` and `model.json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from pipeline.store.records import FeatureSource
from pipeline.store.score_records import Calibration, ModelScores, SplitMetrics
from pipeline.store.typed_json import Record


@dataclass(frozen=True, kw_only=True)
class ResultInfo(Record):
    """What `head.json` and `model.json` have in common.

    Attributes:
        schema: of the file.
        id: twelve hexadecimal digits, of all that the result depends on.
        table_id: of the table that it was made on.
        table: that table's file, when it was made.
        fingerprint: of the table's features.
        trunk: name of the trunk.
        classes: K names; columns of logits and probabilities are in this order.
        majority: the commonest class of the training images.
        selected_on: what chose the head's penalty or the model's epoch: `cv`, `val`, `train-part`.
        train_images: that were learned from.
        calibration: None where no image was held out.
        notes: sentences for the person.
        versions: package to its version.
        created: when, UTC.
        files: file of the folder to its sha256.
        checksum: sha256 of the JSON object without this.
        folder: where it is kept; not stored.
    """

    schema: int
    id: str
    table_id: str
    table: str
    fingerprint: str
    trunk: str
    classes: tuple[str, ...]
    majority: str
    selected_on: str
    train_images: int
    calibration: Calibration | None
    notes: tuple[str, ...]
    versions: dict[str, str]
    created: str
    files: dict[str, str] = field(default_factory=dict)
    checksum: str = ""
    folder: Path | None = field(default=None, metadata={"stored": False}, compare=False)

    def __post_init__(self) -> None:
        """Refuse a record that contradicts itself.

        Raises:
            ValueError: what is wrong, as `from_json` says it.
        """
        if self.majority not in self.classes:
            raise ValueError(f"has {self.majority!r:.40} for majority, which is no class of it")

    @property
    def calibration_temperature(self) -> float:
        """Return what logits are divided by for calibrated probabilities; 1 without calibration."""
        return 1.0 if self.calibration is None else self.calibration.temperature


class HeadOptions(TypedDict):
    """What is read again of the options of `fit-head`; the others are kept beside."""

    select: str
    select_on: str
    folds: int
    shots: int | None
    train_fraction: float | None
    class_weight: str | None
    views: int
    seed: int


class HeadTrial(TypedDict):
    """What is read again of `pipeline.heads.cross_validation.search.Trial`."""

    parameters: dict[str, Any]
    score: float | None
    log_loss: float | None
    spread: float | None


class Repeats(TypedDict):
    """Accuracies on resplits of train and a split, their mean and standard deviation."""

    split: str
    accuracies: list[float]
    mean: float
    spread: float


class EpochFigures(TypedDict):
    """What is read again of `pipeline.finetuning.settings.Epoch`; None is not a number."""

    number: int
    train_loss: float | None
    loss: float | None
    accuracy: float | None
    seconds: float | None
    candidate: str


@dataclass(frozen=True, kw_only=True)
class HeadInfo(ResultInfo):
    """`head.json`. See also `ResultInfo`.

    Attributes:
        clf: kind of head, one of `pipeline.heads.registry.HEADS`.
        title: of the kind, for people.
        log_loss: whether the kind minimises the log-loss.
        linear: whether the head is one linear layer on raw features.
        dim: D, length of its features.
        features: what computes these.
        recipe: the options as they were asked for.
        policy: of the views that it learned from, too; empty without.
        normalize: what is done to features first.
        parameters: of the estimator, as chosen.
        temperature: what the estimator's scores are divided by to become logits; None where it
            gives probabilities itself.
        selected_by: measure that chose.
        folds: that chose; 0 where val did.
        score: of the choice, larger is better; None where nothing was held out.
        held_out_log_loss: of the same predictions; None likewise.
        spread: standard deviation of the folds' scores.
        trials: every candidate that was tried.
        metrics: split to what the head scored there.
        near_duplicates: pairs of images that stand in two splits or in train, as rows of the
            table.
        repeats: accuracies on resplits, their mean and spread; None without.
        seconds: of the search and the fit.
    """

    clf: str
    title: str
    log_loss: bool
    linear: bool
    dim: int
    features: FeatureSource
    recipe: HeadOptions
    policy: str
    normalize: str
    parameters: dict[str, Any]
    temperature: float | None
    selected_by: str
    folds: int
    score: float | None
    held_out_log_loss: float | None
    spread: float
    trials: tuple[HeadTrial, ...]
    metrics: dict[str, SplitMetrics]
    repeats: Repeats | None
    seconds: float
    near_duplicates: tuple[dict[str, Any], ...] = ()

    @property
    def summary(self) -> str:
        """Return what it is, for people: `head 0123456789ab (logreg on resnet18)`."""
        return f"head {self.id} ({self.clf} on {self.trunk})"

    @property
    def partial(self) -> bool:
        """Tell whether the head was fitted on a part of train: an experiment, however new."""
        return bool(self.recipe["shots"] or self.recipe["train_fraction"])


@dataclass(frozen=True, kw_only=True)
class ModelInfo(ResultInfo):
    """`model.json`. See also `ResultInfo`.

    Attributes:
        finished: whether training came to its end.
        head: id of the head that was named.
        head_clf: its kind.
        head_metrics: what it scored, fitted on all training images.
        weights, weights_asked, weights_digest, keys: of the frozen part, as in `FeatureSource`.
        layer, pool, preprocess, decoder: as in `FeatureSource`.
        precision: of the training arithmetic.
        from_scratch: whether everything started from random weights.
        unfreeze: what was asked to learn.
        boundary: after which place the frozen part ends; `pixels` without one.
        learns: names of the parameters that learned.
        places: stages and modules that they are of.
        l2: whether features are divided by their length.
        standalone: whether the file holds the frozen part too.
        live: whether no activations were kept.
        recipe: the options as they were asked for.
        settings: of the training, `auto` settled.
        epochs: that were trained.
        best_epoch: that was kept; 0 is the head.
        kept_recipe: name of the recipe that was kept; empty where single options made it.
        augmentation: which views were drawn, and what was measured to choose them.
        decision: what decided between model and head; None where the best epoch of one candidate
            is kept.
        beats_head: whether it is better than its head on the images that decided.
        compared_on: hash of the images learned from and of those that chose.
        metrics: split to the scores of model and head, each at its calibration's temperature.
        handover: how exactly the head was carried over; None for a random start.
        moved: place to how far its parameters moved, relative to their length.
        history: what each epoch of each candidate showed.
        uses: activations that the frozen part gave, from the cache or anew.
        activations: fingerprint of the cached activations; empty without.
        shards: that hold them.
        activations_computed: how many this run computed.
        seconds: of each part of the work.
    """

    finished: bool
    head: str
    head_clf: str
    head_metrics: dict[str, SplitMetrics]
    weights: str
    weights_asked: str
    weights_digest: str
    keys: str
    layer: str
    pool: str
    preprocess: dict[str, Any]
    precision: str
    decoder: str
    from_scratch: bool
    unfreeze: str
    boundary: str
    learns: tuple[str, ...]
    places: tuple[str, ...]
    l2: bool
    standalone: bool
    live: bool
    recipe: dict[str, Any]
    settings: dict[str, Any]
    epochs: int
    best_epoch: int
    kept_recipe: str
    augmentation: dict[str, Any]
    decision: dict[str, Any] | None
    beats_head: bool
    compared_on: str
    metrics: dict[str, ModelScores]
    handover: dict[str, float] | None
    moved: dict[str, float]
    history: tuple[EpochFigures, ...]
    uses: int
    activations: str
    shards: tuple[str, ...]
    activations_computed: int
    seconds: dict[str, float]

    def __post_init__(self) -> None:
        """Refuse a record that contradicts itself; see `ResultInfo`."""
        super().__post_init__()
        if self.selected_on not in self.metrics:
            raise ValueError(f"lacks metrics.{self.selected_on:.20}")
        if lost := {"activations", "head", "training", "evaluation"} - set(self.seconds):
            raise ValueError(f"lacks {', '.join(sorted(f'seconds.{part}' for part in lost))}")

    @property
    def summary(self) -> str:
        """Return what it is, for people: `model 0123456789ab (resnet18, layer4 unfrozen)`."""
        how = " from scratch" if self.from_scratch else f", {self.unfreeze} unfrozen"
        return f"model {self.id} ({self.trunk}{how})"

    @property
    def policy(self) -> str | None:
        """Return the name of the policy whose views were drawn; None where it does not say."""
        name = self.augmentation.get("policy")
        return name if isinstance(name, str) else None

    def role(self, split: str) -> str:
        """Return what a split's images did for the model: `chose`, `decided`, or nothing."""
        if not self.metrics[split].selected_on:
            return ""
        return "chose" if self.decision is None or split != self.selected_on else "decided"

    @property
    def kept(self) -> str:
        """Return what of the training is kept, for people."""
        recipe = f"{self.kept_recipe}, " if self.kept_recipe else ""
        if self.decision is None:
            return f"{recipe}epoch {self.best_epoch} of {self.epochs}"
        if not self.best_epoch:
            return "the head"
        share = self.decision["share"]
        way = "" if share == 1 else f", {share:.0%} of the way"
        return f"{recipe}{self.epochs} epoch{'s' * (self.epochs != 1)}{way}"

    @property
    def decided(self) -> str:
        """Return what decided between model and head in a sentence; empty where nothing did."""
        one = self.decision
        if one is None:
            return ""
        if not one["images"]:
            return f"No model was left to compare: the head {self.head} stays best."
        where = "held-out folds of train" if one["on"] == "folds" else one["on"]
        figures = (
            f"on {one['images']:,} images of {where} the model's log-loss is "
            f"{abs(one['gain']):.4f} ± {one['error']:.4f} "
            f"{'lower' if one['gain'] >= 0 else 'higher'}, and {one['model_alone']:,} "
            f"are right with it alone, {one['head_alone']:,} with the head alone"
        )
        if self.beats_head:
            return f"The model is better than its head: {figures}."
        return f"Fine-tuning did not beat the head {self.head}, which stays best: {figures}."

    @property
    def chosen(self) -> ModelScores:
        """Return the scores on the images that chose the epoch."""
        return self.metrics[self.selected_on]
