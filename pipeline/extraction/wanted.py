"""`WantedImages`: the images of a data set whose rows are wanted, and what cannot be taken."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.errors import PipelineError
from pipeline.images.datasets.imageset import ImageSet
from pipeline.images.decoding.formats import claims
from pipeline.images.sources.address import joined
from pipeline.sequences import Lazy
from pipeline.store.shards import Index, Key, KeyMap, Keys


class WantedImages:
    """The images of a data set, whose rows are wanted, and what of it cannot be taken.

    These are files that are no images, and images that cannot be decoded. What is called an image
    and is none counts as a bad one, not as a stray file.

    Args:
        images: that were found, with their digests.
        most: how many files may be bad; None for no limit.

    Attributes:
        keys: (digest, 0) of each image, in data set order.
        sources: each key to the path of the first image that has it, in the same order; looked
            up one by one it is slow.
        left_out: path and reason of every stray file.
        total: images found, bad ones included.
    """

    def __init__(self, images: ImageSet, most: int | None):
        self.images, self.most = images, most
        self.keys = Keys.of_digests(images.digests)
        first = self.keys.distinct()  # equal files are one row
        own = self.keys if len(first) == len(self.keys) else self.keys.take(first)
        self.sources: KeyMap[str | bytes] = KeyMap(own, _Files(images, first))
        self.false = [entry for entry in images.left_out if claims(*entry)]
        self.left_out = tuple(entry for entry in images.left_out if not claims(*entry))
        self.total = len(self.keys) + len(self.false)

    def views(self, index: Index | None, numbers: Sequence[int]) -> list[Key]:
        """Return (digest, number) of the views of the labelled training images, in order.

        Args:
            index: that must have a row of each; None for all of them.
            numbers: of the views of an image.
        """
        if not numbers:
            return []
        train = np.array(self.images.splits or (), object) == "train"
        train &= self.images.labels >= 0
        if index is not None:
            train &= index.having(self.keys)
        some = self.keys.take(np.flatnonzero(train))
        return [(digest, view) for digest, _ in some for view in numbers]

    def view_sources(self, index: Index | None, numbers: Sequence[int]) -> dict[Key, str | bytes]:
        """Return the path of each view that `views` returns, in this order."""
        if not (views := self.views(index, numbers)):
            return {}
        sources = dict(self.sources.items())
        return {(digest, view): sources[digest, 0] for digest, view in views}

    def listed(self, index: Index) -> list[tuple[str, str]]:
        """Return path and reason of every bad file of the data set."""
        paths, reasons = self.images.paths, self.reasons(index)
        return [*((paths[row], reason) for row, reason in reasons.items()), *self.false]

    def reasons(self, index: Index) -> dict[int, str]:
        """Return row to the reason of every image that has no row."""
        rows = np.flatnonzero(self.keys.among(index.bad))
        keys = self.keys.take(rows)
        return {row: index.bad[key] for row, key in zip(rows.tolist(), keys, strict=True)}

    def remarks(self, index: Index) -> list[tuple[str, str]]:
        """Return path and remark of every image of which decoding says something."""
        paths = self.images.paths
        return [
            (paths[row], one) for row, said in index.remarked(self.keys).items() for one in said
        ]

    def check(self, index: Index) -> None:
        """Raise a `PipelineError` where more files are bad than are allowed."""
        count = int(self.keys.among(index.bad).sum()) + len(self.false)
        if self.most is not None and count > self.most:
            raise PipelineError(
                f"{count} images could not be decoded, and --max-bad allows {self.most}. "
                f"{first(self.listed(index))} Fix or remove them, or allow more; what was computed "
                "is kept."
            )


class _Files(Lazy[str | bytes]):
    """Where some images of a set lie, made when they are asked for."""

    def __init__(self, images: ImageSet, rows: np.ndarray):
        self.root, self.paths, self.rows = str(images.root), images.paths, rows

    def __len__(self) -> int:
        return len(self.rows)

    def one(self, row: int) -> str:
        """Return where the image of a row lies."""
        return joined(self.root, self.paths[int(self.rows[row])])

    def some(self, rows: slice) -> list[str | bytes]:
        """Return where the images of some rows lie."""
        return [joined(self.root, self.paths[row]) for row in self.rows[rows].tolist()]


def first(bad: list[tuple[str, str]], most: int = 5) -> str:
    """Return path and reason of the first few."""
    listed = "; ".join(f"{path}: {reason}" for path, reason in bad[:most])
    more = f"; and {len(bad) - most} more" if len(bad) > most else ""
    return f"{listed}{more}."
