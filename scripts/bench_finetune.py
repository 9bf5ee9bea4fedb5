"""Fine-tuning against the loop of PyTorch's transfer-learning tutorial, on the same images.

    python scripts/bench_finetune.py DATA [--trunk resnet18] [--weights random] [--epochs 25]
                                     [--repeats 3] [--whole] [--json]

DATA has `train/` and `val/`. The tutorial's loop: ImageFolder, PIL transforms (random resized
crop and flip; resize and centre crop), a DataLoader with two workers, fp32, SGD with momentum, an
epoch over train and then over val. Headstart's epoch: over the same train images and the same val
images for the scores. Both train `layer4` and the last layer, or everything, at batch 4 and 64.
The two take turns; medians. `--whole` also runs both from nothing to the end of `--epochs` epochs
of `layer4`: the tutorial's script, and `pipeline extract`, `fit-head`, `finetune` as commands.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

import pipeline
from pipeline.finetuning import prepare
from pipeline.finetuning.bench import settings_of
from pipeline.finetuning.boundary import make_source
from pipeline.finetuning.options import FinetuneOptions
from pipeline.finetuning.settings import Part
from pipeline.finetuning.task import Task
from pipeline.finetuning.training import Training
from pipeline.progress import Silent
from pipeline.store.cache import Cache
from pipeline.trunks import registry
from pipeline.trunks.engines.devices import choose_precision

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Tutorial:
    """The tutorial's loop on a library model built from a staged trunk.

    Args:
        data: folder with `train` and `val`.
        trunk: name.
        weights: as `pipeline extract` takes them.
        everything: train all layers, else `layer4` and the last.
        batch: images a step.
        folder: where random weights are kept.
    """

    def __init__(
        self, data: Path, trunk: str, weights: str, everything: bool, batch: int, folder: Path
    ):
        size, resize = 224, 256
        look = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        crop = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip(), *look]
        plain = [transforms.Resize(resize), transforms.CenterCrop(size), *look]
        sets = {
            "train": datasets.ImageFolder(str(data / "train"), transforms.Compose(crop)),
            "val": datasets.ImageFolder(str(data / "val"), transforms.Compose(plain)),
        }
        self.loaders = {
            name: DataLoader(
                images,
                batch_size=batch,
                shuffle=True,
                num_workers=2,
                multiprocessing_context="fork",
            )
            for name, images in sets.items()
        }
        staged = registry.load(trunk, weights, state_dir=folder).module
        self.model = nn.Sequential(staged, nn.Linear(staged.dim, len(sets["train"].classes)))
        learns = staged if everything else staged.stages["layer4"]
        learns.requires_grad_(True)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(parameters, lr=0.001, momentum=0.9)

    def epoch(self) -> None:
        """Go through train and val once."""
        for phase, loader in self.loaders.items():
            self.model.train(phase == "train")
            for inputs, labels in loader:
                self.optimizer.zero_grad()
                with torch.set_grad_enabled(phase == "train"):
                    loss = nn.functional.cross_entropy(self.model(inputs), labels)
                    if phase == "train":
                        loss.backward()
                        self.optimizer.step()


class Apart:
    """The tutorial's loop in a process of its own, an epoch at a time.

    In one with bf16 training the kernel ended the process now and then (SIGSEGV, SI_KERNEL) when a
    worker of the DataLoader ended.

    Args:
        args: of `Tutorial`.
    """

    def __init__(self, *args: Any):
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, args))
        self.process.start()
        other.close()
        self.pipe.recv()  # it is ready

    def epoch(self) -> None:
        """Go through train and val once."""
        self.pipe.send("epoch")
        self.pipe.recv()

    def end(self) -> None:
        """End the process."""
        self.pipe.close()
        self.process.join()


def _serve(pipe: Any, args: tuple[Any, ...]) -> None:
    loop = Tutorial(*args)
    try:
        while True:
            pipe.send("ready")
            pipe.recv()
            loop.epoch()
    except EOFError:
        pass


def ours(data: Path, cache: Path, trunk: str, weights: str, *, unfreeze: str, batch: int,
         live: bool) -> Callable[[], None]:  # fmt: skip
    """Return a function that runs one epoch over train and scores val, activations at hand."""
    table = pipeline.extract(data, trunk=trunk, weights=weights, cache=cache)
    options = FinetuneOptions(
        unfreeze=unfreeze,
        batch_size=batch,
        live=live,
        start="random",
        epochs=100,
        augment="crop+mirror",
    )
    store = Cache.at(cache)
    rows = {split: table.rows(split) for split in ("train", "val")}
    reported = {"val": rows["val"]}
    head: Any = None  # of which nothing is asked: the last layer is random
    task = Task(head, table, options, cache, rows["train"], rows["val"], "val", reported,
                np.arange(len(table.labels)))  # fmt: skip
    loaded = prepare.load_trunk(task, store)
    network = prepare.make_network(loaded, task, None, unfreeze=options.unfreeze)
    precision = choose_precision("auto", "cpu")
    made = make_source(
        task,
        store,
        loaded,
        rows=rows["train"],
        policy="crop+mirror",
        after=network.cut.after,
        device="cpu",
        progress=Silent(),
    )
    network.to(memory_format=torch.channels_last)
    train, val = (Part.of(table, rows[split]) for split in ("train", "val"))
    run = prepare.faster(network, made.source, val.digests[0], device="cpu", precision=precision)
    settings = settings_of(options, made, precision=precision)
    training = Training(network, run, made.source, train, val, settings)
    training.begin()

    def epoch() -> None:
        training.epoch()

    return epoch


def seconds(work: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def epochs(asked: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Return seconds of an epoch for each setting, the tutorial's and ours in turn."""
    found = []
    for everything in (False, True):
        for batch in (4, 64):
            unfreeze = "all" if everything else "layer4"
            tutorial = Apart(asked.data, asked.trunk, asked.weights, everything, batch, folder)
            runs = {"tutorial": tutorial.epoch}
            for name, live in (("cached", False), ("live", True)):
                runs[name] = ours(asked.data, folder / "cache", asked.trunk, asked.weights,
                                  unfreeze=unfreeze, batch=batch, live=live)  # fmt: skip
            times: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(asked.repeats):
                for name, run in runs.items():
                    times[name].append(seconds(run))
            tutorial.end()
            row = {name: statistics.median(values) for name, values in times.items()}
            ratios = {
                f"{name}_ratio": statistics.median(
                    a / b for a, b in zip(times["tutorial"], times[name], strict=True)
                )
                for name in ("cached", "live")
            }
            found.append({"unfrozen": unfreeze, "batch": batch, **row, **ratios})
            told(asked, f"{unfreeze}, batch {batch}: {found[-1]}")
    return found


