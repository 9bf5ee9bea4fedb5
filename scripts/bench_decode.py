"""Time decoding: this version against another, and the decoders and resizes that there are.

    python scripts/bench_decode.py ../shared/data/hymenoptera --against OLDER_CHECKOUT
    python scripts/bench_decode.py ../shared/data/hymenoptera --libraries

Processor seconds of one thread, in turn: versions photo by photo in one process, libraries each in
a process of its own, with the quartiles of the ratios of neighbours. `--libraries` needs simplejpeg
and opencv-python-headless, and leaves out what is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

LIBRARY = """
import json, sys, time
sys.path.insert(0, sys.argv[2])
import bench_decode
print(bench_decode.timed(sys.argv[1], json.load(sys.stdin)))
"""
IMPORTS = ("numpy", "PIL.Image", "simplejpeg", "cv2", "torch", "torchvision.io")


def main() -> None:
    """Run what is asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of JPEGs")
    parser.add_argument("--against", type=Path, help="checkout of another version")
    parser.add_argument("--libraries", action="store_true", help="compare decoders and resizes")
    parser.add_argument("--srgb", action="store_true", help="leave out photos with a profile")
    parser.add_argument("--photos", type=int, default=240)
    parser.add_argument("--runs", type=int, default=11)
    given = parser.parse_args()
    every = sorted(given.data.rglob("*.jpg"))
    if given.srgb:
        every = [path for path in every if b"ICC_PROFILE" not in path.read_bytes()]
    paths = json.dumps([str(path) for path in every[:: max(1, len(every) // given.photos)]])
    if given.against:
        _versions(given.against.resolve(), json.loads(paths), given.runs)
    if given.libraries:
        _compare({name: _library(name, paths) for name in ("torchvision", *LIBRARIES)}, given.runs)
        _compare({f"import {name}": _import(name) for name in ("numpy", *IMPORTS)}, given.runs)


def _versions(other: Path, paths: list[str], runs: int) -> None:
    """Print how this version's crops compare with another's, photo by photo in one process."""
    ways = [_crops_of(place) for place in (Path(__file__).resolve().parents[1], other)]
    files = [Path(path).read_bytes() for path in paths]
    digests = [hashlib.sha256(data).digest() for data in files]
    warnings.simplefilter("ignore")
    ratios, spent = [], [0.0, 0.0]
    for run in range(runs + 1):
        seconds = [0.0, 0.0]
        for at, (data, digest) in enumerate(zip(files, digests, strict=True)):
            for which in (0, 1) if (run + at) % 2 else (1, 0):
                began = time.thread_time()
                ways[which](data, digest)
                seconds[which] += time.thread_time() - began
        if run:  # the first one warms up
            ratios.append(seconds[0] / seconds[1])
            spent = [a + b for a, b in zip(spent, seconds, strict=True)]
    each = [1000 * total / runs / len(files) for total in spent]
    print(
        f"{len(files)} photos, {runs} runs: {each[0]:.3f} ms a photo, before {each[1]:.3f}; "
        f"ratio {median(ratios):.4f} ({min(ratios):.4f} to {max(ratios):.4f})"
    )


def _crops_of(place: Path) -> Callable[[bytes, bytes], Any]:
    """Return what makes a crop in the version of a checkout."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "pipeline"]:
        del sys.modules[name]
    sys.path.insert(0, str(place))
    crops = importlib.import_module("pipeline.images.decoding.crops").crops
    fit = importlib.import_module("pipeline.images.preprocess").Preprocess(256, 224)
    sys.path.remove(str(place))
    return lambda data, digest: crops(data, fit, digest, [0])


def _compare(ways: dict[str, Callable[[], float | None]], runs: int) -> None:
    """Run all ways in turn; print seconds and the ratio to the last one, or the first."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for run in range(runs):
        for name in list(ways) if run % 2 else list(ways)[::-1]:
            if (found := ways[name]()) is not None:
                seconds[name].append(found)
    base = next(iter(seconds))
    for name, found in seconds.items():
        if not found:
            print(f"{name}: not installed")
            continue
        ratios = sorted(one / other for one, other in zip(found, seconds[base], strict=True))
        print(
            f"{name}: {median(found):.3f} s, {median(ratios):.3f} of {base} "
            f"({ratios[len(ratios) // 4]:.3f} to {ratios[-1 - len(ratios) // 4]:.3f})"
        )


def _library(name: str, paths: str) -> Callable[[], float | None]:
    folder = str(Path(__file__).resolve().parent)

    def run() -> float | None:
        found = _run([sys.executable, "-c", LIBRARY, name, folder], paths)
        return None if found is None else float(found)

    return run


def _import(name: str) -> Callable[[], float | None]:
    code = f"import time; a = time.process_time(); import {name}; print(time.process_time() - a)"

    def run() -> float | None:
        found = _run([sys.executable, "-c", code], "")
        return None if found is None else float(found)

    return run


def _run(command: list[str], given: str, **environment: str) -> str | None:
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip
    if "ModuleNotFoundError" in done.stderr:
        return None
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def timed(name: str, paths: list[str]) -> float:
    """Return the processor seconds that a library takes to make crops of 224 pixels of JPEGs."""
    files = [Path(path).read_bytes() for path in paths]
    crop = ({"torchvision": _torchvision} | LIBRARIES)[name]()
    for data in files[:20]:
        crop(data)
    began = time.process_time()
    for data in files:
        crop(data)
    return time.process_time() - began


def _size(width: int, height: int) -> tuple[int, int]:
    by = 256 / min(width, height)
    return int(width * by), int(height * by)


def _crop() -> Callable[[Any], Any]:
    """Return the project's own resize and crop, by torchvision."""
    from pipeline.images.preprocess import Preprocess

    return Preprocess(256, 224).apply


def _pillow_crop(image: Any) -> Any:
    import numpy as np
    from PIL import Image

    small = image.resize(_size(*image.size), Image.Resampling.BILINEAR)
    left, top = (small.width - 224) // 2, (small.height - 224) // 2
    return np.asarray(small.crop((left, top, left + 224, top + 224)))


def _torchvision() -> Callable[[bytes], Any]:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    crop = _crop()
    warnings.simplefilter("ignore")
    return lambda data: crop(
        decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    )


def _pillow() -> Callable[[bytes], Any]:
    import io

    from PIL import Image

    return lambda data: _pillow_crop(Image.open(io.BytesIO(data)).convert("RGB"))


def _simplejpeg() -> Callable[[bytes], Any]:
    """Decoded by simplejpeg (libjpeg-turbo's own interface), resized by Pillow."""
    import simplejpeg
    from PIL import Image

    return lambda data: _pillow_crop(Image.fromarray(simplejpeg.decode_jpeg(data)))


def _simplejpeg_torchvision() -> Callable[[bytes], Any]:
    import simplejpeg
    import torch

    crop = _crop()
    return lambda data: crop(torch.from_numpy(simplejpeg.decode_jpeg(data)).permute(2, 0, 1))


def _opencv() -> Callable[[bytes], Any]:
    """OpenCV's area resize is the one of its that does not alias."""
    import cv2
    import numpy as np

    cv2.setNumThreads(1)

    def crop(data: bytes) -> Any:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        size = _size(found.shape[1], found.shape[0])
        small = cv2.cvtColor(
            cv2.resize(found, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB
        )
        top, left = (small.shape[0] - 224) // 2, (small.shape[1] - 224) // 2
        return small[top : top + 224, left : left + 224]

    return crop


#: Name to what makes a function from a file's bytes to a crop.
LIBRARIES: dict[str, Callable[[], Callable[[bytes], Any]]] = {
    "Pillow": _pillow,
    "simplejpeg + Pillow": _simplejpeg,
    "simplejpeg + torchvision": _simplejpeg_torchvision,
    "OpenCV (area)": _opencv,
}

if __name__ == "__main__":
    main()
