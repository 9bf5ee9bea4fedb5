"""All that a GPU can show in one call of under ten minutes: right, how fast, and what limits it.

    python scripts/bench_gpu.py [--images 50000] [--trunks resnet50,timm/vit_base_patch16_224]
                                [--precisions fp32,bf16,fp16] [--minutes 9] [--device cuda] [--json]

Needs this folder and what Headstart needs, weights are random. It runs tests/test_cuda.py (where
pytest is installed), makes JPEGs of 500×375, and for each trunk and precision measures images a
second of: decoding alone, copying to the device alone, the network alone with its copies (in
batches of the size that is fastest there, which decoding alone does not know of), and `extract`
from a cold cache, of which loading the trunk is taken off. What is done beside each other
is limited by its slowest part: the last column is the share of that. Then the features of 64 photos
against fp32 on the CPU, and an epoch of fine-tuning. `--device cpu` stands in, to try the script.
What the minutes have no room for is named and not run.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import pipeline
from pipeline.extraction import engines
from pipeline.extraction.batch_size import fastest
from pipeline.extraction.extract import extract_table
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.plan import feature_key, find_rows
from pipeline.images.decoding.loader import load
from pipeline.images.preprocess import Preprocess
from pipeline.store.cache import Cache
from pipeline.trunks import spec

ROOT = Path(__file__).resolve().parent.parent
PICTURES, COMPARED, TUNED = 256, 64, 2048


def photos(folder: Path, count: int) -> list[Path]:
    """Write photos of two classes, of PICTURES scenes, each with bytes of its own; return them."""
    rng = np.random.default_rng(0)

    def scene() -> bytes:
        small = rng.integers(0, 256, (12, 16, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(small).resize((500, 375), Image.Resampling.BICUBIC).save(
            file, "JPEG", quality=90
        )
        return file.getvalue()

    scenes = [scene() for _ in range(min(count, PICTURES))]
    paths = [folder / "ab"[number % 2] / f"{number:06}.jpg" for number in range(count)]
    for name in "ab":
        (folder / name).mkdir(parents=True)

    def write(number: int) -> None:
        data = scenes[number % len(scenes)]
        comment = b"\xff\xfe" + (10).to_bytes(2, "big") + number.to_bytes(8, "big")
        paths[number].write_bytes(data[:2] + comment + data[2:])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(count)))
    return paths


def rate(count: int, work: Callable[[], Any]) -> float:
    """Return images a second of some work on `count` of them."""
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


class Bench:
    """The measurements on one folder of photos."""

    def __init__(self, asked: argparse.Namespace, home: Path):
        self.asked, self.home = asked, home
        self.cache, self.cpu = Cache.at(home / "cache"), Cache.at(home / "cpu")
        self.until = time.monotonic() + 60 * asked.minutes
        self.paths = photos(home / "photos", asked.images)
        self.some = [str(path) for path in self.paths[: min(len(self.paths), 4096)]]
        self.last = 0.0
        few = home / "few"
        for path in self.paths[:COMPARED]:
            place = few / path.parent.name / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, place)
        self.few = few

    def fits(self, what: str) -> bool:
        """Say whether there is time for what takes about as long as the last of its kind."""
        if time.monotonic() + self.last < self.until:
            return True
        print(f"not run, since the minutes are over: {what}", flush=True)
        return False

    def measure(self, trunk: str, precision: str) -> dict[str, Any] | None:
        """Return the figures of a trunk in a precision; None where there is no time for it."""
        if not self.fits(f"{trunk} in {precision}"):
            return None
        began, device = time.monotonic(), self.asked.device
        options = ExtractOptions(
            trunk=trunk, weights="random", precision=precision, device=device, engine="torch"
        )
        cache = self.cache
        facts, loaded = spec.resolve(
            trunk, "random", "name", memo=cache.memo, state_dir=cache.weights
        )
        key = find_rows(cache, feature_key(facts, options), [], device=device).key
        batches = engines.batches_of(key, options)
        engine: Any = engines.make_engine(loaded, key, options, cache)
        size = fastest(engine.rate, batches.size) if device == "cuda" else batches.size
        crops = torch.randint(0, 256, (size, key.preprocess.crop, key.preprocess.crop, 3))
        ready = crops.to(torch.uint8)
        ready = (ready.pin_memory() if batches.pinned else ready).permute(0, 3, 1, 2)
        list(engine.run([ready] * 2))
        times = max(2, 4096 // size) if device != "cpu" else 2
        many = times * size

        def copy() -> None:
            for _ in range(times):
                engine.copies.put(ready)
            if device == "cuda":
                torch.cuda.synchronize()

        figures: dict[str, Any] = {"trunk": trunk, "precision": precision, "batch": size}
        figures["decode"] = self.decode(key.preprocess, batches)
        figures["copy"] = rate(many, copy) if device != "cpu" else None
        figures["forward"] = rate(many, lambda: [None for _ in engine.run([ready] * times)])
        done = extract_table(str(self.home / "photos"), options, cache)
        figures["whole"] = done.images_per_second
        figures["seconds"] = done.seconds
        limits = [figures[one] for one in ("decode", "copy", "forward") if figures[one]]
        figures["share"] = figures["whole"] / min(limits)
        figures["notes"] = list(done.notes)
        figures["apart"] = self.apart(trunk, precision)
        self.last = time.monotonic() - began
        return figures

    def decode(self, preprocess: Preprocess, batches: Any) -> float:
        """Return how many images a second are decoded and cropped, with nothing beside it."""
        files = [(path, None, 0) for path in self.some]
        workers = os.cpu_count() or 1
        stream = load(
            files, preprocess, batch_size=batches.size, workers=workers, pin=batches.pinned,
            cut=batches.cut,
        )  # fmt: skip
        return rate(len(files), lambda: [None for _ in stream])

    def apart(self, trunk: str, precision: str) -> dict[str, float]:
        """Return how far the features of a few photos are from fp32's on the CPU."""
        options: dict[str, Any] = {"trunk": trunk, "weights": "random", "engine": "torch"}
        cpu = pipeline.extract(
            self.few, cache=self.cpu.root, device="cpu", precision="fp32", **options
        )
        got = pipeline.extract(
            self.few, cache=self.cache.root, device=self.asked.device, precision=precision,
            **options,
        )  # fmt: skip
        a, b = np.asarray(cpu.features, np.float64), np.asarray(got.features, np.float64)
        norms = np.linalg.norm(a, axis=1)
        cosine = (a * b).sum(1) / norms / np.linalg.norm(b, axis=1)
        relative = np.linalg.norm(a - b, axis=1) / norms
        return {"cosine": float(cosine.min()), "relative": float(relative.max())}

    def tune(self) -> dict[str, Any] | None:
        """Return the seconds of an epoch of `layer4` of the first trunk on a part of the photos."""
        if not self.fits("fine-tuning"):
            return None
        folder, cache = self.home / "tuned", self.cache.root
        for path in self.paths[:TUNED]:
            place = folder / path.parent.name / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, place)
        trunk, device = self.asked.trunks.split(",")[0], self.asked.device
        table = pipeline.extract(folder, trunk=trunk, weights="random", device=device, cache=cache)
        head = pipeline.fit_head(table, clf="logreg", folds=2, cache=cache)
        model = pipeline.finetune(
            head, epochs=2, batch_size=64, views=1, augment="shift", device=device, cache=cache
        )
        train = table.split_counts["train"]
        seconds = [float(epoch["seconds"] or 0) for epoch in model.info.history if epoch["number"]]
        return {
            "trunk": trunk, "images": train, "precision": model.info.precision,
            "seconds": min(seconds), "images_per_second": train / min(seconds),
        }  # fmt: skip


