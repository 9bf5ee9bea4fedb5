"""`ImageSet`: images with what is known of each, from a folder, a listing or a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UsageError, nearest
from pipeline.images.datasets import split
from pipeline.images.names import SPLITS, class_name, counted, joined, listed, safe, shown
from pipeline.images.sources.address import joined as joined_address
from pipeline.sequences import Digests

#: What stands for all splits together, and for the class of images without a label.
ALL, UNLABELLED = "all", "(no label)"


@dataclass(frozen=True)
class Entry:
    """One image: its path, class ("" unknown), split ("" none) and group ("" none)."""

    path: str
    label: str = ""
    split: str = ""
    group: str = ""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """N images with what is known of each, in data set order.

    Two are equal when they are the same object.

    Attributes:
        name: the folder's or listing's name, safe as part of a file's name.
        root: absolute, without symbolic links, or as text the address of a folder or archive of
            another machine; `root / path` is the file, or leads into an archive.
        paths: N, relative to `root`, separated by `/`, as the system gives them
            (`surrogateescape`). Sorted by bytes for a folder, in the file's order for a listing.
            A listing's absolute path outside `root` begins with `../`.
        labels: int64 [N], index into `classes`; -1 where the label is unknown.
        classes: K names, sorted; each has at least one image.
        splits: N of `train`, `val`, `test`, or "" for an image without a label that the data
            give no split; None where the data give none at all and it is to be assigned.
        groups: N group names, "" for an image without a group; None without groups.
        digests: N sha256 of the files; empty where they are not known yet.
        fractions: of val and test, where the splits were assigned by them.
        left_out: (path, reason) of each file or folder that is not an image of the set.
        notes: sentences for the person.
    """

    name: str
    root: str | Path
    paths: Sequence[str]
    labels: np.ndarray
    classes: tuple[str, ...]
    splits: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None
    digests: Digests = field(default_factory=lambda: Digests.of(()))
    fractions: tuple[float, float] | None = None
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of_entries(
        cls,
        name: str,
        root: str | Path,
        entries: Sequence[Entry],
        left_out: Sequence[tuple[str, str]],
    ) -> ImageSet:
        """Return the set of some images, in this order.

        The set has splits where an image has one, or where there is no class to split by; it has
        groups where an image has one.
        """
        classes = sorted({entry.label for entry in entries} - {""})
        number = {label: index for index, label in enumerate(classes)}
        given = not classes or any(entry.split for entry in entries)
        grouped = any(entry.group for entry in entries)
        return cls(
            name=safe(name),
            root=root,
            paths=tuple(entry.path for entry in entries),
            labels=np.array([number.get(entry.label, -1) for entry in entries], np.int64),
            classes=tuple(classes),
            splits=tuple(entry.split for entry in entries) if given else None,
            groups=tuple(entry.group for entry in entries) if grouped else None,
            left_out=tuple(left_out),
        )

    def take(self, rows: Sequence[int]) -> ImageSet:
        """Return the set of these rows, with everything else as it is."""
        kept: dict[str, Any] = {"labels": self.labels[np.asarray(rows, np.int64)]}
        if self.digests:
            kept["digests"] = self.digests.take(rows)
        for name in ("paths", "splits", "groups"):
            if values := getattr(self, name):
                kept[name] = tuple(values[row] for row in rows)
        return replace(self, **kept)

    def file(self, row: int) -> str:
        """Return where an image lies."""
        return joined_address(self.root, self.paths[row])

    def title(self, label: int) -> str:
        """Return a class's name."""
        return self.classes[label] if label >= 0 else UNLABELLED

    @property
    def split_names(self) -> list[str]:
        """The splits that have images, of `train`, `val` and `test`."""
        return [name for name in SPLITS if name in (self.splits or ())]

    def rows(self, *, split: str | None = None, labels: Sequence[int] = ()) -> np.ndarray:
        """Return the rows of a split (None or `all` for all) and of some classes, ascending.

        Args:
            split: `train`, `val`, `test`, `all` or None.
            labels: of the classes; none for all.

        Raises:
            UsageError: there is no such split, or nothing in it.
        """
        if split not in (None, ALL, *self.split_names):
            have = joined(self.split_names) or "no splits"
            raise UsageError(f"--split {split}: {self.name} has {have}; or give all.")
        wanted = np.ones(len(self.paths), bool)
        if split not in (None, ALL):
            wanted = np.array(self.splits, dtype=object) == split
        if labels:
            wanted &= np.isin(self.labels, labels)
        if not wanted.any():
            raise UsageError(f"No image of {self.name} is of these classes and in this split.")
        return np.flatnonzero(wanted)

    def find_classes(self, names: Sequence[str]) -> list[int]:
        """Return the labels of classes given by name.

        Raises:
            UsageError: there is no such class.
        """
        number = {class_name(name): label for label, name in enumerate(self.classes)}
        unknown = [name for name in names if class_name(name) not in number]
        if unknown:
            have = joined([shown(name) for name in self.classes])
            raise UsageError(
                f"--class '{shown(unknown[0])}' is no class of {self.name}: it has {have}."
                f"{shown(nearest(unknown[0], self.classes))}"
            )
        return [number[class_name(name)] for name in names]

    def without(self, reasons: Mapping[int, str]) -> ImageSet:
        """Return the set without some rows: left out with a reason, classes and notes made anew.

        A class that loses all its images is no longer a class.

        Args:
            reasons: row → why it is left out.
        """
        if not reasons:
            return self
        kept = self.take([row for row in range(len(self.paths)) if row not in reasons])
        left_out = tuple((self.paths[row], reason) for row, reason in sorted(reasons.items()))
        left = np.unique(kept.labels[kept.labels >= 0])
        place = np.full(len(self.classes) + 1, -1, np.int64)  # the last answers to label -1
        place[left] = np.arange(len(left))
        lost = [name for label, name in enumerate(self.classes) if place[label] < 0]
        kept = replace(
            kept,
            labels=place[kept.labels],
            classes=tuple(self.classes[label] for label in left.tolist()),
            left_out=self.left_out + left_out,
        )
        return kept.noted(self, *no_images(lost))

    def noted(self, before: ImageSet, *more: str) -> ImageSet:
        """Return the set with the notes of an earlier one, those of `class_notes` made anew."""
        old = class_notes(before)
        notes = tuple(note for note in before.notes if note not in old)
        return replace(self, notes=(*notes, *more, *class_notes(self)))


