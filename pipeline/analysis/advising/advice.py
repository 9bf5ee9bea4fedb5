"""`Advice`: what was measured of a table, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.analysis.advising.gains import Gain
from pipeline.analysis.advising.learning_curve import Curve
from pipeline.analysis.advising.quadrant import Recommendation, Similarity
from pipeline.errors import PipelineError
from pipeline.heads.cross_validation.random_baseline import PermutationTest
from pipeline.store.table import FeatureTable


@dataclass(frozen=True)
class Size:
    """How large a data set is, in training images with a label.

    Attributes:
        images: N.
        classes: that have training images.
        smallest: images of the smallest class.
        median: of the median class.
        largest: of the largest class.
        looked_at: images that everything below is measured on, N or a stratified part of them.
    """

    images: int
    classes: int
    smallest: int
    median: float
    largest: int
    looked_at: int


@dataclass(frozen=True)
class Reference:
    """The table's features beside those of the same trunk with random weights, on a sample.

    Attributes:
        images: of the sample.
        linear: share that a linear head has right by cross-validation, with the table's features.
        random_linear: with random weights.
        neighbours: share whose nearest other image is of their class, with the table's features.
        random_neighbours: with random weights.
    """

    images: int
    linear: float
    random_linear: float
    neighbours: float
    random_neighbours: float


@dataclass(frozen=True, eq=False)
class Advice:
    """What `advise` found.

    Attributes:
        table: that it was asked about.
        size: how large.
        majority: share of the commonest class.
        neighbours: leave-one-out nearest neighbour.
        linear: cross-validated linear head; None where no folds can be made.
        reference: None where there are no features with random weights.
        similarity: to the source task.
        curve: None where nothing can be held out.
        gains: of fine-tuning, where it was tried.
        recommendation: what to run.
        notes: sentences for the person.
        seconds: of the whole run.
    """

    table: FeatureTable
    size: Size
    majority: float
    neighbours: PermutationTest
    linear: PermutationTest | None
    reference: Reference | None
    similarity: Similarity
    curve: Curve | None
    gains: tuple[Gain, ...]
    recommendation: Recommendation
    notes: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "table": str(self.table.path),
            "table_id": self.table.table_id,
            "trunk": self.table.provenance.trunk,
            "size": vars(self.size),
            "majority": self.majority,
            "neighbours": self.neighbours.to_json(),
            "linear": None if self.linear is None else self.linear.to_json(),
            "reference": None if self.reference is None else vars(self.reference),
            "similarity": self.similarity.to_json(),
            "curve": None if self.curve is None else self.curve.to_json(),
            "gains": [gain.to_json() for gain in self.gains],
            "recommendation": self.recommendation.to_json(),
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
        }

    def draw(self, path: str | Path) -> None:
        """Write the learning curve and its forecast as a PNG.

        Raises:
            PipelineError: there is no curve, or the file cannot be written.
        """
        from pipeline.analysis.advising.curve_picture import draw

        if self.curve is None:
            raise PipelineError("There is no learning curve to draw: nothing could be held out.")
        draw(Path(path), self.curve)
