"""What stands on a contact sheet: which images, in which order, and what is said of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.images.datasets.imageset import ImageSet
from pipeline.images.names import counted
from pipeline.images.views import CLASSIC, numbers
from pipeline.reporting.options import MOST

#: Up to so many classes each has its own section; beyond, the pictures stand side by side with
#: their classes' names.
SECTIONS = 20
#: Views of the policy that are shown of an image, beside the evaluation view, where it has so many:
#: as many as `finetune` keeps.
VIEWS = 4


@dataclass(frozen=True)
class Item:
    """An image of a sheet.

    Attributes:
        row: of the image set.
        captions: lines under it.
        view: its number; None for the whole picture.
        right: whether it was predicted right; None where nothing was predicted.
        facts: what `--json` says of it, besides where it lies.
    """

    row: int
    captions: tuple[str, ...] = ()
    view: int | None = None
    right: bool | None = None
    facts: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Content:
    """What stands on a sheet.

    Attributes:
        title: of the sheet.
        notes: what a person must know to read it rightly.
        sections: heading and items.
        columns: items beside each other.
    """

    title: str
    notes: tuple[str, ...]
    sections: tuple[tuple[str, tuple[Item, ...]], ...]
    columns: int

    @property
    def items(self) -> Iterator[Item]:
        """Yield every item, in order."""
        for _, items in self.sections:
            yield from items


def classes(images: ImageSet, rows: np.ndarray, *, count: int | None, seed: int | None) -> Content:
    """Return the first images of each class, or some at random.

    Args:
        images: the images.
        rows: those of them that may be shown.
        count: images of each class; None for 8, of many classes fewer.
        seed: of a random choice; None for the first.
    """
    rng = None if seed is None else np.random.default_rng(seed)
    labels = np.unique(images.labels[rows])
    labels = np.concatenate([labels[labels >= 0], labels[labels < 0]])  # without a label: last
    few, notes = len(labels) <= SECTIONS, []
    each = count or (8 if few else max(1, min(4, 120 // len(labels))))
    if few:
        each = min(each, MOST // len(labels))
    elif len(labels) * each > MOST:
        most, how = MOST // each, "evenly spread" if rng is None else "at random"
        notes.append(f"{most} of {len(labels):,} classes, {how}; --class names others.")
        spread = np.linspace(0, len(labels) - 1, most).round().astype(np.int64)
        labels = labels[spread] if rng is None else np.array(_some(labels, most, rng))
    sections = []
    for label in labels.tolist():
        own = rows[images.labels[rows] == label]
        caption = () if few else (images.title(label),)
        items = tuple(Item(row, caption) for row in _some(own, each, rng))
        sections.append((f"{images.title(label)}   {counted(len(own), 'image')}", items))
    several = counted(each, "image")
    title = f"{images.name}: the first {'image' if each == 1 else several} of each class"
    if rng is not None:
        title = f"{images.name}: {several} of each class, at random (seed {seed})"
    if few:
        columns = max(4, min(8, max(len(items) for _, items in sections)))
        return Content(title, tuple(notes), tuple(sections), columns)
    together = ("", tuple(item for _, items in sections for item in items))
    columns = 12 if 12 % each == 0 else 16 // each * each or 16
    return Content(title, tuple(notes), (together,), columns)


def views(
    images: ImageSet,
    rows: np.ndarray,
    *,
    count: int | None,
    seed: int | None,
    trunk: str,
    policy: str = CLASSIC,
) -> Content:
    """Return images as a trunk sees them: the evaluation view, and the views of a policy that it
    learns from when it is fine-tuned.

    Args:
        images: the images.
        rows: those of them that may be shown.
        count: images; None for 6.
        seed: of a random choice; None for the first of each class in turn.
        trunk: its name.
        policy: of `pipeline.images.views.POLICIES`.
    """
    drawn = (0, *numbers(policy, VIEWS))
    rng = None if seed is None else np.random.default_rng(seed)
    most = MOST // (VIEWS + 1)
    chosen = _some(_in_turn(images.labels, rows), min(count or 6, most), rng)
    sections = []
    for row in chosen:
        items = tuple(
            Item(row, (f"view {at}" if at else "evaluation",), number, facts=(("view", at),))
            for at, number in enumerate(drawn)
        )
        sections.append((f"{images.title(int(images.labels[row]))}   {images.paths[row]}", items))
    title = f"{images.name}: as {trunk} sees {counted(len(chosen), 'image')}"
    others = "has no others" if len(drawn) == 1 else "gives the others, always the same ones"
    note = f"View 0 is evaluated; the policy {policy} {others}."
    return Content(title, (note,), tuple(sections), columns=len(drawn))


def predictions(
    images: ImageSet,
    rows: np.ndarray,
    probabilities: np.ndarray,
    *,
    title: str,
    count: int | None,
    seed: int | None,
    wrong: bool,
) -> Content:
    """Return predictions with their labels: the wrong ones, then right ones.

    Args:
        images: the images.
        rows: [n], those that were predicted, all labelled.
        probabilities: probabilities [n, K].
        title: of what predicted.
        count: images of each section; None for 16, or 48 with `wrong`.
        seed: of a random choice; None for the surest mistakes, and the first right ones of each
            class in turn.
        wrong: mistakes alone.
    """
    rng = None if seed is None else np.random.default_rng(seed)
    most = min(count or (48 if wrong else 16), MOST // 2)
    predicted, labels = probabilities.argmax(1), images.labels[rows]
    bad, good = np.flatnonzero(predicted != labels), np.flatnonzero(predicted == labels)
    bad = bad[np.argsort(-probabilities[bad].max(1), kind="stable")]
    good = _in_turn(labels, good)
    parts = [(False, bad)] if wrong else [(False, bad), (True, good)]
    sections = []
    for right, positions in parts:
        items = tuple(
            _predicted(images, int(rows[at]), probabilities[at], right)
            for at in _some(positions, most, rng)
        )
        if items:
            sections.append((_heading(right, len(items), len(positions), seed), items))
    notes = [f"{len(good):,} of {counted(len(rows), 'image')} right ({len(good) / len(rows):.1%})."]
    if not sections:
        notes.append("No mistakes.")
    return Content(title, tuple(notes), tuple(sections), columns=8)


def _predicted(images: ImageSet, row: int, probabilities: np.ndarray, right: bool) -> Item:
    guess, label = int(probabilities.argmax()), int(images.labels[row])
    first = f"{probabilities[guess]:.2f} {images.classes[guess]}"
    second = () if right else (f"is {images.classes[label]} ({probabilities[label]:.2f})",)
    facts = (
        ("prediction", images.classes[guess]),
        ("confidence", float(probabilities[guess])),
        ("right", right),
    )
    return Item(row, (first, *second), None, right, facts)


def _heading(right: bool, shown: int, total: int, seed: int | None) -> str:
    if right:
        return f"Right   {shown:,} of {total:,}"
    how = "" if shown == total else ", the surest first" if seed is None else ", at random"
    return f"Wrong   {shown:,} of {total:,}{how}"


def _some(rows: np.ndarray, most: int, rng: np.random.Generator | None) -> list[int]:
    """Return the first rows, or some at random in their order."""
    if rng is not None and len(rows) > most:
        rows = rows[np.sort(rng.choice(len(rows), most, replace=False))]
    return [int(row) for row in rows[:most]]


def _in_turn(labels: np.ndarray | Sequence[int], rows: np.ndarray) -> np.ndarray:
    """Return rows so that the classes take turns: the first of each first."""
    own = np.asarray(labels)[rows]
    turn = np.empty(len(rows), np.int64)
    for label in np.unique(own):
        turn[own == label] = np.arange((own == label).sum())
    return np.asarray(rows[np.lexsort((own, turn))])
