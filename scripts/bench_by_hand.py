"""Stage three beside a loop that one writes by hand: same trunk, stages, size, split and seconds.

    python scripts/bench_by_hand.py DATA [--unfreeze all] [--image-size 96] [--seeds 0,1,2]

By hand: the crops decoded once, the frozen stages run in every step, a random last layer, AdamW at
1e-3 and 3e-4 with a cycle (the last layer three times as fast), weight decay 0.05, smoothing 0.1,
clip 1, no crops, BatchNorm frozen, in the precision of the tool, for as many epochs as fit the
seconds that the tool took; the rate that has the lower log-loss on the images that choose is kept.
Seeds draw the split where the data have none. Prints a line of a Markdown table for each seed.
"""

from __future__ import annotations

import argparse
import itertools
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import pipeline
from pipeline.finetuning.activations import Cached
from pipeline.finetuning.boundary import boundary_key, collect, reading, wanted_images
from pipeline.finetuning.finetune import finetune_head
from pipeline.finetuning.network import Network, cut
from pipeline.finetuning.options import FinetuneOptions
from pipeline.finetuning.prepare import last_layer, load_trunk
from pipeline.finetuning.task import Task, find_task
from pipeline.heads.metrics import log_loss, softmax
from pipeline.heads.uncertainty import mcnemar
from pipeline.images.preprocess import Preprocess
from pipeline.progress import Silent
from pipeline.store.cache import Cache
from pipeline.trunks.engines.devices import choose_precision
from pipeline.trunks.engines.torch_engine import DTYPES

RATES = (1e-3, 3e-4)


class ByHand:
    """The loop, with the crops of all images in memory.

    Args:
        task: which images learn, choose and are reported.
        cache: holds the crops.
        unfreeze: what learns.
    """

    def __init__(self, task: Task, cache: Cache, unfreeze: str):
        self.task, self.cache, self.unfreeze = task, cache, unfreeze
        table, trunk = task.table, load_trunk(task, cache)
        wanted = wanted_images(task, task.train, ())
        key = boundary_key(table, "pixels")
        found = collect(cache, key, wanted, reading(task, "cpu"), trunk, Silent())
        assert found is not None
        keys = list(dict.fromkeys((bytes.fromhex(d), 0) for d in table.digests))
        place = {digest: number for number, (digest, _) in enumerate(keys)}
        there = [one for one in keys if one in found[0].index]
        source = Cached(found[0].store, found[0].index, there, torch.device("cpu"))
        crops = torch.cat(list(source.batches(there, 256)))
        self.crops = torch.zeros((len(keys), *crops.shape[1:]), dtype=crops.dtype)
        self.crops[[place[d] for d, _ in there]] = crops
        self.rows = np.array([place[bytes.fromhex(d)] for d in table.digests])

    def batch(self, rows: np.ndarray) -> torch.Tensor:
        """Return crops [n, 3, S, S] of rows of the table."""
        return self.crops[torch.from_numpy(self.rows[rows])]

    def run(self, rate: float, seconds: float, seed: int) -> tuple[float, dict[str, np.ndarray]]:
        """Return the log-loss of what chooses, and the logits of each split."""
        task, table = self.task, self.task.table
        trunk, dtype = load_trunk(task, self.cache), DTYPES[choose_precision("auto", "cpu")]
        like = torch.nn.Linear(table.dim, len(table.classes), device="meta")
        network = Network(
            trunk.module, Preprocess.from_json(table.provenance.preprocess),
            layer=table.provenance.layer, pool=table.provenance.pool,
            cut=cut(trunk.module, "all", layer=table.provenance.layer),
            head=last_layer(like, seed=seed),
        )  # fmt: skip
        network.to(memory_format=torch.channels_last)
        learns = cut(trunk.module, self.unfreeze, layer=table.provenance.layer).learns
        own = [p for n, p in trunk.module.named_parameters() if n in learns]
        for name, p in trunk.module.named_parameters():
            p.requires_grad_(name in learns)
        head = list(network.head.parameters())
        groups = [{"params": own, "lr": rate}, {"params": head, "lr": 3 * rate}]
        optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=0.05)
        labels = torch.from_numpy(table.labels)
        rng, epochs, began = np.random.default_rng(seed), 0, time.perf_counter()
        steps = math.ceil(len(task.train) / 32)
        for epoch in itertools.count():
            order = rng.permutation(task.train)
            for step in range(steps):
                # how long the cycle is, is known once an epoch has been timed
                total = (epochs or 8) * steps
                at = epoch * steps + step
                warm = max(1, round(0.15 * total))
                done = min(1.0, (at - warm) / max(1, total - warm))
                times = (at + 1) / warm if at < warm else 0.5 * (1 + math.cos(math.pi * done))
                for group, most in zip(optimizer.param_groups, (rate, 3 * rate), strict=True):
                    group["lr"] = most * times
                rows = order[32 * step : 32 * step + 32]
                with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
                    logits = network(self.batch(rows))
                loss = F.cross_entropy(logits, labels[rows], label_smoothing=0.1)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_([*own, *head], 1.0)
                optimizer.step()
            if not epochs:
                epochs = max(1, int(seconds / (time.perf_counter() - began)))
            if epoch + 1 >= epochs:
                break
        splits = {task.selects: task.select, **task.reported}
        with torch.no_grad(), torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            found = {
                split: np.concatenate([
                    network(self.batch(rows[at : at + 64])).float().numpy()
                    for at in range(0, len(rows), 64)
                ])
                for split, rows in splits.items()
            }  # fmt: skip
        print(f"  by hand, {rate:g}: {epochs} epochs", flush=True)
        chose = table.labels[task.select]
        return log_loss(chose, softmax(found[task.selects])), found


