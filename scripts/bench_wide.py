"""`fit-head --clf linear` on a table larger than the memory it may take: seconds, memory, regret.

    python scripts/bench_wide.py [--rows 200000] [--features 1280] [--classes 1000] [--pass]
                                 [--folder DIR] [--json]

Makes a table of float16 features from a known model, in chunks, and lets `fit-head` choose and
fit on it: the regret is how far its log-loss on 5,000 further images is above the known model's.
`--pass` times one pass of the solver over the rows in place of the whole. Memory is the largest
RssAnon of /proc/self/status, sampled every 20 ms: pages of the process's own, without those of the
mapped table, which the system can drop. The aim is 4 GB. Progress goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.heads.cross_validation.linear_search import LinearSearch
from pipeline.heads.estimators.normalize import Normalized, Normalizer
from pipeline.heads.fit_head import fit_heads
from pipeline.heads.metrics import softmax
from pipeline.heads.options import FitHeadOptions
from pipeline.heads.solver.objective import Objective
from pipeline.progress import Silent
from pipeline.store.cache import Cache
from pipeline.store.records import Provenance
from pipeline.store.table import FeatureTable

HELD, CHUNK = 5000, 4096
#: Between the means of two classes, in standard deviations along the line that joins them: the
#: known model then takes about four images in five of a thousand classes for what they are.
DISTANCE = 6.0


def make(folder: Path, rows: int, dim: int, classes: int) -> tuple[FeatureTable, np.ndarray]:
    """Write a table of `rows` training and `HELD` test images; return it and what is known.

    A class is a mean with the same Gaussian noise around as the others', so the true probabilities
    are a softmax of linear scores. From the first feature to the last the noise falls tenfold, and
    so do the means, in units of the noise.

    Returns:
        The table, mapped, and the true probabilities [HELD, classes] of its test images.
    """
    rng = np.random.default_rng(0)
    scale = np.logspace(0, -1, dim, dtype=np.float32)
    size = DISTANCE / (2 * np.square(scale).sum()) ** 0.5
    means = rng.standard_normal((classes, dim), np.float32) * scale * size
    total = rows + HELD
    labels = rng.integers(0, classes, total)
    raw = np.memmap(folder / "raw", np.float16, "w+", shape=(total, dim))
    for first in range(0, total, CHUNK):
        own = labels[first : first + CHUNK]
        noise = rng.standard_normal((len(own), dim), np.float32)
        raw[first : first + CHUNK] = (means[own] + noise) * scale
    table = FeatureTable(
        features=raw,
        labels=labels,
        splits=("train",) * rows + ("test",) * HELD,
        paths=tuple(f"{n}" for n in range(total)),
        digests=tuple(f"{n:064x}" for n in range(total)),
        classes=tuple(f"{k:04}" for k in range(classes)),
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
            dtype="float16",
            augment="",
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
    held = np.asarray(table.features[rows:], np.float32) / scale
    return table, softmax(held @ means.T - np.square(means).sum(1) / 2)


class Log(Silent):
    """Prints what is done, with the seconds since the start and the memory."""

    def __init__(self) -> None:
        self.began = time.perf_counter()

    def update(self, text: str) -> None:
        """Print a line."""
        seconds, memory = time.perf_counter() - self.began, own_memory() / 1e9
        print(f"{seconds:8.0f} s {memory:6.2f} GB  {text}", file=sys.stderr, flush=True)

    def say(self, sentence: str) -> None:
        """Print a line."""
        self.update(sentence)


class Peak:
    """The largest memory of the process's own while a block runs, in bytes."""

    def __enter__(self) -> Peak:
        self.bytes = own_memory()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.bytes = max(self.bytes, own_memory())


