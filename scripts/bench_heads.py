"""`linear` against `logreg`: the default penalties on the same folds, objective and time.

    python scripts/bench_heads.py TABLE… [--repeats N] [--json]

Both search the default grid over five folds of the training images, on features standardised
once, and score every penalty on the held-out folds: `linear` by the solver of this project,
`logreg` by scikit-learn as `fit-head` runs it, in two processes that are there already. They take
turns in one run; imports and a first round are outside the clock; medians. The objective is
compared with scikit-learn's run to convergence in float64, on the first fold.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.heads.cross_validation.candidates import Fold, Workers, out_of_fold
from pipeline.heads.cross_validation.linear_search import LinearSearch
from pipeline.heads.estimators.normalize import Normalized, Normalizer
from pipeline.heads.registry import HEADS
from pipeline.heads.task import group_ids_of, make_folds
from pipeline.store.table import FeatureTable

FOLDS, JOBS = 5, 2


def linear(x: Normalized, y: np.ndarray, folds: Sequence[Fold], classes: int) -> LinearSearch:
    """Score every penalty on every fold by our solver; return it, with what it solved."""
    solver = LinearSearch(x, y, folds, classes, balanced=False)
    for _ in solver.out_of_fold(HEADS["linear"].candidates()):
        pass
    return solver


def logreg(x: np.ndarray, y: np.ndarray, folds: Sequence[Fold], classes: int) -> None:
    """Do the same with scikit-learn's."""
    for _ in out_of_fold(
        "logreg", HEADS["logreg"].candidates(), x, y, folds, classes=classes, balanced=False,
        seed=0, workers=Workers(JOBS),
    ):  # fmt: skip
        pass


def objective(W: np.ndarray, b: np.ndarray, x: np.ndarray, y: np.ndarray, C: float) -> float:
    """Return C Σ ce + ½‖W‖², of two classes for the one vector that their difference is."""
    z = x @ W.T + b
    top = z.max(1)
    ce = np.log(np.exp(z - top[:, None]).sum(1)) + top - z[np.arange(len(y)), y]
    return float(C * ce.sum() + np.square(W).sum() * (1 if len(W) == 2 else 0.5))


def gaps(x: Normalized, y: np.ndarray, folds: Sequence[Fold], classes: int) -> list[float]:
    """Return how far each penalty's objective is above the optimum, as a share, on one fold."""
    fitted = folds[0][0]
    rows, own = x.take(fitted), np.asarray(x[fitted], np.float64)
    solver = LinearSearch(rows, y[fitted], [], classes, balanced=False)
    exact = HEADS["logreg"].make(0, False)
    exact.set_params(tol=1e-9, max_iter=50_000)
    found = []
    for parameters in HEADS["linear"].candidates():
        C = parameters["C"]
        W, b = HEADS["logreg"].linear(exact.set_params(C=C).fit(own, y[fitted]))
        ours = objective(*solver.fit(parameters), own, y[fitted], C)
        found.append(ours / objective(W, b, own, y[fitted], C) - 1)
    return found


def compare(table: FeatureTable, repeats: int) -> dict[str, Any]:
    """Return what one table shows."""
    train = table.rows("train")
    y, classes, every = table.labels[train], len(table.classes), np.arange(len(train))
    folds = make_folds(every, y, group_ids_of(table)[train], count=FOLDS, seed=0)
    normalizer = Normalizer.fit("standard", table.features, train)
    x = Normalized(normalizer, table.features, train)
    copied = normalizer.apply(table.features, train)
    seconds: dict[str, list[float]] = {"linear": [], "logreg": []}
    for number in range(repeats + 1):
        for name, run, own in (("linear", linear, x), ("logreg", logreg, copied)):
            began = time.perf_counter()
            run(own, y, folds, classes)  # type: ignore[operator]
            if number:  # the first round loads kernels and starts processes
                seconds[name].append(time.perf_counter() - began)
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    return {
        "images": len(train), "features": x.shape[1], "classes": classes,
        "seconds": {name: statistics.median(own) for name, own in seconds.items()},
        "ratio": statistics.median(ratios), "ratios": ratios,
        "objective_gap": max(gaps(x, y, folds, classes)),
    }  # fmt: skip


def main() -> None:
    """Run the comparisons and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", type=Path, metavar="TABLE")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = {path.stem: compare(FeatureTable.open(path), asked.repeats) for path in asked.tables}
    if asked.json:
        print(json.dumps(found))
        return
    for name, one in found.items():
        print(
            f"{name}: {one['images']:,}×{one['features']:,}, {one['classes']} classes: linear "
            f"{one['seconds']['linear']:.2f} s, logreg {one['seconds']['logreg']:.2f} s, "
            f"{one['ratio']:.1f} times as fast; objective at most {one['objective_gap']:.1e} "
            "above the optimum"
        )


if __name__ == "__main__":
    main()
