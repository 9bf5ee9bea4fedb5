"""Rows that are not finite: an image's fault, until they are many; then the trunk's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.errors import PipelineError
from pipeline.images.names import counted, shown

#: Share of the images beyond which the trunk is to blame, where more than one is not finite.
MANY = 0.01
#: A batch without one finite row says it at once, if so many images are in it.
WHOLE = 8


def reason(precision: str) -> str:
    """Return why an image has no row whose feature is not finite."""
    return f"its feature is not finite in {precision}"


class FiniteRows:
    """Tells images whose rows are not finite, and ends the run where the trunk is to blame.

    Args:
        trunk: its name.
        precision: that it computes in.
        total: images that are wanted in all; None where nobody knows, as in a stream.
        found: of these, not finite, from earlier runs.
    """

    def __init__(self, trunk: str, precision: str, *, total: int | None = None, found: int = 0):
        self.trunk, self.precision = trunk, precision
        self.total, self.found = total, found
        self.first = ""

    def bad(self, rows: np.ndarray, names: Sequence[str]) -> dict[int, str]:
        """Return position to the reason of each row that is not finite.

        Args:
            rows: of a batch's images, [n, …].
            names: of these images, for people.

        Raises:
            PipelineError: a whole batch is not finite, or more than one image in a hundred.
        """
        if rows.dtype.kind != "f" or not len(rows):
            return {}
        finite = np.isfinite(rows).reshape(len(rows), -1).all(1)
        if finite.all():
            return {}
        at = np.flatnonzero(~finite).tolist()
        self.first = self.first or shown(names[at[0]])
        self.found += len(at)
        whole = len(at) == len(rows) >= WHOLE
        many = self.total is not None and self.found > max(1, MANY * self.total)
        if whole or many:
            raise PipelineError(self._sentence(len(at)))
        return dict.fromkeys(at, reason(self.precision))

    def _sentence(self, in_batch: int) -> str:
        if self.total is None or self.found == in_batch >= WHOLE:
            which = f"All {in_batch} images of a batch"
        else:
            which = f"{self.found:,} of {counted(self.total, 'image')}"
        way = (
            "Use another trunk or other weights." if self.precision == "fp32"
            else "Give --precision fp32."
        )  # fmt: skip
        return (
            f"{which} have features that are not finite in {self.precision}, {self.first} first: "
            f"{self.trunk} is to blame and not the images. {way}"
        )
