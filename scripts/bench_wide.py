"""`linear` on a table larger than the memory it may take: seconds, and bytes beside the table.

    python scripts/bench_wide.py [--rows 200000] [--features 2048] [--folder DIR] [--json]

Makes a table of random classes in chunks, then searches 13 penalties over 3 folds as `fit-head`
does. The aim is 20 minutes on two cores and 4 GB beside what the table maps. Memory is the
largest RssAnon of /proc/self/status, sampled every 20 ms: pages of the process's own, without
those of mapped files, which the system can drop; less what it was before the search.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.heads import task as folding
from pipeline.heads.cross_validation.search import Plan, search
from pipeline.store.records import Provenance
from pipeline.store.table import FeatureTable

CLASSES, FOLDS = 10, 3
PENALTIES = tuple(np.logspace(-5, 1, 13))
CHUNK = 4096


def make(folder: Path, rows: int, features: int) -> FeatureTable:
    """Write a table of rows × features around 10 class means and return it, mapped."""
    rng = np.random.default_rng(0)
    scale = (np.arange(1, features + 1) ** -0.5).astype(np.float32)
    # 2.1 / √D leaves about one row in ten between the classes
    means = rng.standard_normal((CLASSES, features), np.float32) * scale * 2.1 / features**0.5
    labels = rng.integers(0, CLASSES, rows)
    raw = np.memmap(folder / "raw", np.float32, "w+", shape=(rows, features))
    for first in range(0, rows, CHUNK):
        own = labels[first : first + CHUNK]
        noise = rng.standard_normal((len(own), features), np.float32)
        raw[first : first + CHUNK] = means[own] + noise * scale
    table = FeatureTable(
        features=raw,
        labels=labels,
        splits=("train",) * rows,
        paths=tuple(f"{n}" for n in range(rows)),
        digests=tuple(f"{n:064x}" for n in range(rows)),
        classes=tuple(f"{k}" for k in range(CLASSES)),
        groups=None,
        shards=(),
        provenance=Provenance(
            fingerprint="0" * 64,
            key={},
            trunk="none",
            weights="none",
            weights_digest="",
            weights_asked="none",
            keys="name",
            layer="feature",
            pool="own",
            precision="fp32",
            decoder="libjpeg-turbo",
            preprocess={},
            data="wide",
            root=str(folder),
            seed=0,
            command="scripts/bench_wide.py",
            cache=str(folder),
            engine="none",
            cost=None,
            versions={},
            created="",
        ),
    ).write(folder / "wide.h5")
    (folder / "raw").unlink()
    return table


class Peak:
    """The process's own memory while a block runs, in bytes beside what it had before."""

    def __enter__(self) -> Peak:
        self.before = self.most = own_memory()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.most = max(self.most, own_memory())

    @property
    def added(self) -> int:
        """Return the largest growth, in bytes."""
        return self.most - self.before


def own_memory() -> int:
    """Return the process's resident memory without mapped files, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) << 10
    raise RuntimeError("This system does not tell RssAnon.")


def measure(folder: Path, rows: int, features: int) -> dict[str, Any]:
    """Make the table, search it, and return what was measured."""
    table = make(folder, rows, features)
    fold = folding.assign(table.labels, np.arange(rows), FOLDS, 0)
    pairs = [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(FOLDS)]
    with Peak() as peak:
        found = search(
            "linear", table.features, table.labels, classes=CLASSES, train=np.arange(rows),
            folds=pairs, plan=Plan(grid=PENALTIES),
        )  # fmt: skip
    return {
        "rows": rows,
        "features": features,
        "seconds": found.seconds,
        "table_bytes": table.features.nbytes,
        "peak_bytes": peak.added,
        "choice": found.chosen.parameters["C"],
        "accuracy": found.chosen.score,
        "converged": all(trial.converged for trial in found.trials),
    }


def main() -> None:
    """Run it and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--folder", type=Path, help="for the table; else a temporary one")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        found = measure(Path(folder), asked.rows, asked.features)
    if asked.json:
        print(json.dumps(found))
        return
    print(
        f"{found['rows']:,}×{found['features']:,}, {len(PENALTIES)} penalties × {FOLDS} folds: "
        f"{found['seconds']:.0f} s, {found['peak_bytes'] / 1e9:.2f} GB beside the table of "
        f"{found['table_bytes'] / 1e9:.2f} GB; C = {found['choice']:.3g}, accuracy "
        f"{found['accuracy']:.4f}, {'all' if found['converged'] else 'not all'} converged"
    )


if __name__ == "__main__":
    main()
