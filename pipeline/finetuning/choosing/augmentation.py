"""Which augmentation suits the data: measured with the head, before anything learns.

A policy that takes away what tells the classes apart makes a head worse that learns from its views:
digits that are cut off, pictures whose class is their orientation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.finetuning.boundary import collect, reading, wanted_images
from pipeline.finetuning.task import Task, class_weights, solved_by
from pipeline.heads import metrics
from pipeline.heads.cross_validation.search import Plan, search
from pipeline.heads.registry import HEADS
from pipeline.heads.task import make_folds, subsample
from pipeline.heads.uncertainty import mean_error
from pipeline.images.views import CLASSIC, numbers
from pipeline.progress import Progress
from pipeline.store.cache import Cache
from pipeline.trunks.registry import LoadedTrunk
from pipeline.trunks.spec import FeatureKey

#: Training images that are tried on, and views of each.
IMAGES, VIEWS = 400, 2
#: Folds that score the policies.
FOLDS = 3
#: What is taken untried where a head cannot tell: from scratch, and where nothing is frozen.
UNTRIED = CLASSIC


@dataclass(frozen=True)
class PolicyScore:
    """What a head that learns from a policy's views scores on the evaluation view of others.

    Attributes:
        policy: its name.
        log_loss: on held-out images.
        worse: by how much that is above the log-loss without views.
        error: standard error of that difference, paired.
    """

    policy: str
    log_loss: float
    worse: float
    error: float

    @property
    def harms(self) -> bool:
        """Tell whether it is worse than without by more than one standard error."""
        return self.worse > self.error


@dataclass(frozen=True)
class Augmentation:
    """The policy that was chosen, and why.

    Attributes:
        policy: its name.
        images: that the policies were tried on; 0 where nothing was tried.
        scores: of each policy that was tried.
    """

    policy: str
    images: int = 0
    scores: tuple[PolicyScore, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "scores": [asdict(one) for one in self.scores]}


def choose_policy(
    task: Task, cache: Cache, trunk: LoadedTrunk, *, device: str, progress: Progress
) -> Augmentation:
    """Return the boldest policy that does not harm the head, measured on training images.

    Args:
        task: which images, and the head.
        cache: where the views' features are kept.
        trunk: that made the table.
        device: where to compute.
        progress: told what was measured.

    Raises:
        PipelineError: images that must be read are not there, or are others now.
    """
    if task.options.augment != "auto":
        return Augmentation(task.options.augment)
    if task.options.from_scratch:
        return Augmentation(UNTRIED)
    table, rows = task.table, _some(task)
    labels, group_ids = table.labels[rows], task.group_ids[rows]
    folds = make_folds(np.arange(len(rows)), labels, group_ids, count=FOLDS, seed=0)
    if not folds:
        progress.say("Too few training images to try augmentations on: views are shifted a little.")
        return Augmentation("shift")
    tried = {policy: numbers(policy, VIEWS) for policy in ("mirror", "shift", "crop")}
    wanted = wanted_images(task, rows, tuple(n for own in tried.values() for n in own))
    key = FeatureKey.of(table.provenance)
    found = collect(cache, key, wanted, reading(task, device), trunk, progress)
    if found is None or len(found[1].views) < len(wanted.views):
        if found is not None:
            cache.end_run(found[0].key.fingerprint, found[1].every())
        progress.say("There is no room to try augmentations on: views are shifted a little.")
        return Augmentation("shift")
    stored, fitting, lost = found
    digests = [bytes.fromhex(table.digests[row]) for row in rows]
    there = np.array([digest not in lost for digest in digests])
    whole = stored.gather([(digest, 0) for digest in fitting.train])

    def held_out(views: Sequence[int]) -> np.ndarray:
        own = [stored.gather([(digest, n) for digest in fitting.train]) for n in views]
        return _held_out(task, np.stack([whole, *own], 1), labels[there], group_ids[there])

    logits = {"none": held_out(()), **{policy: held_out(own) for policy, own in tried.items()}}
    of = {p: metrics.losses(labels[there], metrics.softmax(own)) for p, own in logits.items()}
    plain, scores = of["none"], []
    groups = np.unique(group_ids[there], return_inverse=True)[1]
    for policy, own in of.items():
        error = mean_error(own - plain, groups)
        scores.append(PolicyScore(policy, float(own.mean()), float((own - plain).mean()), error))
    cache.end_run(stored.key.fingerprint, fitting.every())
    chosen, why = _boldest({one.policy: one for one in scores}, of, groups), ""
    weights = class_weights(task, rows[there])
    if not any(_knows(own, labels[there], weights, groups) for own in logits.values()):
        chosen, why = "shift", f": {BLIND}"
    told = ", ".join(
        f"{one.policy} {one.log_loss:.3f}" + (f" (± {one.error:.3f})" if one.error else "")
        for one in scores
    )
    progress.say(f"Augmentation, log-loss of a head on {len(plain):,} training images: {told}.")
    progress.say(f"Views are {SAID[chosen]}{why}.")
    return Augmentation(chosen, len(plain), tuple(scores))


#: Why bolder views are not taken where no policy seems to do harm.
BLIND = "the head knows no more than how frequent the classes are, and cannot tell what harms"
#: What a policy's views are, for people.
SAID = {
    "none": "not augmented: each way to augment makes the head worse",
    "mirror": "mirrored, and not cropped, which makes the head worse",
    "shift": "shifted and scaled a little, and not mirrored",
    "shift+mirror": "shifted and scaled a little, and mirrored",
    "crop": "crops of a quarter to all of the picture, and not mirrored",
    "crop+mirror": "crops of a quarter to all of the picture, and mirrored",
}


def _boldest(
    scores: dict[str, PolicyScore], losses: dict[str, np.ndarray], groups: np.ndarray
) -> str:
    """Return the policy to take: the boldest of those that do no harm.

    Crops that are worse than small shifts by more than one standard error are passed over, too.
    """
    named = []
    if not scores["crop"].harms:
        behind = losses["crop"] - losses["shift"]
        if scores["shift"].harms or behind.mean() <= mean_error(behind, groups):
            named.append("crop")
    if not named and not scores["shift"].harms:
        named.append("shift")
    if not scores["mirror"].harms:
        named.append("mirror")
    return "+".join(named) or "none"


def _knows(
    logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None, groups: np.ndarray
) -> bool:
    """Tell whether held-out logits [n, K] say more of the labels than the classes' frequencies."""
    counts = np.bincount(labels, minlength=logits.shape[1]) * (1.0 if weights is None else weights)
    guess = np.broadcast_to(counts / counts.sum(), logits.shape)
    own = metrics.softmax(metrics.tempered(logits, labels))
    gain = metrics.losses(labels, guess, weights) - metrics.losses(labels, own, weights)
    return bool(gain.mean() > mean_error(gain, groups))


