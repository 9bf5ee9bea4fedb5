"""Stage one against the plain loop, and against what decoding and arithmetic allow.

    python scripts/bench_extract.py FOLDER [--trunk NAME] [--weights …] [--images N] [--repeats N]
                                    [--engine …] [--precision …] [--processor] [--grow] [--json]

The plain loop is the tutorial's: ImageFolder's way of reading, PIL transforms, a DataLoader with
two workers, batches of 32, fp32 eager. Headstart runs end to end from a cold cache; both take
turns, each in a process of its own that has imported its libraries before the clock starts. The
roofline is 1 / (1/decode + 1/forward), since both need the same cores: decode is torchvision's
reference decode and uint8 antialiased resize in as many threads as cores, forward the engine's
rate on crops that lie ready. FOLDER's photos are repeated, with other bytes in a comment segment,
until there are N. What a cold run of FEW photos takes is the start; the share of the roofline is
told with it and without. Processor seconds, in place of the wall's, are for a machine that others
use: then only Headstart runs, since those of the plain loop's workers are not seen.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import transforms as T

import pipeline
from pipeline.cores import usable_cores
from pipeline.extraction import engines
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.plan import feature_key, find_rows
from pipeline.images.decoding.reading import read
from pipeline.images.preprocess import Preprocess
from pipeline.store.cache import Cache
from pipeline.trunks import spec
from pipeline.trunks.registry import load

BATCH = 32
PLAIN_WORKERS = 2
FEW = 8


def repeated(folder: Path, count: int, home: Path) -> list[Path]:
    """Write `count` photos with different digests into a folder of classes; return them."""
    photos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    found = []
    for number in range(count):
        photo = photos[number % len(photos)]
        data = photo.read_bytes()
        comment = b"\xff\xfe" + (10).to_bytes(2, "big") + number.to_bytes(8, "big")
        path = home / photo.parent.name / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data[:2] + comment + data[2:])
        found.append(path)
    return sorted(found)


class Photos(torch.utils.data.Dataset[torch.Tensor]):
    """What `ImageFolder` with the classic transforms does."""

    def __init__(self, paths: list[Path], preprocess: Preprocess):
        self.paths = paths
        self.transform = T.Compose(
            [
                T.Resize(
                    preprocess.resize,
                    interpolation=T.InterpolationMode(preprocess.interpolation),
                ),
                T.CenterCrop(preprocess.crop),
                T.ToTensor(),
                T.Normalize(preprocess.mean, preprocess.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> torch.Tensor:
        with Image.open(self.paths[place]) as image:
            found: torch.Tensor = self.transform(image.convert("RGB"))
        return found


@torch.no_grad()
def plain(asked: argparse.Namespace, paths: list[Path], home: Path) -> dict[str, Any]:
    """Run the tutorial's loop; return seconds and features [N, D]."""
    trunk = load(asked.trunk, asked.weights, state_dir=home)
    began = time.perf_counter()
    data = torch.utils.data.DataLoader(
        Photos(paths, trunk.preprocess), batch_size=BATCH, num_workers=PLAIN_WORKERS,
        multiprocessing_context="fork",  # as in a script; in this process it would be spawn
    )  # fmt: skip
    found = np.concatenate([trunk.module(batch).numpy() for batch in data])
    return {"seconds": time.perf_counter() - began, "features": found}


def ours(asked: argparse.Namespace, folder: Path, home: Path) -> dict[str, Any]:
    """Run `extract` from a cold cache; return seconds and features [N, D], sorted by path."""
    with tempfile.TemporaryDirectory(dir=home) as cache:
        began = asked.clock()
        table = pipeline.extract(
            folder, cache=cache, trunk=asked.trunk, weights=asked.weights,
            engine=asked.engine, precision=asked.precision,
        )  # fmt: skip
        seconds = asked.clock() - began
        order = np.argsort([Path(path).name for path in table.paths])
        return {
            "seconds": seconds,
            "features": np.array(table.features)[order],
            "engine": table.provenance.engine,
            "precision": table.provenance.precision,
        }


def rates(asked: argparse.Namespace, paths: list[Path], home: Path) -> dict[str, Any]:
    """Return images a second of decoding alone and of the engine alone, all cores each."""
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms.v2 import functional as F

    cache = Cache.at(home / "rates")
    facts, trunk = spec.resolve(asked.trunk, asked.weights, "name", memo=cache.memo, state_dir=home)
    recipe = ExtractOptions(
        trunk=asked.trunk, weights=asked.weights, engine=asked.engine, precision=asked.precision
    )
    key = find_rows(cache, feature_key(facts, recipe), [], device="auto").key
    preprocess = facts.preprocess

    def decode(path: Path) -> torch.Tensor:
        data = torch.frombuffer(bytearray(read(str(path))), dtype=torch.uint8)
        picture = decode_jpeg(data, mode=ImageReadMode.RGB)
        resized = F.resize(
            picture, [preprocess.resize],
            interpolation=T.InterpolationMode(preprocess.interpolation), antialias=True,
        )  # fmt: skip
        crop: torch.Tensor = F.center_crop(resized, [preprocess.crop, preprocess.crop])
        return crop

    part = paths[:400]
    with ThreadPoolExecutor(usable_cores()) as pool:
        began = asked.clock()
        crops = list(pool.map(decode, part))
        decoding = len(part) / (asked.clock() - began)
    stacked = torch.stack(crops).contiguous(memory_format=torch.channels_last)
    batches = [stacked[at : at + BATCH] for at in range(0, len(stacked) - BATCH + 1, BATCH)]
    engine = engines.make_engine(trunk, key, recipe, cache)
    count(engine.run(batches[:2]))
    began = asked.clock()
    images = count(engine.run(batches))
    forward = images / (asked.clock() - began)
    return {"decode": decoding, "forward": forward, "roofline": 1 / (1 / decoding + 1 / forward)}


