"""Run `extract` where the system gives too little, and then again where it gives enough.

    scarce_driver.py files FOLDER CACHES    only so many files may be opened more
    scarce_driver.py read FOLDER CACHES     reading one image fails, injected by strace

A program of its own: it forks before torch has started any thread. Prints one JSON object: what
became of each run, what it blamed images for, and what became of the next run.
"""

import hashlib
import json
import os
import resource
import sys
from pathlib import Path

import torch  # noqa: F401  (imported before the fork, so that children start at once)
import torchvision.io
import torchvision.transforms.v2  # noqa: F401

sys.path.insert(0, str(Path(__file__).parents[1]))

from kill_driver import Engine, resolve
from tracing import in_child

from pipeline.extraction import engines, extract, plan
from pipeline.extraction.options import ExtractOptions
from pipeline.images.decoding import loader  # noqa: F401
from pipeline.store import upkeep
from pipeline.store.cache import Cache
from pipeline.trunks import spec
from pipeline.trunks.engines import choice


def leave(more: int) -> None:
    """Take every file descriptor that `ulimit -n 64` allows but so many."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        for file in taken[:more]:
            os.close(file)


def run(folder: Path, cache: Path, *, more: int | None = None, size: int | None = None) -> dict:
    spec.resolve = resolve
    engines.make_engine = lambda *args: Engine()
    choice.BATCH_SIZE = dict.fromkeys(choice.BATCH_SIZE, 4)
    plan.SHARD_ROWS = 8
    if more is not None:
        leave(more)
    recipe = ExtractOptions(precision="fp32", workers=16, image_size=size)
    done = extract.extract_table(folder, recipe, Cache.at(cache))
    sha = hashlib.sha256(done.table.features.tobytes() + repr(tuple(done.table.paths)).encode())
    return {"rows": sha.hexdigest(), "bad": done.bad}


def after(cache: Path) -> dict:
    """Return what the shards blame images for, and what is damaged."""
    home = Cache.at(cache)
    metas = [store.check(name)[1] for store in home.stores() for name in store.names()]
    return {"blamed": [m["bad"] for m in metas if m["bad"]], **vars(upkeep.verify(home))}


def disturbed(folder: Path, cache: Path, options: list[str] | None = None, **given) -> dict:
    size = given.get("size")
    scarce = in_child(lambda root: run(folder, root, **given), cache, options)[1]
    left = in_child(after, cache)[1]
    again = in_child(lambda root: run(folder, root, size=size), cache)[1]
    return {"scarce": scarce, "left": left, "again": again}


def main() -> None:
    mode, folder, caches = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    want = {
        size: in_child(lambda root, size=size: run(folder, root, size=size), caches / f"{size}")[1]
        for size in (None, 9)
    }
    if mode == "files":
        runs = [disturbed(folder, caches / f"more-{more}", more=more) for more in range(10)]
    else:
        path = str(folder / "bees" / "003.png")
        options = ["-f", "-P", path, "-e", "trace=read", "-e", "inject=read:error=EIO:when=1"]
        cache = caches / "cache"
        # first where it is hashed; then, the memo knowing every digest, where it is decoded
        runs = [disturbed(folder, cache, options), disturbed(folder, cache, options, size=9)]
    print(json.dumps({"want": list(want.values()), "runs": runs}))


if __name__ == "__main__":
    main()
