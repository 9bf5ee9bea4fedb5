"""How long commands take that compute little or nothing, old and new in turn.

    python scripts/bench_startup.py [CHECKOUT …] [--data DATA] [--runs N] [--only WORDS] [--json]

Medians of whole processes, processor seconds and wall time, every command of each CHECKOUT of this
repository (this one unless told) in turn, so that versions can be compared. Each has a cache of its
own with the features of DATA and a head; everything is in it but for `report`, whose page is
written anew, and for the cold commands, which take FEW of its pictures and an empty cache.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FEW = 8
#: What a person waits for that is refused: exit code 1 or 2, and no traceback.
REFUSED = ("a refused trunk", "a refused option", "an unknown head")


class Taken(NamedTuple):
    """Seconds of a process."""

    processor: float
    wall: float


def run(command: list[str], checkout: Path, *, fails: bool = False) -> Taken:
    """Return what a command of a checkout took, which must succeed, or be refused."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
    )  # fmt: skip
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if (done.returncode not in (1, 2) if fails else done.returncode) or "Traceback" in done.stderr:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Taken(used, wall)


def commands(data: str, picture: str, few: Path, cache: str) -> Iterator[tuple[str, list[str]]]:
    """Yield what is measured, by name; the first two make the cache."""
    within = ["--cache", cache]
    cold = ["extract", str(few), "--cache", f"{cache}-cold"]
    predict = ["predict", "logreg", picture, *within]
    yield "extract, warm", ["extract", data, *within]
    yield "fit-head, fitted already", ["fit-head", "--clf", "logreg", *within]
    yield "--help", ["--help"]
    yield "predict one picture", predict
    yield "predict one picture, --engine torch", [*predict, "--engine", "torch"]
    yield "evaluate", ["evaluate", "logreg", *within]
    yield "trunks mobilenet", ["trunks", "mobilenet"]
    yield "a refused trunk", ["extract", data, "--trunk", "resnet19", *within]
    yield "a refused option", ["extract", data, "--layer", "layer9", *within]
    yield "an unknown head", ["predict", "0123456789ab", picture, *within]
    yield "report", ["report", *within]
    yield "extract, cold", cold
    yield "extract, cold, ResNet-18", [*cold, "--trunk", "resnet18", "--weights", "random"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkouts", nargs="*", type=Path, default=[Path(__file__).parents[1]])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--picture", help="predicted; one of DATA's without it")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--only", default="", help="commands whose name holds this")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    data = str(Path(asked.data).resolve()) if Path(asked.data).exists() else asked.data
    checkouts = [checkout.resolve() for checkout in asked.checkouts]
    times: dict[tuple[Path, str], list[Taken]] = {}
    with tempfile.TemporaryDirectory() as caches:
        for number, checkout in enumerate(checkouts):
            cache = f"{caches}/{number}"
            making = [words for _, words in commands(data, "", Path(), cache)][:2]
            for words in making:
                run([sys.executable, "-m", "pipeline", *words], checkout)
        folder = Path(data if Path(data).exists() else f"{caches}/0/data/{data}")
        kinds = (".jpg", ".jpeg", ".png")
        pictures = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in kinds]
        picture, few = asked.picture or str(pictures[0]), Path(caches) / "few"
        few.mkdir()
        for place, path in enumerate(pictures[:: -(-len(pictures) // FEW)]):
            shutil.copy(path, few / f"{place}{path.suffix}")
        for _ in range(asked.runs):
            for number, checkout in enumerate(checkouts):
                for name, words in commands(data, picture, few, f"{caches}/{number}"):
                    if asked.only in name:
                        shutil.rmtree(f"{caches}/{number}-cold", ignore_errors=True)
                        command = [sys.executable, "-m", "pipeline", *words]
                        taken = run(command, checkout, fails=name in REFUSED)
                        times.setdefault((checkout, name), []).append(taken)
    found = {
        str(checkout): {
            name: Taken(*map(statistics.median, zip(*taken, strict=True)))._asdict()
            for (of, name), taken in times.items()
            if of == checkout
        }
        for checkout in checkouts
    }
    if asked.json:
        print(json.dumps({"runs": asked.runs, "seconds": found}))
        return
    print(f"medians of {asked.runs} runs in turn, seconds: processor (wall)")
    for name in next(iter(found.values())):
        each = (found[str(checkout)][name] for checkout in checkouts)
        cells = [f"{one['processor']:7.3f} ({one['wall']:.3f})" for one in each]
        print(f"  {name:<36} {'  '.join(cells)}")


if __name__ == "__main__":
    main()