def no_images(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the note on classes that have a folder or a label and no image."""
    if not classes:
        return ()
    return (f"No image of {listed(classes)}: not among the classes.",)


def class_notes(images: ImageSet) -> tuple[str, ...]:
    """Return what a person should know of classes and splits.

    Classes that are alone, scarce, or not in every split; equal files in two classes or splits,
    where digests are known.
    """
    labels, classes = images.labels, images.classes
    counts = np.bincount(labels[labels >= 0], minlength=len(classes))
    notes = []
    if len(classes) == 1:
        notes.append(f"There is only one class, {listed(classes)}: nothing to tell apart.")
    if unknown := int((labels < 0).sum()):
        many = "No image has a label." if unknown == len(labels) else ""
        notes.append(many or f"{unknown:,} of {counted(len(labels), 'image')} have no label.")
    if single := [name for name, count in zip(classes, counts, strict=True) if count == 1]:
        notes.append(f"Only one image of {listed(single)}.")
    notes += _two_classes(images)
    if images.splits is None:
        return tuple(notes)
    if images.fractions is not None:
        val, test = images.fractions
        return (*notes, *split.notes(images.splits, labels, classes, val=val, test=test))
    missing = []
    splits = np.array(images.splits, dtype=object)
    for name in images.split_names:
        here = np.unique(labels[(splits == name) & (labels >= 0)])
        if 0 < len(here) < len(classes):
            gone = np.setdiff1d(np.arange(len(classes)), here)
            missing.append(f"{name} lacks {listed([classes[i] for i in gone.tolist()])}")
    if missing:
        notes.append(f"The classes differ between the splits: {'; '.join(missing)}.")
    if images.digests:
        files = [images.file(row) for row in range(len(images.paths))]
        notes += split.leaks(images.digests, images.splits, files)
    return tuple(notes)


def _two_classes(images: ImageSet) -> list[str]:
    """Return the note on files of several classes that hold the same bytes."""
    first: dict[bytes, int] = {}
    twice: dict[bytes, int] = {}
    for row, digest in enumerate(images.digests):
        if images.labels[row] < 0:
            continue
        if images.labels[first.setdefault(digest, row)] != images.labels[row]:
            twice.setdefault(digest, row)
    if not twice:
        return []
    digest, row = next(iter(twice.items()))
    pair = listed([images.paths[first[digest]], images.paths[row]])
    stand = "stands" if len(twice) == 1 else "stand"
    return [
        f"{counted(len(twice), 'image')} {stand} in two classes with the same bytes, such as "
        f"{pair}: `pipeline audit` lists them."
    ]
