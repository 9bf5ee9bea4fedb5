"""How long nothing takes: `pipeline --help`, and a run over data that are all in the cache.

    python scripts/bench_startup.py [CHECKOUT …] [--data DATA] [--runs N] [--json]

Medians of whole processes, the two commands and a bare interpreter in turn; of each CHECKOUT of
this repository (this one unless told) in the same turn, so that versions can be compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def seconds(command: list[str], checkout: Path) -> float:
    """Return the wall time of a command of a checkout, which must succeed."""
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=checkout)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkouts", nargs="*", type=Path, default=[Path(__file__).parents[1]])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    data = str(Path(asked.data).resolve()) if Path(asked.data).exists() else asked.data
    with tempfile.TemporaryDirectory() as caches:
        module = [sys.executable, "-m", "pipeline"]
        commands: dict[tuple[Path, str], list[str]] = {}
        for number, checkout in enumerate(asked.checkouts):
            extract = [*module, "extract", data, "--cache", f"{caches}/{number}", "--json"]
            first = subprocess.run(
                extract, check=True, capture_output=True, text=True, cwd=checkout
            )
            commands[checkout, "python -c pass"] = [sys.executable, "-c", "pass"]
            commands[checkout, "pipeline --help"] = [*module, "--help"]
            commands[checkout, "pipeline extract, warm"] = extract
        times: dict[tuple[Path, str], list[float]] = {key: [] for key in commands}
        for _ in range(asked.runs):
            for (checkout, name), command in commands.items():
                times[checkout, name].append(seconds(command, checkout))
    images = json.loads(first.stdout)["images"]
    medians = {
        str(checkout): {
            name: statistics.median(taken) for (of, name), taken in times.items() if of == checkout
        }
        for checkout in asked.checkouts
    }
    if asked.json:
        print(json.dumps({"images": images, "seconds": medians}))
        return
    print(f"{images} images, medians of {asked.runs} runs in turn")
    for checkout, found in medians.items():
        print(checkout)
        for name, value in found.items():
            print(f"  {name:<24} {value:.3f} s")


if __name__ == "__main__":
    main()
