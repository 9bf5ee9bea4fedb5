"""What is done once for all rows, at a million of them and more, when all is in the cache.

    python scripts/bench_store.py [CHECKOUT …] [--rows 1000000] [--links 100000] [--json]

For each CHECKOUT of this repository (this one unless told) a cache of its own is filled with
shards of random rows of WIDTH numbers, cut as that version cuts them, of images that do not exist.
Then, each in a process of its own: `first`, the index from the shards alone; `index`, `plan` and
`table`, from N given digests to the plan (nothing is missing) and a new table, as `extract` does
it; `again`, the same with the table there. `--links` are hard links to a few pictures that are
scanned twice, with an empty memo and with a full one. `--index-only` stops after the index.
`--pass` is what a head does on the table that was made: open it, the scaler, the eigenbasis, and
one value and gradient of `linear` over all training rows.
Seconds of the wall, those of the processor in brackets, which do not count what others do beside
it; and the largest resident set of the process, shared pages included.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

WIDTH = 16
#: Rows of a shard before there were large ones.
SMALL = 256


def digests(count: int) -> np.ndarray:
    """Return [count, 32] uint8 that look like sha256, the same every time."""
    return np.random.default_rng(0).integers(0, 256, (count, 32), np.uint8)


def feature_key(precision: str) -> Any:
    """Return the key of a trunk that does not exist."""
    from pipeline.images.preprocess import Preprocess
    from pipeline.trunks.spec import FeatureKey

    own = Preprocess(256, 224)
    decoder = "auto" if precision == "auto" else "libjpeg-turbo"
    return FeatureKey("none", "d" * 64, "feature", "own", own, precision, decoder=decoder)


def make(root: Path, count: int, width: int) -> dict[str, Any]:
    """Fill a cache with shards of random rows."""
    from pipeline.extraction import plan
    from pipeline.store.cache import Cache

    store = Cache.at(root).rows(feature_key("fp32").fingerprint)
    own, random = digests(count), np.random.default_rng(1)
    cut = getattr(plan, "part_sizes", None)  # today's version cuts large ones, small ones first
    sizes = cut(count, 32) if cut else [SMALL] * -(-count // SMALL)
    start = 0
    for size in sizes:
        part = own[start : start + size]
        raw = part.tobytes()
        keys = [(raw[at : at + 32], 0) for at in range(0, len(raw), 32)]
        store.commit(keys, random.random((len(part), width), np.float32), engine="none")
        start += size
    return {"shards": len(sizes)}


def image_set(count: int) -> Any:
    """Return the images whose rows `make` made up, of 100 classes."""
    from pipeline.images.datasets.imageset import ImageSet

    raw = digests(count)
    try:
        from pipeline.sequences import Digests

        own: Any = Digests(raw)
    except ImportError:  # an older version has an object for each
        own = tuple(raw[at].tobytes() for at in range(count))
    splits = ("train",) * (count - count // 5) + ("val",) * (count // 5)
    return ImageSet(
        name="many",
        root=Path("/nowhere"),
        paths=tuple(f"{n % 100:02}/{n:09}.jpg" for n in range(count)),
        labels=np.arange(count, dtype=np.int64) % 100,
        classes=tuple(f"{n:02}" for n in range(100)),
        splits=splits,
        digests=own,
    )


def use(root: Path, count: int, index_only: bool) -> dict[str, Any]:
    """Go from digests to a table; what is measured begins when the digests are known."""
    from pipeline.extraction.assemble import assemble
    from pipeline.extraction.options import ExtractOptions
    from pipeline.extraction.plan import find_rows
    from pipeline.extraction.wanted import WantedImages
    from pipeline.images.preprocess import Preprocess
    from pipeline.store.cache import Cache
    from pipeline.store.records import PassCost
    from pipeline.trunks.spec import TrunkFacts

    cache, found = Cache.at(root), dict[str, Any]()
    if index_only:
        from pipeline.store.shards import Keys

        keys: Any = Keys(digests(count), np.zeros(count, np.int32))
        store = cache.rows(feature_key("fp32").fingerprint)
        with timed(found, "index"):
            index = store.index()
        with timed(found, "look up"):
            assert index.having(keys).all()
        return found
    images = image_set(count)
    with timed(found, "plan: images"):
        wanted = WantedImages(images, None)
        keys = getattr(wanted.sources, "own", None) or list(wanted.sources)
    with cache.reading(feature_key("auto").fingerprints, keys):
        with timed(found, "index"):
            rows = find_rows(cache, feature_key("auto"), keys, device="cpu")
        with timed(found, "plan: missing"):
            wanted.check(rows.index)
            if hasattr(rows.index, "known"):
                lacking = int((~rows.index.known(keys)).sum())
            else:
                lacking = sum(key not in rows.index for key in keys)
            assert not lacking
        with timed(found, "table"):
            facts = TrunkFacts(
                name="none", weights="none", weights_digest="d" * 64, weights_asked="none",
                preprocess=Preprocess(256, 224), dim=WIDTH, stages=(), neck=False, notes=(),
            )  # fmt: skip
            table = assemble(
                cache, images, rows, views=[], data="many", options=ExtractOptions(),
                facts=facts, cost=PassCost(0, 0.0),
            )  # fmt: skip
    assert len(table.labels) == count
    return found


def head_pass(root: Path) -> dict[str, Any]:
    """Open the table that was made, and go over it once as `linear` does."""
    import bench_wide

    from pipeline.store.cache import Cache

    cache, found = Cache.at(root), dict[str, Any]()
    with timed(found, "open"):
        table = cache.open_table(cache.table_files()[0])
    with timed(found, "scaler, basis, one pass"):
        bench_wide.one_pass(table, bench_wide.Log())
    return found


def scan(root: Path, folder: Path) -> dict[str, Any]:
    """List and hash the files of a folder."""
    from pipeline.extraction.scan import of_data
    from pipeline.progress import Silent
    from pipeline.store.cache import Cache

    found = dict[str, Any]()
    with timed(found, "scan"):
        images = of_data(str(folder), Cache.at(root), Silent())
    found["images"] = len(images.paths)
    return found


@contextmanager
def timed(found: dict[str, Any], name: str) -> Iterator[None]:
    """Note how long something takes, and how much of the processor's time."""
    began, used = time.perf_counter(), time.process_time()
    yield
    found[name] = [time.perf_counter() - began, time.process_time() - used]