def count(found: Iterable[np.ndarray]) -> int:
    """Return how many rows there are."""
    return sum(len(part) for part in found)


def alone(task: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """Run a task in a process of its own; add its peak memory in MB."""
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(writer, task, args))
    process.start()
    writer.close()
    try:
        found: dict[str, Any] = reader.recv()
    except EOFError:
        sys.exit(f"{task.__name__} failed.")
    process.join()
    return found


def _send(writer: Any, task: Callable[..., dict[str, Any]], args: tuple[Any, ...]) -> None:
    warnings.simplefilter("ignore")
    found = task(*args)
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    writer.send(found)


def compare(asked: argparse.Namespace, home: Path) -> dict[str, Any]:
    """Run both in turn and return medians and ratios."""
    folder = home / "photos"
    paths = repeated(asked.folder, asked.images, folder)
    repeated(asked.folder, FEW, home / "few")
    weights = home / "weights"
    if asked.weights == "random":  # made beforehand, as downloaded ones would be there
        load(asked.trunk, "random", state_dir=weights)
        (file,) = weights.glob("*.safetensors")
        asked.weights = str(file)
    runs = [
        {
            "plain": None if asked.processor else alone(plain, asked, paths, weights),
            "ours": alone(ours, asked, folder, home),
            "rates": alone(rates, asked, paths, home),
            "few": alone(ours, asked, home / "few", home),
        }
        for _ in range(asked.repeats)
    ]

    def median(figure: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(figure(run) for run in runs)

    def after_start(run: dict[str, Any]) -> float:
        rate = (asked.images - FEW) / (run["ours"]["seconds"] - run["few"]["seconds"])
        return rate / float(run["rates"]["roofline"])

    last = runs[-1]
    found = {
        "trunk": asked.trunk,
        "engine": last["ours"]["engine"],
        "precision": last["ours"]["precision"],
        "images": asked.images,
        "headstart": median(lambda run: asked.images / run["ours"]["seconds"]),
        "start": median(lambda run: run["few"]["seconds"]),
        "decode": median(lambda run: run["rates"]["decode"]),
        "forward": median(lambda run: run["rates"]["forward"]),
        "roofline": median(lambda run: run["rates"]["roofline"]),
        "of_roofline": median(
            lambda run: asked.images / run["ours"]["seconds"] / run["rates"]["roofline"]
        ),
        "after_start": median(after_start),
        "memory_mb": max(run["ours"]["memory"] for run in runs),
    }
    if not asked.processor:
        order = np.argsort([path.name for path in paths])
        a, b = last["plain"]["features"][order], last["ours"]["features"]
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        found["plain"] = {
            "speed": median(lambda run: asked.images / run["plain"]["seconds"]),
            "times": median(lambda run: run["plain"]["seconds"] / run["ours"]["seconds"]),
            "memory_mb": max(run["plain"]["memory"] for run in runs),
            "cosine": {"mean": float(cosine.mean()), "least": float(cosine.min())},
        }
    return found


def grow(asked: argparse.Namespace, home: Path) -> list[dict[str, Any]]:
    """Return seconds and peak memory of Headstart for 400, 4,000 and 40,000 images."""
    found = []
    for images in (400, 4_000, 40_000):
        with tempfile.TemporaryDirectory(dir=home) as folder:
            repeated(asked.folder, images, Path(folder))
            run = alone(ours, asked, Path(folder), home)
        found.append({"images": images, "seconds": run["seconds"], "memory_mb": run["memory"]})
    return found


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trunk", default="efficientnet_lite0")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--images", type=int, default=1_600)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--processor", action="store_true", help="processor seconds, no plain loop")
    parser.add_argument("--grow", action="store_true", help="only 400, 4,000 and 40,000 images")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    asked.clock = time.process_time if asked.processor else time.perf_counter
    with tempfile.TemporaryDirectory() as home:
        found: Any = grow(asked, Path(home)) if asked.grow else compare(asked, Path(home))
    if asked.json:
        print(json.dumps(found))
    elif asked.grow:
        for run in found:
            print(
                f"{run['images']:>7,} images  {run['seconds']:7.1f} s  "
                f"{run['images'] / run['seconds']:6.1f} images/s  {run['memory_mb']:7,.0f} MB"
            )
    else:
        print(
            f"{found['trunk']}, {found['precision']} on {found['engine']}, {found['images']:,} "
            f"photos; images a {'processor ' * asked.processor}second, medians of {asked.repeats}\n"
            f"  Headstart {found['headstart']:.1f}, with {found['memory_mb']:,.0f} MB; decode "
            f"{found['decode']:.0f}, forward {found['forward']:.0f}, roofline "
            f"{found['roofline']:.0f}\n"
            f"  {found['of_roofline']:.2f} of it reached, {found['after_start']:.2f} after the "
            f"start of {found['start']:.1f} s ({FEW} photos, libraries imported before)"
        )
        if plain_loop := found.get("plain"):
            print(
                f"  {plain_loop['times']:.2f} times as fast as the plain loop: "
                f"{plain_loop['speed']:.1f}, {plain_loop['memory_mb']:,.0f} MB (its two workers "
                f"not counted)\n"
                f"  cosine of both features: mean {plain_loop['cosine']['mean']:.5f}, "
                f"least {plain_loop['cosine']['least']:.5f}"
            )


if __name__ == "__main__":
    main()
