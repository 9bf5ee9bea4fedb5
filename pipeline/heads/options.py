"""`FitHeadOptions`: what `fit-head` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline import clusters
from pipeline.errors import UsageError
from pipeline.heads import metrics
from pipeline.heads.estimators.described import describe, is_estimator, short
from pipeline.heads.estimators.normalize import NORMALIZATIONS
from pipeline.heads.registry import kind_of, parse_grid, parse_names
from pipeline.options import Options, option, shared


@dataclass(frozen=True, kw_only=True)
class FitHeadOptions(Options):
    """The options of `fit-head`. Equal options on one table fit the same heads.

    Args:
        clf: linear, logreg, ridge, svm, svm-rbf, lda, nb, knn, ncm, mlp, or all.
        folds: Folds of the training images that choose.
        grid: Values to try in place of the head's own, such as 1e-6:1e5:45.
        normalize: What is done to features first. [default: what the head wants]
        select: What the best head is best in.
        select_on: Choose by folds of train, or by the val split and report test.
        shots: Train on K images of each class.
        train_fraction: Train on this share of each class.
        views: Learn from V augmented views of each training image besides (`extract --views
            V --augment POLICY`).
        class_weight: Weigh classes by 1 / their share.
        compare_all: Look for near-copies among more than 20,000 images too.
        repeats: Repeat on R other splits of the same images; report mean and spread.
        jobs: Processes. [default: all cores]
        on: dask: processes of a Dask cluster on this machine; tcp://HOST:PORT: those of a running
            Dask scheduler, which see the table at the same place. For scikit-learn's kinds.
        seed: Of folds, samples and estimators.
    """

    clf: str = option("logreg", metavar="NAME[,NAME…]|all")
    folds: int = option(5, metavar="N", least=2)
    grid: str | None = option(None, metavar="V,V…|LOW:HIGH:COUNT")
    normalize: str | None = option(None, choices=NORMALIZATIONS)
    select: str = option("accuracy", choices=metrics.SELECTIONS)
    select_on: str = option("cv", choices=("cv", "val"))
    shots: int | None = option(None, metavar="K", least=1)
    train_fraction: float | None = option(None, metavar="F", within="(0, 1]")
    views: int = option(0, metavar="V", least=0)
    class_weight: str | None = option(None, choices=("balanced",))
    compare_all: bool = option(False)
    repeats: int = option(0, metavar="R", least=0)
    jobs: int | None = shared("jobs")
    on: str | None = option(None, metavar=clusters.METAVAR, changes=False)
    seed: int = option(0, least=0)

    def __post_init__(self) -> None:
        """Take an estimator, or several, as the text that it can be made from again."""
        clf: Any = self.clf
        if is_estimator(clf):
            object.__setattr__(self, "clf", describe(clf))
        elif isinstance(clf, list | tuple):
            given = [describe(one) if is_estimator(one) else one for one in clf]
            object.__setattr__(self, "clf", given)
        super().__post_init__()

    @property
    def names(self) -> list[str]:
        """Return the names of the heads.

        Raises:
            UsageError: one is not known.
        """
        return parse_names(self.clf)

    def conflicts(self) -> list[str]:
        """Return a sentence for each value that does not fit the others, or the heads."""
        faults = []
        if self.shots is not None and self.train_fraction is not None:
            faults.append("--shots and --train-fraction are two ways to say the same; give one.")
        if self.views and self.repeats:
            faults.append(
                "--repeats trains on images of val and test too, which have no views; leave it "
                "out and compare several --seed."
            )
        faults += clusters.fault(self.on)
        if self.on is not None and self.jobs is not None:
            faults.append("--jobs is for this machine, and --on takes all that its workers have.")
        if self.jobs == 0:
            faults.append("--jobs 0 does nothing; give a number, or -1 for all cores.")
        try:
            names = self.names
            if self.grid is not None:
                parse_grid(self.grid)
                parameters = {short(name): kind_of(name).parameter or "nothing" for name in names}
                varied = set(parameters.values())
                if len(varied) > 1 or varied == {"nothing"}:
                    listed = ", ".join(f"{name}: {of}" for name, of in parameters.items())
                    raise UsageError(
                        "--grid gives values for one parameter, and these heads vary different "
                        f"ones ({listed}). Fit them one by one."
                    )
            if self.class_weight and not any(kind_of(name).balanced for name in names):
                faults.append(
                    f"{', '.join(map(short, names))} cannot weigh classes; drop --class-weight."
                )
        except UsageError as error:
            faults.append(str(error))
        return faults
