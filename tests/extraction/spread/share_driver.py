"""Four processes compute shares of one folder and are killed, stopped, late; two then assemble.

    share_driver.py FOLDER CACHES

A program of its own: it forks before torch has started any thread. Prints one JSON object.
"""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch  # noqa: F401  (imported before the fork, so that children start at once)

from pipeline.extraction import engines, extract, plan
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.spread.share import Share, compute_share
from pipeline.images.decoding import loader  # noqa: F401
from pipeline.images.preprocess import Preprocess
from pipeline.store import upkeep
from pipeline.store.cache import Cache
from pipeline.trunks import spec
from pipeline.trunks.engines import choice

OPTIONS = ExtractOptions(precision="fp32", workers=1)


class Engine:
    name, precision, notes = "fake", "", ()

    def run(self, batches):
        for crops in batches:
            time.sleep(0.03)
            x = crops.numpy().astype(np.float32)
            yield np.concatenate([x.mean((2, 3)), x.mean((1, 3))], axis=1)


def resolve(name, weights, keys, *, size, memo, state_dir):
    size = Preprocess(10, 8)
    facts = spec.TrunkFacts(name, weights, "d" * 64, size, 11, ("layer4",), False, weights, ())
    return facts, None


def arm() -> None:
    spec.resolve = resolve
    engines.make_engine = lambda *args: Engine()
    choice.BATCH_SIZE = dict.fromkeys(choice.BATCH_SIZE, 4)
    plan.SHARD_ROWS = 4


def whole(folder: Path, cache: Path) -> dict:
    done = extract.extract_table(folder, OPTIONS, Cache.at(cache))
    table = done.table
    sha = hashlib.sha256(np.ascontiguousarray(table.features).tobytes())
    for part in (table.labels.tobytes(), table.splits, tuple(table.paths), tuple(table.digests)):
        sha.update(repr(part).encode())
    found = {"sha": sha.hexdigest(), "extracted": done.extracted, "bad": len(done.bad)}
    return {**found, "id": table.table_id}


def share(folder: Path, cache: Path, part: str) -> dict:
    return compute_share(folder, Share.asked(part), OPTIONS, Cache.at(cache)).to_json()


class Child:
    """A function in a process of its own."""

    def __init__(self, work, *args):
        reader, writer = os.pipe()
        if not (pid := os.fork()):
            os.close(reader)
            try:
                result = work(*args)
            except BaseException as error:
                result = {"raised": repr(error)}
            os.write(writer, json.dumps(result).encode())
            os._exit(0)
        os.close(writer)
        self.pid, self.reader = pid, reader

    def end(self) -> dict | None:
        """Return what the function returned; None where the process was killed."""
        with os.fdopen(self.reader, "rb") as pipe:
            data = pipe.read()
        _, status = os.waitpid(self.pid, 0)
        return None if os.WIFSIGNALED(status) else json.loads(data)


def until(cache: Path, count: int) -> None:
    """Wait until so many parts are done."""
    deadline = time.monotonic() + 120
    while len(list(cache.glob("plans/*/[0-9]*.json"))) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{count} parts")
        time.sleep(0.005)


def main() -> None:
    folder, caches = Path(sys.argv[1]), Path(sys.argv[2])
    arm()
    want = Child(whole, folder, caches / "whole").end()
    cache = caches / "shared"
    parts = -(-sum(1 for _ in folder.rglob("*.png")) // 4)
    one, two, three = (Child(share, folder, cache, f"{n}/4") for n in (1, 2, 3))
    until(cache, parts * 3 // 10)
    os.kill(one.pid, signal.SIGKILL)
    until(cache, parts * 4 // 10)
    os.kill(three.pid, signal.SIGSTOP)
    late = Child(share, folder, cache, "4/4")
    again = Child(share, folder, cache, "1/4")
    until(cache, parts * 6 // 10)
    os.kill(late.pid, signal.SIGKILL)
    ends = {"one": one.end(), "late": late.end(), "two": two.end(), "again": again.end()}
    garbage = list(upkeep.garbage(Cache.at(cache), unfinished=True))
    assembling = [Child(whole, folder, cache) for _ in range(2)]
    time.sleep(0.1)
    os.kill(three.pid, signal.SIGCONT)
    got = [child.end() for child in assembling]
    ends["three"] = three.end()
    home = Cache.at(cache)
    problems = list(upkeep.verify(home).problems)
    upkeep.collect(home, list(upkeep.garbage(home)))
    (store,) = home.stores()
    report = {
        "want": want, "got": got, "ends": ends, "problems": problems, "parts": parts,
        "garbage while they run": [str(path) for path in garbage],
        # those that were killed leave what they looked up; it counts for a day
        "runs": [path.name for path in (cache / "runs").glob("[!r]*")],
        "warm": Child(whole, folder, cache).end(),
        "rows": sum(len(store.check(name)[0]) for name in store.names()),
    }  # fmt: skip
    print(json.dumps(report))


if __name__ == "__main__":
    main()
