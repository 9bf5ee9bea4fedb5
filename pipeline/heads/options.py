"""`HeadRecipe`: what `fit-head` is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import UsageError
from pipeline.heads import metrics
from pipeline.heads.estimators.normalize import NORMALIZATIONS
from pipeline.heads.registry import HEADS, parse_grid, parse_names
from pipeline.options import faults

_LEAST = {"folds": 2, "shots": 1, "repeats": 0, "views": 0}
_ALLOWED = {
    "select": metrics.SELECTIONS,
    "select_on": ("cv", "val"),
    "normalize": (None, *NORMALIZATIONS),
    "class_weight": (None, "balanced"),
}


@dataclass(frozen=True)
class HeadRecipe:
    """The options of `fit-head`. Equal recipes on one table fit the same heads.

    Args:
        clf: a head's name, several with commas, or `all`.
        folds: of the cross-validation, at least 2.
        grid: values (`0.01,0.1,1`) or a range (`1e-6:1e5:45`) in place of the kind's own.
        normalize: `none`, `standard`, `l2`, or None for each kind's own.
        select: `accuracy`, `balanced-accuracy`, `log-loss` or `f1-macro`.
        select_on: `cv`: folds of train choose; `val`: the val split does, and test is reported.
        shots: train on this many images of each class.
        train_fraction: train on this share of each class, in (0, 1].
        views: augmented views of each training image that are learned from besides.
        class_weight: `balanced`, or None.
        repeats: resplits over which mean and spread are reported besides.
        jobs: processes; None leaves it to `joblib.parallel_config`.
        seed: of folds, subsamples and estimators.
    """

    clf: str = "logreg"
    folds: int = 5
    grid: str | None = None
    normalize: str | None = None
    select: str = "accuracy"
    select_on: str = "cv"
    shots: int | None = None
    train_fraction: float | None = None
    views: int = 0
    class_weight: str | None = None
    repeats: int = 0
    jobs: int | None = None
    seed: int = 0

    def check(self) -> list[str]:
        """Return the names of the heads; refuse values that cannot be right in one message."""
        found = faults(self, least=_LEAST, allowed=_ALLOWED)
        if self.train_fraction is not None and not 0 < self.train_fraction <= 1:
            found.append(f"--train-fraction {self.train_fraction} is not above 0 and at most 1.")
        if self.shots is not None and self.train_fraction is not None:
            found.append("--shots and --train-fraction are two ways to say the same; give one.")
        if self.views and self.repeats:
            found.append(
                "--repeats trains on images of val and test too, which have no views; leave it "
                "out and compare several --seed."
            )
        if self.jobs is not None and self.jobs == 0:
            found.append("--jobs 0 does nothing; give a number, or -1 for all cores.")
        try:
            names = parse_names(self.clf)
            if self.grid is not None:
                parse_grid(self.grid)
                _check_grid(names)
            alone = [n for n in names if not HEADS[n].balanced]
            if self.class_weight and alone == names:
                found.append(f"{', '.join(names)} cannot weigh classes; drop --class-weight.")
        except UsageError as error:
            found.append(str(error))
        if found:
            raise UsageError(" ".join(found))
        return names


def _check_grid(names: Sequence[str]) -> None:
    parameters = {HEADS[name].parameter for name in names}
    if len(parameters) > 1 or None in parameters:
        listed = ", ".join(f"{name}: {HEADS[name].parameter or 'nothing'}" for name in names)
        raise UsageError(
            f"--grid gives values for one parameter, and these heads vary different ones "
            f"({listed}). Fit them one by one."
        )
