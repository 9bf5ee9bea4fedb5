"""What augmented views bring to heads: the same images with 0, 4 and 8 views each.

    pipeline extract DATA --views 8
    python scripts/bench_views.py [TABLE] [--shots 5,10,20] [--views 0,4,8] [--clf linear,lda]
                                  [--seeds 10] [--cache DIR] [--json]

For each number of images a class and each seed the same images are drawn with every number of
views. Reported is the accuracy on val and test together, which choose nothing: its mean over the
seeds, and the difference to no views, seed by seed, with its 95% interval (Student's t).
"""

from __future__ import annotations

import argparse
import json
import tempfile

import numpy as np
from scipy import stats

from pipeline.heads.fit_head import fit_head
from pipeline.store.cache import Cache
from pipeline.store.result_records import HeadInfo


def accuracy(info: HeadInfo) -> float:
    """Return the accuracy on all reported images."""
    parts = [(values.images, values.accuracy) for values in info.metrics.values()]
    return sum(n * a for n, a in parts) / sum(n for n, _ in parts)


def gain(found: list[float], without: list[float]) -> tuple[float, float]:
    """Return the mean difference and half of its 95% interval."""
    each = np.array(found) - without
    if len(each) < 2:
        return float(each.mean()), float("nan")
    half = stats.t.ppf(0.975, len(each) - 1) * each.std(ddof=1) / np.sqrt(len(each))
    return float(each.mean()), float(half)


def numbers(text: str) -> list[int]:
    """Return the whole numbers of `5,10,20`."""
    return [int(word) for word in text.split(",")]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", nargs="?")
    parser.add_argument("--shots", type=numbers, default=[5, 10, 20])
    parser.add_argument("--views", type=numbers, default=[0, 4, 8])
    parser.add_argument("--clf", default="linear,lda")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--cache")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    table = Cache.at(args.cache).open_table(args.table)
    rows = []
    with tempfile.TemporaryDirectory() as heads:
        for clf in args.clf.split(","):
            for shots in args.shots:
                found: dict[int, list[float]] = {}
                for views in args.views:
                    found[views] = [
                        accuracy(
                            fit_head(
                                table, clf, shots=shots, views=views, seed=seed, jobs=1, cache=heads
                            ).info
                        )
                        for seed in range(args.seeds)
                    ]
                for views, values in found.items():
                    more, half = gain(values, found[args.views[0]])
                    row = {
                        "clf": clf, "shots": shots, "views": views, "mean": float(np.mean(values)),
                        "spread": float(np.std(values, ddof=1)), "gain": more, "half": half,
                        "accuracies": values,
                    }  # fmt: skip
                    rows.append(row)
                    if not args.json:
                        print(
                            f"{clf:8} {shots:3} images a class, {views} views: "
                            f"{row['mean']:.4f} ± {row['spread']:.4f}, "
                            f"{100 * more:+.2f} ± {100 * half:.2f} points",
                            flush=True,
                        )
    if args.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