def own_memory() -> int:
    """Return the process's resident memory without mapped files, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) << 10
    raise RuntimeError("This system does not tell RssAnon.")


def whole(table: FeatureTable, known: np.ndarray, folder: Path, log: Log) -> dict[str, Any]:
    """Fit a head as `fit-head --clf linear` does, and compare it with the known model."""
    options = FitHeadOptions(clf="linear")
    (head,) = fit_heads(table, options, Cache.at(folder / "cache"), log).heads
    held = table.rows("test")
    y = table.labels[held]
    every = np.arange(len(held))
    ours = head.predict_proba(table.features[held])
    missing = np.log(known[every, y]) - np.log(ours[every, y])
    return {
        "choice": head.info.parameters["C"],
        "trials": [
            {"C": one["parameters"]["C"], "score": one["score"], "log_loss": one["log_loss"]}
            for one in head.info.trials
        ],
        "notes": list(head.info.notes),
        "accuracy": float((ours.argmax(1) == y).mean()),
        "known_accuracy": float((known.argmax(1) == y).mean()),
        "log_loss": float(-np.log(ours[every, y]).mean()),
        "known_log_loss": float(-np.log(known[every, y]).mean()),
        "regret": float(missing.mean()),
        "regret_error": float(missing.std() / len(y) ** 0.5),
    }


def one_pass(table: FeatureTable, log: Log) -> dict[str, Any]:
    """Time what comes before a fit of all rows, and one value and gradient of its objective."""
    train, classes = table.rows("train"), len(table.classes)
    y = table.labels[train]
    seconds: dict[str, float] = {}
    began = time.perf_counter()
    normalizer = Normalizer.fit("standard", table.features, train)
    seconds["normalizer"] = time.perf_counter() - began
    log.update("normalizer")
    began = time.perf_counter()
    rows = Normalized(normalizer, table.features, train)
    design = LinearSearch(rows, y, [], classes, balanced=False).design
    seconds["design"] = time.perf_counter() - began
    log.update("design")
    place = design.device
    C = torch.ones(1, dtype=torch.float64, device=place)
    fold = torch.zeros(1, dtype=torch.int64, device=place)
    ones = torch.ones(1, len(y), device=place)
    U = torch.zeros(1, classes * design.width, device=place)
    objective = Objective(design, torch.from_numpy(y).to(place), ones, classes)
    log.update("one pass")
    began = time.perf_counter()
    float(objective(C, fold, U)[0])
    seconds["pass"] = time.perf_counter() - began
    return {"resident": design.resident, "parts": seconds}


def measure(folder: Path, rows: int, dim: int, classes: int, *, single: bool) -> dict[str, Any]:
    """Make the table, do the work, and return what was measured."""
    log = Log()
    log.update("making the table")
    table, known = make(folder, rows, dim, classes)
    log.update("made")
    began = time.perf_counter()
    with Peak() as peak, torch.inference_mode():
        found = one_pass(table, log) if single else whole(table, known, folder, log)
    seconds = time.perf_counter() - began
    return {
        "rows": rows, "features": dim, "classes": classes, "seconds": seconds,
        "table_bytes": table.features.nbytes, "peak_bytes": peak.bytes, **found,
    }  # fmt: skip


def main() -> None:
    """Run it and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--features", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--pass", action="store_true", dest="single")
    parser.add_argument("--folder", type=Path, help="for the table; else a temporary one")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        found = measure(
            Path(folder), asked.rows, asked.features, asked.classes, single=asked.single
        )
    if asked.json:
        print(json.dumps(found))
        return
    print(
        f"{found['rows']:,}×{found['features']:,}, {found['classes']:,} classes: "
        f"{found['seconds']:.0f} s, {found['peak_bytes'] / 1e9:.2f} GB at most beside the mapped "
        f"table of {found['table_bytes'] / 1e9:.2f} GB"
    )
    if asked.single:
        print(", ".join(f"{name} {seconds:.1f} s" for name, seconds in found["parts"].items()))
        return
    print(
        f"C = {found['choice']:.3g}; accuracy {found['accuracy']:.4f} (the known model "
        f"{found['known_accuracy']:.4f}), log-loss {found['log_loss']:.4f} "
        f"({found['known_log_loss']:.4f}), regret {found['regret']:.4f} ± "
        f"{found['regret_error']:.4f}"
    )
    print(*found["notes"], sep="\n")


if __name__ == "__main__":
    main()
