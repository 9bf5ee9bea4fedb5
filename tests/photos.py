"""Small photos, a table and a head of them, and fine-tuning on these, for the tests."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

import pipeline
from pipeline.finetuning.finetune import finetune_head
from pipeline.finetuning.options import FinetuneOptions
from pipeline.store.cache import Cache

OPTIONS = {
    "trunk": "resnet18",
    "weights": "random",
    "image_size": 64,
    "precision": "fp32",
    "engine": "torch",
}
FAST = {"epochs": 2, "views": 2, "precision": "fp32", "augment": "crop+mirror"}


def paint(root: Path, splits=("train", "val"), each: int = 12) -> Path:
    """Make pictures whose classes differ in colour and pattern."""
    rng = np.random.default_rng(0)
    for split in splits:
        for k, name in enumerate(("blue", "red")):
            (root / split / name).mkdir(parents=True)
            for n in range(each):
                pixels = rng.integers(0, 160, (48, 56, 3))
                pixels[..., 2 - 2 * k] += 60
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{n:02}.png")
    return root


def prepare(root: Path) -> Path:
    """Make photos and a cache with their table and head."""
    paint(root / "photos")
    table = pipeline.extract(root / "photos", cache=root / "cache", **OPTIONS)
    pipeline.fit_head(table, clf="logreg", cache=root / "cache")
    return root


class Heard:
    """A progress that remembers."""

    def __init__(self):
        self.said: list[str] = []

    def start(self, what, total): ...
    def advance(self, count, bad=0): ...
    def update(self, text): ...
    def say(self, sentence):
        self.said.append(sentence)


def tune(work: Path, asked=None, heard=None, **options):
    options = {"data": str(work / "photos"), **FAST, **options}
    return finetune_head(asked, FinetuneOptions(**options), Cache.at(work / "cache"), heard)


def prepare_model(root: Path, prepared: Path) -> Path:
    """Copy photos and cache of `prepare`, and add a model to them."""
    import shutil

    shutil.copytree(prepared, root / "m")
    done = tune(root / "m", epochs=2, views=1, lr=1e-3, label_smoothing=0.0)
    assert done.info.best_epoch > 0  # its weights are no longer the trunk's
    return root / "m"


def stored(folder: Path, split: str = "val") -> tuple[list[str], list[str], np.ndarray]:
    """Return paths, predictions and probabilities [n, K] of a stored `predictions-<split>.csv`."""
    with (folder / f"predictions-{split}.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name.startswith("p(")]
    probabilities = np.array([[float(row[name]) for name in names] for row in rows])
    return [row["path"] for row in rows], [row["prediction"] for row in rows], probabilities
