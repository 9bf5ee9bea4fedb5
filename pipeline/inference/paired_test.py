"""Whether one head or model is better than another by more than chance, on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import UsageError
from pipeline.finetuning.predictor import Predictor
from pipeline.heads import resolve
from pipeline.heads.metrics import McNemar, mcnemar
from pipeline.images.names import counted, joined
from pipeline.inference import answers
from pipeline.inference.evaluate import EvaluateRecipe, seen_notes
from pipeline.inference.predictors import open_predictor
from pipeline.progress import Progress, Silent
from pipeline.store.cache import Cache

#: A difference is called more than chance where it has less than this probability by chance.
LEVEL = 0.05


@dataclass(frozen=True)
class Compared:
    """Two on the same images of one split.

    Attributes:
        split: its name.
        images: n, of a class that both know.
        accuracies: of the first and the second.
        test: McNemar's.
    """

    split: str
    images: int
    accuracies: tuple[float, float]
    test: McNemar

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
            f"alone, {other:,} by {names[1]} alone; exact McNemar p = {_short(self.test.p)}. "
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
            "more_than_chance": self.test.p < LEVEL,
            "sentence": self.sentence(names),
        }


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `evaluate --compare` found.

    Attributes:
        predictors: the first and the second.
        on: the images' table or folder.
        splits: of the images.
        notes: sentences for the person.
    """

    predictors: tuple[Predictor, Predictor]
    on: str
    splits: tuple[Compared, ...]
    notes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, str]:
        """Return what the two are called in sentences."""
        one, other = (f"{p.info.get('clf', p.kind)} {p.id[:6]}" for p in self.predictors)
        return one, other

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "compared": [{"kind": p.kind, "id": p.id, "title": p.title} for p in self.predictors],
            "on": self.on,
            "splits": {one.split: one.to_json(self.names) for one in self.splits},
            "notes": list(self.notes),
        }


def compare(
    first: resolve.Artefact,
    second: resolve.Artefact,
    data: str | None,
    recipe: EvaluateRecipe,
    cache: Cache,
    progress: Progress | None = None,
) -> Comparison:
    """Return whether two differ on the same images by more than chance.

    Args:
        first: a head or model.
        second: another.
        data: as in `evaluate`; without it the table of the first.
        recipe: the options.
        cache: where all are.
        progress: told of the images.
    """
    progress = progress or Silent()
    recipe.check()
    pair = tuple(open_predictor(one, cache) for one in (first, second))
    images, table = answers.find(
        cache, data, pair[0], data=recipe.data, workers=recipe.workers, progress=progress
    )
    on = answers.place(images, table)
    splits: list[Compared] = []
    notes = answers.unlabelled_note(images)
    for split, rows in answers.parts(images, recipe.split).items():
        right: list[dict[int, bool]] = []
        left_out: list[str] = []
        for predictor in pair:
            said = answers.answer(
                predictor, images, rows, table=table, means=recipe, cache=cache, progress=progress
            )
            hits = said.logits.argmax(1) == said.labels
            right.append(dict(zip(said.rows.tolist(), hits.tolist(), strict=True)))
            left_out += said.unknown
            notes += [*said.notes, *seen_notes(cache, predictor, images, split, said)]
        shared = [at for at in right[0] if at in right[1]]
        one, other = (np.array([hits[at] for at in shared], bool) for hits in right)
        if not shared:
            raise UsageError(f"The two have no class of {on} in common.")
        if left_out:
            notes.append(
                f"Left out, since one of the two does not know {joined(sorted(set(left_out)))}."
            )
        accuracies = float(one.mean()), float(other.mean())
        splits.append(Compared(split, len(shared), accuracies, mcnemar(one, other)))
    return Comparison((pair[0], pair[1]), on, tuple(splits), tuple(dict.fromkeys(notes)))


def _short(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"
