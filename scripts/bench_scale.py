"""What several processes bring: the efficiency of 1, 2 and 4, and of a real trunk in two.

    python scripts/bench_scale.py [--batches 400] [--seconds 0.2] [--folder DIR] [--json]
    python scripts/bench_scale.py --rows 1000000 [--width 16] [--links 1000000] [--folder DIR]

`waiting`: a forward pass that sleeps, so that the cores are idle and what is measured is what the
work costs besides: handing out parts, commits, records. `real`: ResNet-18 with random weights in
one process and in two, each with one thread. Starting is excluded: time runs from when every
process has its first batch in hand to when the last row is committed. The efficiency of N
processes is seconds of one / (N × seconds of N).

With `--rows` it measures what is done once for all rows, as `bench_store.py` does: from given
digests to index, plan and table, one pass of a head over that table, and the scan of hard links
apart.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import fx, nn

from pipeline.extraction.extract import extract_table
from pipeline.extraction.options import ExtractOptions
from pipeline.progress import Silent
from pipeline.store.cache import Cache

BATCH = 32
#: Where processes meet before their first batch: folder, how many, seconds that each batch sleeps,
#: and the process that measures.
MEETING = "BENCH_SCALE"
_MET: list[float] = []


def met(images: torch.Tensor) -> torch.Tensor:
    """Return the images when all processes have some, a little later where that was asked for."""
    folder, count, seconds, measures = json.loads(os.environ[MEETING])
    if len(images) != BATCH:
        return images  # a look at the network, or the canary
    if not _MET and os.getpid() != measures:
        (Path(folder) / str(os.getpid())).touch()
        while len(list(Path(folder).iterdir())) < count:
            time.sleep(0.002)
        _MET.append(time.time())
        (Path(folder) / str(os.getpid())).write_text(str(_MET[0]))
    time.sleep(seconds)
    return images


fx.wrap("met")


class Meeting(nn.Module):
    """A network whose first batch waits for those of other processes."""

    preprocess: dict[str, Any]

    def __init__(self, net: nn.Module, size: int):
        super().__init__()
        self.net = net
        self.preprocess = {
            "size": size, "mean": (0.5,) * 3, "std": (0.25,) * 3, "interpolation": "bilinear",
        }  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return class scores."""
        out: torch.Tensor = self.net(met(images))
        return out


def waiting() -> nn.Module:
    """Return a network that computes nearly nothing."""
    body = [
        layer for channels in (3, 8, 8) for layer in (nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU())
    ]
    return Meeting(nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)), 32)


def real() -> nn.Module:
    """Return ResNet-18 with random weights."""
    from torchvision.models import resnet18

    return Meeting(resnet18(), 224)


class Watch(Silent):
    """Remembers when computing began and how many images it has come to."""

    def __init__(self) -> None:
        self.began = 0.0

    def start(self, what: str, total: int) -> None:
        """Begin to count."""
        self.began = time.time()


def seconds(folder: Path, trunk: str, count: int, sleep: float, home: Path) -> float:
    """Return the seconds that so many processes take for a folder, without starting."""
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        meeting = Path(scratch) / "meeting"
        meeting.mkdir()
        os.environ[MEETING] = json.dumps([str(meeting), count, sleep, os.getpid()])
        watch = Watch()
        asked = ExtractOptions(
            trunk=trunk, precision="fp32", engine="torch", batch_size=BATCH, processes=count,
            workers=1,
        )  # fmt: skip
        done = extract_table(str(folder), asked, Cache.at(Path(scratch) / "cache"), watch)
        ended = max(
            path.stat().st_mtime for path in (Path(scratch) / "cache/rows").glob("*/??/*.h5")
        )
        begun = [float(path.read_text()) for path in meeting.iterdir()]
        assert done.extracted == len(done.table.labels)
        return ended - max([watch.began, *begun])


def pictures(folder: Path, count: int, side: int) -> Path:
    """Write so many pictures of noise, each another."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        noise = random.integers(0, 256, (side // 4, side // 4, 3), np.uint8)
        picture = Image.fromarray(noise).resize((side, side))
        picture.save(folder / f"{number:06}.jpg")
    return folder


def efficiencies(
    measure: Callable[[int], float], counts: tuple[int, ...], repeats: int
) -> list[dict[str, Any]]:
    """Return seconds and efficiency of each number of processes, which take turns."""
    times = {count: [0.0] * repeats for count in counts}
    for turn in range(repeats):
        for count in counts:
            times[count][turn] = measure(count)
    one = float(np.median(times[1]))
    return [
        {
            "processes": count, "seconds": float(np.median(found)),
            "efficiency": one / (count * float(np.median(found))), "each": found,
        }
        for count, found in times.items()
    ]  # fmt: skip


def of_workers(arguments: argparse.Namespace, home: Path) -> dict[str, Any]:
    """Return what `waiting` and `real` measure."""
    small = pictures(home / "small", BATCH * arguments.batches, 16)
    large = pictures(home / "large", BATCH * arguments.real_batches, 256)
    return {
        "waiting": efficiencies(
            lambda count: seconds(small, "bench_scale:waiting", count, arguments.seconds, home),
            (1, 2, 4), arguments.repeats,
        ),
        "real": efficiencies(
            lambda count: seconds(large, "bench_scale:real", count, 0.0, home), (1, 2),
            arguments.repeats,
        ),
    }  # fmt: skip


def of_rows(arguments: argparse.Namespace) -> None:
    """Measure and print what is done once for all rows."""
    import bench_store

    arguments.checkouts, arguments.head = [Path(__file__).parents[1]], True
    arguments.index_only = False
    report = bench_store.of_store(arguments)
    if arguments.json:
        print(json.dumps({"rows": arguments.rows, "width": arguments.width, "found": report}))
        return
    bench_store.show(report)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=400, help=f"of {BATCH} small images")
    parser.add_argument("--seconds", type=float, default=0.2, help="that each batch sleeps")
    parser.add_argument("--real-batches", type=int, default=48, help=f"of {BATCH} photos")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--rows", type=int, default=0, help="of a store, in place of processes")
    parser.add_argument("--width", type=int, default=16, help="numbers of a row")
    parser.add_argument("--links", type=int, default=0, help="files that are scanned")
    parser.add_argument("--folder", type=Path, help="for images and caches; else a temporary one")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))  # where the processes find `bench_scale`
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if arguments.rows:
        of_rows(arguments)
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        found = of_workers(arguments, Path(scratch))
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for name, rows in found.items():
        for row in rows:
            print(
                f"{name:<8} {row['processes']} processes  {row['seconds']:7.1f} s  "
                f"efficiency {row['efficiency']:.2f}"
            )


if __name__ == "__main__":
    main()