def link(folder: Path, count: int) -> None:
    """Make hard links to a few pictures, a thousand in a folder."""
    from PIL import Image

    folder.mkdir()
    most = 20_000  # what a file may have of names is less than 65,000 on ext4
    for n in range(count):
        own = folder / f"class{n // 1000:04}"
        if n % 1000 == 0:
            own.mkdir()
        source = folder.parent / f"{n // most}.png"
        if n % most == 0:
            Image.new("RGB", (8, 8), (n // most % 256, 0, 0)).save(source)
        os.link(source, own / f"{n:07}.png")


def measure(checkout: Path, *words: object) -> dict[str, Any]:
    """Run one step in a process of a checkout."""
    command = [sys.executable, str(Path(__file__).resolve()), "--step", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, cwd="/", env=environment
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def step(words: list[str]) -> None:
    """Do one step and print what it took."""
    name, root, *numbers = words
    if name == "make":
        found = make(Path(root), int(numbers[0]), int(numbers[1]))
    elif name == "pass":
        found = head_pass(Path(root))
    elif name == "scan":
        found = scan(Path(root), Path(numbers[0]))
    else:
        found = use(Path(root), int(numbers[0]), name == "index")
    status = Path("/proc/self/status").read_text()  # `ru_maxrss` counts the process that began it
    found["peak_bytes"] = int(status.split("VmHWM:")[1].split()[0]) * 1024
    print(json.dumps(found))


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--step"]:
        step(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkouts", nargs="*", type=Path, default=[Path(__file__).parents[1]])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--links", type=int, default=0)
    parser.add_argument("--index-only", action="store_true")
    parser.add_argument("--pass", action="store_true", dest="head")
    parser.add_argument("--folder", type=Path, help="where the caches are made and removed")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    report = of_store(asked)
    if asked.json:
        print(json.dumps({"rows": asked.rows, "width": asked.width, "found": report}))
        return
    print(f"{asked.rows:,} rows of {asked.width} numbers")
    show(report)


def of_store(asked: argparse.Namespace) -> dict[str, Any]:
    """Return what each step took, by checkout."""
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        if asked.links:
            link(Path(folder, "links"), asked.links)
        for number, checkout in enumerate(path.resolve() for path in asked.checkouts):
            root, given = Path(folder, f"cache{number}"), (asked.rows, asked.width)
            found = {"make": measure(checkout, "make", root, *given)}
            for name in ("first", "index") if asked.index_only else ("first", "use", "again"):
                kind = "index" if asked.index_only else "use"
                if name == "use" and (root / "tables").exists():  # the index is there, no table
                    shutil.rmtree(root / "tables")
                found[name] = measure(checkout, kind, root, *given)
            if asked.head:
                found["head"] = measure(checkout, "pass", root)
            if asked.links:
                for name in ("scan, empty memo", "scan, full memo"):
                    found[name] = measure(checkout, "scan", root, Path(folder, "links"))
            report[str(checkout)] = found
    return report


def show(report: dict[str, Any]) -> None:
    """Print what `of_store` returned."""
    for checkout, found in report.items():
        print(checkout)
        for name, values in found.items():
            peak = values.pop("peak_bytes") / 1e9
            timed_ones = {key: value for key, value in values.items() if isinstance(value, list)}
            for key, (wall, processor) in timed_ones.items():
                print(f"  {f'{name}: {key}':<28} {wall:7.2f} s ({processor:.2f} s)")
            if len(timed_ones) == 1:
                print(f"  {name}: {peak:.2f} GB")
            if len(timed_ones) > 1:
                wall, processor = map(sum, zip(*timed_ones.values(), strict=True))
                print(f"  {f'{name}: all':<28} {wall:7.2f} s ({processor:.2f} s), {peak:.2f} GB")
            counts = {key: value for key, value in values.items() if key not in timed_ones}
            print(*(f"  {name}: {value:,} {key}" for key, value in counts.items()), sep="\n")


if __name__ == "__main__":
    main()
