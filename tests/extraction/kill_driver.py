"""Run `extract` in processes that kill themselves at each step of a commit, and then again.

A program of its own: it forks before torch has started any thread. Prints one JSON object.
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch  # noqa: F401  (imported before the fork, so that children start at once)
import torchvision.io
import torchvision.transforms.v2  # noqa: F401

from pipeline.errors import PipelineError
from pipeline.extraction import crashes, engines, extract, plan
from pipeline.extraction.options import ExtractOptions
from pipeline.images.decoding import loader  # noqa: F401
from pipeline.images.preprocess import Preprocess
from pipeline.store import upkeep
from pipeline.store.cache import Cache
from pipeline.trunks import spec
from pipeline.trunks.engines import choice

STEPS = ("open", "write", "fsync", "replace")


class Engine:
    name, precision = "fake", ""

    def __init__(self):
        self.notes = []

    def run(self, batches):
        for crops in batches:
            x = crops.numpy().astype(np.float32)
            yield np.concatenate([x.mean((2, 3)), x.mean((1, 3))], axis=1)


def resolve(name, weights, keys, *, size, memo, state_dir):
    size = Preprocess(10, 8)
    facts = spec.TrunkFacts(name, weights, "d" * 64, size, 11, ("layer4",), False, weights, ())
    return facts, None


def work(folder: Path, cache: Path, kill_at: int | None, behind: int) -> dict:
    spec.resolve = resolve
    engines.make_engine = lambda *args: Engine()
    choice.BATCH_SIZE = dict.fromkeys(choice.BATCH_SIZE, 4)
    choice.BEHIND = {"cpu": behind}
    plan.SHARD_ROWS = 8
    crashes.crashing = lambda images: (False for _ in images)  # starts no process: torch is slow
    calls = 0

    def counted(real):
        def call(*args, **kwargs):
            nonlocal calls
            if calls == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            calls += 1
            return real(*args, **kwargs)

        return call

    found = upkeep.verify(Cache.at(cache)).problems
    for step in STEPS:
        setattr(os, step, counted(getattr(os, step)))
    done = extract.extract_table(
        folder, ExtractOptions(precision="fp32", workers=1), Cache.at(cache)
    )
    table = done.table
    sha = hashlib.sha256(table.features.tobytes())
    for part in (table.labels.tobytes(), table.splits, tuple(table.paths), tuple(table.digests)):
        sha.update(repr(part).encode())
    left = [str(p) for p in (cache / "runs").glob("[0-9a-f]*.h5")]
    left += [str(p) for p in upkeep.garbage(Cache.at(cache)) if not p.name.startswith(".tmp-")]
    return {
        "sha": sha.hexdigest(),
        "problems": list(found),
        "extracted": done.extracted,
        "garbage": left,
        "calls": calls,
    }


def in_child(*args) -> dict | None:
    """Return what `work` returns in a process of its own; None where it was killed."""
    reader, writer = os.pipe()
    if not (pid := os.fork()):
        try:
            result = work(*args)
        except PipelineError as error:
            result = {"error": str(error)}
        except BaseException as error:
            result = {"error": repr(error)}
        os.write(writer, json.dumps(result).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(pid, 0)
    return None if os.WIFSIGNALED(status) else json.loads(data)


def main() -> None:
    folder, caches, stride = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    behind = int(sys.argv[4])
    want = in_child(folder, caches / "whole", None, behind)
    assert want is not None
    report = {"want": want, "killed": 0, "wrong": []}
    for step in range(0, want.get("calls", 0), stride):
        cache = caches / f"killed-{step}"
        if in_child(folder, cache, step, behind) is not None:
            continue
        report["killed"] += 1
        got = in_child(folder, cache, None, behind)
        fine = got and got.get("sha") == want["sha"] and not got["problems"] + got["garbage"]
        if not fine:
            report["wrong"].append([step, got])
    print(json.dumps(report))


if __name__ == "__main__":
    main()