def whole(asked: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Return seconds from nothing to the end, of the tutorial's script and of three commands."""
    here = [sys.executable, __file__, str(asked.data), "--trunk", asked.trunk, "--weights",
            asked.weights, "--epochs", str(asked.epochs), "--tutorial"]  # fmt: skip
    module = [sys.executable, "-m", "pipeline"]
    cache = ["--cache", str(folder / "fresh")]
    commands = [
        [*module, "extract", str(asked.data), "--trunk", asked.trunk, "--weights", asked.weights,
         *cache],
        [*module, "fit-head", "--clf", "logreg", *cache],
        [*module, "finetune", "--unfreeze", "layer4", "--batch-size", "64", "--epochs",
         str(asked.epochs), *cache],
    ]  # fmt: skip

    def run(command: list[str]) -> None:
        subprocess.run(command, check=True, capture_output=True)

    mine = seconds(lambda: [run(command) for command in commands])
    theirs = seconds(lambda: run(here))
    return {"tutorial": theirs, "headstart": mine, "ratio": theirs / mine}


def told(asked: argparse.Namespace, line: str) -> None:
    """Print progress where a person reads it."""
    if not asked.json:
        print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Run the comparisons and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--trunk", default="resnet18")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--epochs", type=int, default=25, help="of --whole")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--whole", action="store_true", help="from nothing to the end, too")
    parser.add_argument("--only-whole", action="store_true", help="and nothing else")
    parser.add_argument("--tutorial", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.tutorial:
            loop = Tutorial(asked.data, asked.trunk, asked.weights, False, 64, folder)
            for _ in range(asked.epochs):
                loop.epoch()
            return
        found: dict[str, Any] = {}
        if asked.whole or asked.only_whole:
            found["whole"] = {"epochs": asked.epochs, **whole(asked, folder)}
            told(asked, f"from nothing: {found['whole']}")
        if not asked.only_whole:
            found["epochs"] = epochs(asked, folder)
    if asked.json:
        print(json.dumps(found, indent=1))
        return
    print(f"{asked.trunk}, {asked.data.name}: seconds of an epoch, medians of {asked.repeats}")
    print("unfrozen  batch  tutorial  cached  ratio    live  ratio")
    for row in found.get("epochs", []):
        print(f"{row['unfrozen']:<8}  {row['batch']:>5}  {row['tutorial']:>8.2f}  "
              f"{row['cached']:>6.2f}  {row['cached_ratio']:>5.1f}  {row['live']:>6.2f}  "
              f"{row['live_ratio']:>5.1f}")  # fmt: skip
    if "whole" in found:
        w = found["whole"]
        print(f"from nothing through {w['epochs']} epochs of layer4: tutorial {w['tutorial']:.0f} "
              f"s, Headstart {w['headstart']:.0f} s, {w['ratio']:.1f} times")  # fmt: skip


if __name__ == "__main__":
    main()
