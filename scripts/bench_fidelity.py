"""How close cached features are to the reference: the library's own transform on PIL, fp32 eager.

    python scripts/bench_fidelity.py FOLDER [--trunk NAME] [--weights …] [--image-size PX] [--json]

Prints for each precision the mean and the smallest cosine between both features of an image.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import transforms as T

import pipeline
from pipeline.images.preprocess import Preprocess
from pipeline.trunks.registry import load


def reference_transform(preprocess: Preprocess) -> T.Compose:
    """Return the classic transform on PIL images, as torchvision and timm build it."""
    mode = T.InterpolationMode(preprocess.interpolation)
    return T.Compose(
        [
            T.Resize(preprocess.resize, interpolation=mode),
            T.CenterCrop(preprocess.crop),
            T.ToTensor(),
            T.Normalize(preprocess.mean, preprocess.std),
        ]
    )


@torch.inference_mode()
def reference(
    paths: list[Path], trunk: str, weights: str, home: Path, size: int | None = None
) -> np.ndarray:
    """Return fp32 features [N, D] of images read and transformed by PIL."""
    loaded = load(trunk, weights, state_dir=home)
    preprocess = loaded.preprocess if size is None else loaded.preprocess.with_size(size)
    transform = reference_transform(preprocess)
    rows = []
    for start in range(0, len(paths), 32):
        part = [transform(Image.open(p).convert("RGB")) for p in paths[start : start + 32]]
        rows.append(loaded.module(torch.stack(part)).numpy())
    return np.concatenate(rows)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of rows, [N]."""
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trunk", default="efficientnet_lite0")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--image-size", type=int, help="side of the input")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as cache:
        want = None
        for precision in asked.precisions.split(","):
            table = pipeline.extract(
                asked.folder,
                cache=cache,
                trunk=asked.trunk,
                weights=asked.weights,
                precision=precision,
                image_size=asked.image_size,
                engine=asked.engine,
            )
            if want is None:
                paths = [Path(table.provenance.root, path) for path in table.paths]
                want = reference(
                    paths, asked.trunk, asked.weights, Path(cache, "weights"), asked.image_size
                )
            values = cosines(want, table.features)
            found[precision] = {"mean": float(values.mean()), "least": float(values.min())}
    if asked.json:
        print(json.dumps({"trunk": asked.trunk, "images": len(paths), **found}))
        return
    print(f"{asked.trunk}, {len(paths)} images, cosine to PIL transforms and fp32 eager")
    for precision, values in found.items():
        print(f"  {precision}  mean {values['mean']:.5f}  least {values['least']:.5f}")


if __name__ == "__main__":
    main()