def _some(task: Task) -> np.ndarray:
    """Return training rows to try on: all, or a stratified part."""
    rows = task.train
    if len(rows) <= IMAGES:
        return rows
    labels, groups = task.table.labels[rows], task.group_ids[rows]
    some = subsample(labels, groups, shots=None, fraction=IMAGES / len(rows), seed=0)
    return np.asarray(rows[some])


def _held_out(
    task: Task, features: np.ndarray, labels: np.ndarray, group_ids: np.ndarray
) -> np.ndarray:
    """Return the logits of each image, [n, K], of heads that it was held out from.

    Args:
        task: whose head's kind and penalty they have.
        features: [n, V, D] of the evaluation view and of others, from which the heads learn;
            scored is the evaluation view.
        labels: [n].
        group_ids: [n].
    """
    info, (images, views, _) = task.head, features.shape
    kind = HEADS[info.clf]
    grid = None
    if kind.parameter is not None:
        value = float(info.parameters[kind.parameter])
        # its loss is a sum over rows: as strong a penalty for more rows of as many images
        grid = (value / views if kind.parameter == "C" else value,)
    folds = make_folds(np.arange(images), labels, group_ids, count=FOLDS, seed=0)
    rows = np.arange(images * views).reshape(images, views)
    parts = [(rows[fitted].ravel(), rows[held, 0]) for fitted, held in folds]
    plan = Plan(
        grid=grid, balanced=task.head.recipe["class_weight"] == "balanced",
        normalize=info.normalize, seed=0, jobs=1,
    )  # fmt: skip
    found = search(
        solved_by(info.clf), features.reshape(images * views, -1), np.repeat(labels, views),
        classes=len(task.table.classes), train=rows.ravel(), folds=parts, plan=plan,
    )  # fmt: skip
    assert found.held is not None
    logits, _, at = found.held
    ordered = np.empty(logits.shape, logits.dtype)
    ordered[np.asarray(at) // views] = logits
    return ordered
