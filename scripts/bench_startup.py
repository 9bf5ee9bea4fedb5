"""How long nothing takes: `pipeline --help`, and a run over data that are all in the cache.

    python scripts/bench_startup.py [--data DATA] [--runs N] [--json]

Medians of whole processes, the two commands and a bare interpreter in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time


def seconds(command: list[str]) -> float:
    """Return the wall time of a command that must succeed."""
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        module = [sys.executable, "-m", "pipeline"]
        extract = [*module, "extract", asked.data, "--cache", cache, "--json"]
        first = subprocess.run(extract, check=True, capture_output=True, text=True)
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "pipeline --help": [*module, "--help"],
            "pipeline extract, warm": extract,
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(asked.runs):
            for name, command in commands.items():
                times[name].append(seconds(command))
    medians = {name: statistics.median(values) for name, values in times.items()}
    if asked.json:
        print(json.dumps({"images": json.loads(first.stdout)["images"], "seconds": medians}))
        return
    print(f"{json.loads(first.stdout)['images']} images, medians of {asked.runs} runs in turn")
    for name, value in medians.items():
        print(f"  {name:<24} {value:.3f} s")


if __name__ == "__main__":
    main()
