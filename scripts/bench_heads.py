"""`linear` against scikit-learn's `LogisticRegressionCV`: the same penalties, the same folds.

    python scripts/bench_heads.py --table NAME=FILE … [--synthetic] [--repeats N] [--json]

Both search 45 penalties from 1e-6 to 1e5 over 5 folds of the training images, score every
penalty on the held-out folds and fit the best on all, on features standardised once on train.
scikit-learn: warm-started, max_iter=2000, tol=1e-4, two jobs. The two take turns; medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.heads import task as folding
from pipeline.heads.estimators.normalize import Normalizer
from pipeline.heads.solver.design import Design
from pipeline.heads.solver.sweep import sweep
from pipeline.store.table import FeatureTable

PENALTIES = np.logspace(-6, 5, 45)
FOLDS = 5


def tables(given: list[str], synthetic: bool) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield name, standardised training features [N, D] and labels [N]."""
    for item in given:
        name, _, path = item.partition("=")
        table = FeatureTable.open(Path(path))
        rows = table.rows("train")
        x = Normalizer.fit("standard", table.features, rows).apply(table.features, rows)
        yield name, x, table.labels[rows]
    if synthetic:
        rng = np.random.default_rng(0)
        scale = np.arange(1, 513) ** -0.5
        means = rng.normal(size=(10, 512)) * scale * 0.55
        y = rng.integers(0, 10, 20_000)
        x = (means[y] + rng.normal(size=(20_000, 512)) * scale).astype(np.float32)
        yield "synthetic", ((x - x.mean(0)) / x.std(0)).astype(np.float32), y


def ours(x: np.ndarray, y: np.ndarray, fold: np.ndarray) -> dict[str, Any]:
    """Search with the sweep; return seconds, accuracies [P], choice and weights."""
    classes = int(y.max()) + 1
    began = time.perf_counter()
    design = Design(x, groups=fold)  # once, as in `fit-head`
    found = sweep(design, y, penalties=PENALTIES, n_classes=classes, folds=fold)
    right = (found.scores().argmax(2) == y).mean(1)
    best = int(np.argmax(right))
    sweep(design, y, penalties=[PENALTIES[best]], n_classes=classes)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "accuracy": right,
        "choice": float(PENALTIES[best]),
        "weights": found.weights(),
        "bias": found.bias(),
    }


def theirs(x: np.ndarray, y: np.ndarray, fold: np.ndarray) -> dict[str, Any]:
    """Search with scikit-learn; return the same."""
    from sklearn.linear_model import LogisticRegressionCV

    pairs = [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(FOLDS)]
    model = LogisticRegressionCV(
        Cs=PENALTIES, cv=pairs, max_iter=2000, tol=1e-4, n_jobs=2, scoring="accuracy",
        use_legacy_attributes=False, l1_ratios=(0,),
    )  # fmt: skip
    began = time.perf_counter()
    model.fit(x, y)
    seconds = time.perf_counter() - began
    paths = np.asarray(model.coefs_paths_).reshape(FOLDS, len(PENALTIES), -1, x.shape[1] + 1)
    scores = np.asarray(model.scores_).reshape(FOLDS, len(PENALTIES))
    sizes = np.bincount(fold)
    weights, bias = paths[..., :-1].swapaxes(0, 1), paths[..., -1].swapaxes(0, 1)
    if weights.shape[2] == 1:
        weights = np.concatenate([-weights / 2, weights / 2], 2)
        bias = np.concatenate([-bias / 2, bias / 2], 2)
    return {
        "seconds": seconds,
        "accuracy": (scores * sizes[:, None]).sum(0) / sizes.sum(),
        "choice": float(np.ravel(model.C_)[0]),
        "weights": weights,
        "bias": bias,
    }


def objectives(found: dict[str, Any], x: np.ndarray, y: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return C Σ ce + ½‖W‖² of each penalty, summed over the folds, float64 [P]."""
    total = np.zeros(len(PENALTIES))
    wide = x.astype(np.float64)
    for p, penalty in enumerate(PENALTIES):
        for f in range(FOLDS):
            w, b = found["weights"][p, f].astype(np.float64), found["bias"][p, f]
            rows = fold != f
            z = wide[rows] @ w.T + b
            top = z.max(1)
            ce = np.log(np.exp(z - top[:, None]).sum(1)) + top - z[np.arange(len(z)), y[rows]]
            # two classes are stored as [−w/2, w/2]: ‖w‖² is twice the sum of both squares
            norm = np.square(w).sum() * (2 if len(w) == 2 else 1)
            total[p] += penalty * ce.sum() + norm / 2
    return total


def compare(x: np.ndarray, y: np.ndarray, repeats: int) -> dict[str, Any]:
    """Return what one data set showed."""
    fold = folding.assign(y, np.arange(len(y)), FOLDS, 0)
    ours(x, y, fold)  # once outside the clock: the library loads its kernels
    rounds = [(ours(x, y, fold), theirs(x, y, fold)) for _ in range(repeats)]
    mine, other = rounds[-1]
    gap = objectives(mine, x, y, fold) / objectives(other, x, y, fold) - 1
    off = np.abs(mine["accuracy"] - other["accuracy"])
    upto = PENALTIES <= 100.001
    seconds = [statistics.median(r[i]["seconds"] for r in rounds) for i in (0, 1)]
    return {
        "images": len(y),
        "features": x.shape[1],
        "classes": int(y.max()) + 1,
        "seconds": {"linear": seconds[0], "scikit-learn": seconds[1]},
        "ratio": statistics.median(b["seconds"] / a["seconds"] for a, b in rounds),
        "objective_gap_up_to_100": float(gap[upto].max()),
        "objective_gap_beyond": float(gap[~upto].max()),
        "accuracy_gap": float(off.max()),
        "choice": {"linear": mine["choice"], "scikit-learn": other["choice"]},
        "best_accuracy": {
            "linear": float(mine["accuracy"].max()), "scikit-learn": float(other["accuracy"].max()),
        },
        "by_penalty": [
            {"C": float(c), "objective_gap": float(g), "linear": float(a), "scikit-learn": float(b)}
            for c, g, a, b in zip(
                PENALTIES, gap, mine["accuracy"], other["accuracy"], strict=True
            )
        ],
    }  # fmt: skip


def main() -> None:
    """Run the comparisons and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--synthetic", action="store_true", help="20,000×512 with 10 classes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = {n: compare(x, y, asked.repeats) for n, x, y in tables(asked.table, asked.synthetic)}
    if asked.json:
        print(json.dumps(found, indent=1))
        return
    for name, values in found.items():
        seconds, choice = values["seconds"], values["choice"]
        print(
            f"{name}: {values['images']:,}×{values['features']:,}, {values['classes']} classes\n"
            f"  linear {seconds['linear']:.2f} s, scikit-learn {seconds['scikit-learn']:.2f} s, "
            f"{values['ratio']:.1f} times as fast\n"
            f"  objective above scikit-learn's at most {values['objective_gap_up_to_100']:+.4%} up "
            f"to C = 100, {values['objective_gap_beyond']:+.4%} beyond\n"
            f"  cross-validated accuracy differs by at most {values['accuracy_gap']:.4f}\n"
            f"  choice C = {choice['linear']:.3g} and {choice['scikit-learn']:.3g}"
        )


if __name__ == "__main__":
    main()