def compare(asked: argparse.Namespace, seed: int, folder: Path) -> str:
    """Return a line of the table: head, tool and loop on the reported split."""
    table = pipeline.extract(
        asked.data, cache=folder, seed=seed, image_size=asked.image_size, trunk=asked.trunk,
        weights=asked.weights,
    )  # fmt: skip
    pipeline.fit_head(table, clf="linear", cache=folder, seed=seed)
    cache, options = Cache.at(folder), FinetuneOptions(
        unfreeze=asked.unfreeze, seed=seed, budget=asked.budget
    )  # fmt: skip
    began = time.perf_counter()
    done = finetune_head(None, options, cache)
    seconds = time.perf_counter() - began
    task = find_task(cache, None, options, [])
    hand = ByHand(task, cache, asked.unfreeze)
    runs = [hand.run(rate, seconds / len(RATES), seed) for rate in RATES]
    found = min(runs, key=lambda run: run[0])[1]
    split = list(task.reported)[-1]
    rows = task.reported[split]
    labels, scores = table.labels[rows], done.info.metrics[split]
    by_hand = found[split].argmax(1) == labels
    folder_of = done.folder / f"predictions-{split}.csv"
    ours = _right(folder_of)
    head = round(scores.start.accuracy * len(rows))
    return (
        f"| {Path(asked.data).name} | {asked.unfreeze} | {seed} | {len(rows)} | {head} | "
        f"{int(ours.sum())} | {int(by_hand.sum())} | {mcnemar(by_hand, ours).p:.2g} | "
        f"{scores.paired.p:.2g} | {seconds:.0f} | {done.info.kept} |"
    )


def _right(path: Path) -> np.ndarray:
    import csv

    with path.open(encoding="utf-8") as file:
        return np.array([row["label"] == row["prediction"] for row in csv.DictReader(file)])


def main() -> None:
    """Compare for each seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--unfreeze", default="layer4")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--trunk", default="efficientnet_lite0")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--budget", type=float, help="minutes; default: the tool's own")
    parser.add_argument("--seeds", default="0,1,2")
    asked = parser.parse_args()
    print(
        "| data | unfrozen | seed | images | head right | tool right | by hand right | p | "
        "p, head | seconds | kept |\n|" + "---|" * 11
    )
    for seed in map(int, asked.seeds.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            print(compare(asked, seed, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