def tests() -> str:
    """Run the tests that only a GPU can run; return how they ended."""
    if importlib.util.find_spec("pytest") is None:
        return "tests/test_cuda.py was not run: pytest is not installed"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/test_cuda.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return f"tests/test_cuda.py: {(done.stdout or done.stderr).strip().splitlines()[-1]}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--trunks", default="resnet50,timm/vit_base_patch16_224")
    parser.add_argument("--precisions", default="fp32,bf16,fp16")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--device", default="cuda", choices=("cuda", "mps", "cpu"))
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    where = torch.cuda.get_device_name() if asked.device == "cuda" else asked.device
    print(f"{where}, torch {torch.__version__}, {os.cpu_count()} cores", flush=True)
    print(tests(), flush=True)
    with tempfile.TemporaryDirectory() as home:
        bench = Bench(asked, Path(home))
        found = []
        print(
            "| trunk | precision | batch | decode | copy | forward | extract | of the limit | "
            "cosine, relative to fp32 on the CPU |\n|" + "---|" * 9
        )
        for trunk in asked.trunks.split(","):
            for precision in asked.precisions.split(","):
                if asked.device == "cpu" and precision == "fp16":
                    continue
                if (one := bench.measure(trunk, precision)) is None:
                    continue
                found.append(one)
                copy = "–" if one["copy"] is None else f"{one['copy']:.0f}"
                print(
                    f"| {trunk} | {precision} | {one['batch']} | {one['decode']:.0f} | {copy} | "
                    f"{one['forward']:.0f} | {one['whole']:.0f} | {one['share']:.2f} | "
                    f"{one['apart']['cosine']:.6f}, {one['apart']['relative']:.1e} |",
                    flush=True,
                )
        tuned = bench.tune()
        if tuned is not None:
            print(
                f"An epoch of layer4 of {tuned['trunk']} in {tuned['precision']}: "
                f"{tuned['seconds']:.2f} s, {tuned['images_per_second']:.0f} images/s"
            )
    if asked.json:
        print(json.dumps({"device": where, "extract": found, "tune": tuned}))


if __name__ == "__main__":
    main()
