"""`Advice`: what was measured of a table, and what follows from it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import plotting
from pipeline.analysis.advising.gains import Gain
from pipeline.analysis.advising.learning_curve import Curve
from pipeline.analysis.advising.quadrant import Recommendation
from pipeline.analysis.advising.similarity import Reference, Similarity
from pipeline.errors import PipelineError
from pipeline.heads.cross_validation.random_baseline import PermutationTest
from pipeline.store.outputs import DRAWN, write_output
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
        values = {**vars(self), "seconds": round(self.seconds, 3)}
        table = values.pop("table")
        of = {"table": str(table.path), "table_id": table.table_id,
              "trunk": table.provenance.trunk}  # fmt: skip
        whole: dict[str, Any] = json.loads(json.dumps(of | values, default=_plain))
        return whole

    def draw(self, path: str | Path) -> None:
        """Write the learning curve and its forecast as a PNG.

        Raises:
            PipelineError: there is no curve, or the file cannot be written.
        """
        if self.curve is None:
            raise PipelineError("There is no learning curve to draw: nothing could be held out.")
        figure = plotting.plain_figure(6.4, 4)
        axes = figure.subplots()
        plotting.forecast_axes(axes, self.curve.to_json(), colours=("C0", "C1", "0.5"))
        axes.spines[["top", "right"]].set_visible(False)
        write_output(Path(path), plotting.png(figure), mark=DRAWN, what=plotting.PICTURE)


def _plain(value: Any) -> Any:
    return value.to_json() if hasattr(value, "to_json") else vars(value)
