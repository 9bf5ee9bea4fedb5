"""`Gallery`: images that can be shown, of a table or of DATA."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import UsageError, nearest
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.scan import gather
from pipeline.images.names import class_name, joined, shown
from pipeline.progress import Progress
from pipeline.reporting.pictures import root_of
from pipeline.store.cache import Cache
from pipeline.store.table import FeatureTable

SPLITS = ("train", "val", "test", "all")
#: What images without a label stand under.
UNLABELLED = "(no label)"


@dataclass(frozen=True, eq=False)
class Gallery:
    """N images. Equal only when identical.

    Attributes:
        name: of the data, for people and for a file's name.
        root: folder that paths are relative to.
        paths: N.
        digests: N sha256, 32 bytes each.
        labels: int64 [N]; −1 where there is none.
        splits: N of `train`, `val`, `test` or "".
        classes: K names.
    """

    name: str
    root: Path
    paths: tuple[str, ...]
    digests: tuple[bytes, ...]
    labels: np.ndarray
    splits: tuple[str, ...]
    classes: tuple[str, ...]

    def rows(self, *, split: str | None, labels: Sequence[int]) -> np.ndarray:
        """Return the rows of a split (None for all) and of some classes (none for all), sorted.

        Raises:
            UsageError: there is no such split, or nothing in it.
        """
        names = np.array(self.splits, dtype=object)
        there = [name for name in SPLITS if (names == name).any()]
        if split not in (None, "all", *there):
            have = joined(there) if there else "no splits"
            raise UsageError(f"--split {split}: {self.name} has {have}; or give all.")
        wanted = np.ones(len(names), bool) if split in (None, "all") else names == split
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
        number = {class_name(name): k for k, name in enumerate(self.classes)}
        unknown = [name for name in names if class_name(name) not in number]
        if unknown:
            have = joined([shown(name) for name in self.classes])
            raise UsageError(
                f"--class '{shown(unknown[0])}' is no class of {self.name}: it has {have}."
                f"{shown(nearest(unknown[0], self.classes))}"
            )
        return [number[class_name(name)] for name in names]

    def title(self, label: int) -> str:
        """Return a class's name."""
        return self.classes[label] if label >= 0 else UNLABELLED

    def file(self, row: int) -> str:
        """Return where an image lies."""
        return os.path.join(self.root, self.paths[row])


def of_table(table: FeatureTable, data: str | None = None) -> Gallery:
    """Return the images of a table.

    Args:
        table: names them.
        data: folder in which they lie now; None for where they were.
    """
    name = "the table" if table.path is None else table.path.stem.split("--")[0]
    return Gallery(
        name=name,
        root=root_of(table, data),
        paths=table.paths,
        digests=tuple(bytes.fromhex(digest) for digest in table.digests),
        labels=table.labels,
        splits=table.splits,
        classes=table.classes,
    )


def of_data(word: str, cache: Cache, progress: Progress) -> Gallery:
    """Return the images of a folder, a CSV or TSV file or a built-in set.

    Splits and left-out files are those that `extract` with its defaults would have.
    """
    images, digests = gather(word, ExtractOptions(), cache, progress)
    return Gallery(
        name=images.name,
        root=images.root,
        paths=images.paths,
        digests=tuple(digests),
        labels=images.labels,
        splits=images.splits or ("",) * len(images.paths),
        classes=images.classes,
    )
