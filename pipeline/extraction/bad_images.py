"""What of a data set is in no table: images that cannot be decoded, and what is no image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.images.datasets.imageset import ImageSet
from pipeline.images.decoding.formats import NOT_AN_IMAGE, SUFFIXES
from pipeline.store.shards import Index, Key


class BadImages:
    """What cannot be taken: files that are no images, and images that cannot be decoded.

    What is called an image and is none counts as a bad one, not as a stray file.

    Args:
        images: that were found.
        digests: of each.
        most: how many files may be bad; None for no limit.
    """

    def __init__(self, images: ImageSet, digests: Sequence[bytes], most: int | None):
        self.keys: list[Key] = [(digest, 0) for digest in digests]
        self.paths, self.most = images.paths, most
        self.files = Counter(self.keys)  # equal files are one row
        self.false = [entry for entry in images.left_out if _claims(*entry)]
        self.left_out = tuple(entry for entry in images.left_out if not _claims(*entry))
        self.total = len(self.keys) + len(self.false)

    def listed(self, index: Index) -> list[tuple[str, str]]:
        """Return path and reason of every bad file of the data set."""
        pairs = zip(self.paths, self.keys, strict=True)
        return [*((path, index.bad[key]) for path, key in pairs if key in index.bad), *self.false]

    def check(self, index: Index) -> None:
        """Raise a `PipelineError` where more files are bad than are allowed."""
        count = sum(self.files[key] for key in index.bad) + len(self.false)
        if self.most is not None and count > self.most:
            raise PipelineError(
                f"{count} images could not be decoded, and --max-bad allows {self.most}. "
                f"{first(self.listed(index))} Fix or remove them, or allow more; what was computed "
                "is kept."
            )


def _claims(path: str, reason: str) -> bool:
    return reason == NOT_AN_IMAGE and Path(path).suffix.lower() in SUFFIXES


def first(bad: list[tuple[str, str]], most: int = 5) -> str:
    """Return path and reason of the first few."""
    listed = "; ".join(f"{path}: {reason}" for path, reason in bad[:most])
    more = f"; and {len(bad) - most} more" if len(bad) > most else ""
    return f"{listed}{more}."
