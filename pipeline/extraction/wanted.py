"""`WantedImages`: the images of a data set whose rows are wanted, and what cannot be taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from pipeline.errors import PipelineError
from pipeline.images.datasets.imageset import ImageSet
from pipeline.images.decoding.formats import claims
from pipeline.images.sources.address import joined
from pipeline.store.shards import Index, Key


class WantedImages:
    """The images of a data set, whose rows are wanted, and what of it cannot be taken.

    These are files that are no images, and images that cannot be decoded. What is called an image
    and is none counts as a bad one, not as a stray file.

    Args:
        images: that were found, with their digests.
        most: how many files may be bad; None for no limit.

    Attributes:
        keys: (digest, 0) of each image, in data set order.
        sources: each key to the path of the first image that has it, in the same order.
        left_out: path and reason of every stray file.
        total: images found, bad ones included.
    """

    def __init__(self, images: ImageSet, most: int | None):
        self.images, self.most = images, most
        self.keys: list[Key] = [(digest, 0) for digest in images.digests]
        self.files = Counter(self.keys)  # equal files are one row
        self.sources: dict[Key, str | bytes] = {}
        root = str(images.root)
        for key, path in zip(self.keys, images.paths, strict=True):
            self.sources.setdefault(key, joined(root, path))
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
        digests = [self.keys[row][0] for row in np.flatnonzero(train)]
        return [(digest, view) for digest in digests for view in numbers]

    def listed(self, index: Index) -> list[tuple[str, str]]:
        """Return path and reason of every bad file of the data set."""
        paths, reasons = self.images.paths, self.reasons(index)
        return [*((paths[row], reason) for row, reason in reasons.items()), *self.false]

    def reasons(self, index: Index) -> dict[int, str]:
        """Return row to the reason of every image that has no row."""
        return {row: index.bad[key] for row, key in enumerate(self.keys) if key in index.bad}

    def remarks(self, index: Index) -> list[tuple[str, str]]:
        """Return path and remark of every image of which decoding says something."""
        paths = self.images.paths
        return [
            (paths[row], one) for row, said in index.remarked(self.keys).items() for one in said
        ]

    def check(self, index: Index) -> None:
        """Raise a `PipelineError` where more files are bad than are allowed."""
        count = sum(self.files[key] for key in index.bad) + len(self.false)
        if self.most is not None and count > self.most:
            raise PipelineError(
                f"{count} images could not be decoded, and --max-bad allows {self.most}. "
                f"{first(self.listed(index))} Fix or remove them, or allow more; what was computed "
                "is kept."
            )


def first(bad: list[tuple[str, str]], most: int = 5) -> str:
    """Return path and reason of the first few."""
    listed = "; ".join(f"{path}: {reason}" for path, reason in bad[:most])
    more = f"; and {len(bad) - most} more" if len(bad) > most else ""
    return f"{listed}{more}."
