"""Whether one head or model is better than another by more than chance, on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UsageError
from pipeline.finetuning.model import Model, Predictor, open_predictor
from pipeline.heads import resolve
from pipeline.heads.head import Head
from pipeline.heads.uncertainty import McNemar, mcnemar
from pipeline.images.datasets.given import AnyData, Data, as_data
from pipeline.images.names import counted, joined
from pipeline.inference.labelled import Answers, find_images, images_of, told
from pipeline.inference.options import EvaluateOptions
from pipeline.progress import Progress, Silent
from pipeline.store.cache import Cache
from pipeline.store.table import FeatureTable

#: A difference is called more than chance where it has less than this probability by chance.
LEVEL = 0.05


@dataclass(frozen=True)
class Compared:
    """Two on the same images of one split.

    Attributes:
        split: its name.
        images: n, of a class that both know.
        accuracies: of the first and the second.
        test: McNemar's, or over groups where the images come in groups.
        chosen_by: the one of the two that these images chose, and how many; "" where neither.
    """

    split: str
    images: int
    accuracies: tuple[float, float]
    test: McNemar
    chosen_by: str = ""

    def sentence(self, names: tuple[str, str]) -> str:
        """Return what the figures mean."""
        one, other = self.test.first_alone, self.test.second_alone
        counts = (
            f"On {self.split}, {counted(self.images, 'image')}: {names[0]} "
            f"{self.accuracies[0]:.3f}, {names[1]} {self.accuracies[1]:.3f}. "
        )
        if not one + other:
            return f"{counts}They are right on the same images: nothing tells them apart."
        split = (
            f"{counts}They differ on {counted(one + other, 'image')}: {one:,} right by {names[0]} "
            f"alone, {other:,} by {names[1]} alone; {self.test.name} = {_short(self.test.p)}. "
        )
        if self.chosen_by:
            return (
                f"{split}No conclusion is drawn: {self.chosen_by}, so it looks better here than on "
                "new images. Compare on test, or on other images."
            )
        if self.test.p >= LEVEL:
            return f"{split}The difference may well be chance."
        better = names[0] if one > other else names[1]
        return f"{split}The difference is more than chance: {better} is better."

    def to_json(self, names: tuple[str, str]) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "images": self.images,
            "accuracies": list(self.accuracies),
            "first_alone": self.test.first_alone,
            "second_alone": self.test.second_alone,
            "p": self.test.p,
            "groups": self.test.groups,
            "more_than_chance": None if self.chosen_by else self.test.p < LEVEL,
            "sentence": self.sentence(names),
        }


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `evaluate --compare` found.

    Attributes:
        predictors: the first and the second.
        on: the images' table or folder.
        splits: of the images.
        bad: path and reason of every image that could not be read.
        notes: sentences for the person.
    """

    predictors: tuple[Predictor, Predictor]
    on: str
    splits: tuple[Compared, ...]
    bad: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, str]:
        """Return what the two are called in sentences."""
        one, other = (getattr(p.info, "clf", p.kind) for p in self.predictors)
        return f"{one} {self.predictors[0].id[:6]}", f"{other} {self.predictors[1].id[:6]}"

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "compared": [{"kind": p.kind, "id": p.id, "title": p.title} for p in self.predictors],
            "on": self.on,
            "splits": {one.split: one.to_json(self.names) for one in self.splits},
            "bad": [{"path": path, "reason": reason} for path, reason in self.bad],
            "notes": list(self.notes),
        }


def paired_test(
    first: Head | Model | str | Path,
    second: Head | Model | str | Path,
    images: FeatureTable | AnyData = None,
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
) -> Comparison:
    """Say whether one head or model is better than another by more than chance (McNemar 1947).

    Args:
        first: a `Head` or `Model`, its id or folder, or a kind of head.
        second: another.
        images: as in `evaluate`; without it the table of the first.
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
        For each split both accuracies on the same images, how many only one has right, and p.

    Raises:
        UsageError: the two have no class in common, or an option cannot be right.
        PipelineError: there is no such head or model, or no labelled image that can be read.

    Example:
        >>> import pipeline
        >>> pipeline.paired_test("logreg", "lda").splits  # doctest: +SKIP
    """
    options, store = EvaluateOptions.of(locals()), Cache.at(cache)
    options.check()
    shown = images if isinstance(images, FeatureTable) else as_data(images)
    pair = resolve.find(store, first), resolve.find(store, second)
    return compare_predictors(*pair, shown, options, store)


def compare_predictors(
    first: resolve.Artefact,
    second: resolve.Artefact,
    images: FeatureTable | Data,
    options: EvaluateOptions,
    cache: Cache,
    progress: Progress | None = None,
) -> Comparison:
    """Return whether two differ on the same images by more than chance.

    Args:
        first: a head or model.
        second: another.
        images: as in `evaluate`; without it the table of the first.
        options: of `evaluate`.
        cache: where all are.
        progress: told of the images.
    """
    options.check()
    pair = open_predictor(first, cache), open_predictor(second, cache)
    labelled = find_images(cache, images, pair[0], options, progress or Silent())
    splits: list[Compared] = []
    answers: list[Answers] = []
    notes = labelled.notes
    if labelled.unlabelled:
        notes.append(f"Left out {counted(labelled.unlabelled, 'image')} without a label.")
    for split, rows in labelled.parts().items():
        one, other = (labelled.answers(predictor, split, rows) for predictor in pair)
        answers += [one, other]
        notes += [*one.notes, *other.notes]
        shared, of_one, of_other = np.intersect1d(one.rows, other.rows, return_indices=True)
        if not len(shared):
            raise UsageError(f"The two have no class of {labelled.place} in common.")
        if left_out := sorted({*one.unknown, *other.unknown}):
            notes.append(f"Left out, since one of the two does not know {joined(left_out)}.")
        right = one.right[of_one], other.right[of_other]
        accuracies = float(right[0].mean()), float(right[1].mean())
        digests = {labelled.images.digests[row] for row in shared}
        chosen_by = _chosen_by(cache, pair, digests)
        test = mcnemar(*right, labelled.draws(shared))
        splits.append(Compared(split, len(shared), accuracies, test, chosen_by))
    bad, remarks = told(answers)
    return Comparison(
        pair, labelled.place, tuple(splits), (*labelled.unread, *bad),
        tuple(dict.fromkeys([*notes, *remarks])),
    )  # fmt: skip


def _chosen_by(cache: Cache, pair: tuple[Predictor, ...], digests: set[bytes]) -> str:
    """Return which of two was chosen by more than a twentieth of some images, and how; else ""."""
    chosen = []
    for predictor in pair:
        info = predictor.info
        chose = {name for name, one in info.metrics.items() if one.selected_on}
        splits = {
            "val" if name.startswith("val") else "train" for name in (info.selected_on, *chose)
        }
        images = set().union(*(images_of(cache, predictor, split) for split in splits))
        number = len(digests & images)
        if 20 * number > len(digests):
            what = "the epoch" if predictor.kind == "model" else "the settings"
            title = f"{predictor.kind} {predictor.id[:6]}"
            chosen.append(f"{counted(number, 'image')} of these chose {what} of {title}")
    return " and ".join(dict.fromkeys(chosen))


def _short(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"
