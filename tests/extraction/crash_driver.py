"""Run `extract` with a decoder that ends the process at some images, again and again.

    crash_driver.py FOLDER CACHE PLAN

A program of its own: it forks before torch has started any thread. PLAN is a JSON list with an
object for each run: `at` (name of a picture to the signal by which decoding it ends the process),
`forward` (the signal by which the trunk ends it at the third batch) and `refuse` (pictures that
the decoder calls bad). Prints a JSON list with what became of each run.

    crash_driver.py --probe

stands for `python -m pipeline.images.decoding.probe`, with the same decoder and without torch.
"""

import hashlib
import io
import json
import os
import signal
import sys
import types
from pathlib import Path
from types import SimpleNamespace

from PIL import Image

from pipeline.errors import BadImage
from pipeline.images.decoding import probe

ENVIRONMENT = "CRASH_DRIVER"  # digest in hexadecimal → signal, for the probe


def die(number: int) -> None:
    """End as a fault does: in this thread, before its next step."""
    if number == signal.SIGABRT:
        os.abort()
    signal.raise_signal(number)


def serve() -> None:
    ends = json.loads(os.environ[ENVIRONMENT])

    def decode(digest):
        if digest in ends:
            die(ends[digest])

    stub = types.ModuleType("pipeline.images.decoding.decode")
    stub.MAX_PIXELS = 1 << 20
    stub.fits = lambda pixels: True
    stub.opened = lambda data, kind: Image.open(io.BytesIO(data))
    stub.decode = lambda data, **options: decode(hashlib.sha256(data).hexdigest())
    sys.modules["pipeline.images.decoding.decode"] = stub
    probe.main()


def arm(folder: Path, plan: dict) -> None:
    """Give this process, and the one that looks at images apart, the decoder of a plan."""
    from pipeline.images.decoding import crops
    from pipeline.images.decoding import decode as decoder

    ends = {
        hashlib.sha256((folder / name).read_bytes()).hexdigest(): number
        for name, number in plan.get("at", {}).items()
    }
    refused = {(folder / name).read_bytes() for name in plan.get("refuse", ())}
    os.environ[ENVIRONMENT] = json.dumps(ends)
    probe.COMMAND = (sys.executable, __file__, "--probe")

    def armed(real):
        def decode(data, **options):
            if (number := ends.get(hashlib.sha256(data).hexdigest())) is not None:
                die(number)
            if data in refused:
                raise BadImage("damaged")
            return real(data, **options)

        return decode

    crops.picture = decoder.picture = armed(decoder.picture)
    crops.raster = decoder.raster = armed(decoder.raster)  # for pictures that people look at


class Heard:
    """A progress that remembers."""

    start = advance = update = lambda *args, **options: None

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


def predict(folder: Path, cache: Path, plan: dict) -> dict:
    """Go through the pictures as `predict` does, with a trunk that costs nothing."""
    import numpy as np
    from kill_driver import Engine

    from pipeline.images.preprocess import Preprocess
    from pipeline.inference import logit_stream
    from pipeline.inference.options import ComputeOptions
    from pipeline.store.cache import Cache

    class Stub:
        preprocess, classes = Preprocess(10, 8), ("ants", "bees")
        key = SimpleNamespace(trunk="stub")

        def precision_on(self, device, asked):
            return "fp32"

        def logits(self, features, engine):
            return np.zeros((len(features), 2))

    arm(folder, plan)
    logit_stream.engine_of = lambda *args, **options: Engine()
    heard, names = Heard(), sorted(str(path) for path in folder.rglob("*.png"))
    means = ComputeOptions(workers=plan.get("workers", 1), batch_size=4)
    scored = logit_stream.through_trunk(Stub(), names, means, Cache.at(cache), heard)
    bad, done = [], 0
    for batch in scored:
        bad += [[names[done + slot], why] for slot, why in sorted(batch.bad.items())]
        done += len(batch.logits)
    notes = [len(path.read_bytes()) for path in Cache.at(cache).decoding.glob("*")]
    return {"folder": str(folder), "done": done, "bad": bad, "said": heard.said, "notes": notes}


def show(folder: Path, cache: Path, plan: dict) -> dict:
    """Draw a contact sheet of the pictures."""
    from pipeline.reporting.sheets import show
    from pipeline.store.cache import Cache

    arm(folder, plan)
    heard = Heard()
    recipe = show.ShowOptions(workers=plan.get("workers", 1))
    done = show.draw_sheet(str(folder), recipe, Cache.at(cache), heard)
    images = done.to_json()["images"]
    bad = [[one["path"], one["missing"]] for one in images if one["missing"]]
    return {"folder": str(folder), "done": len(images), "bad": bad, "said": heard.said}


def live(folder: Path, cache: Path, plan: dict) -> dict:
    """Go through the pictures as `finetune --live` does in two epochs."""
    from functools import partial

    import torch
    from kill_driver import Engine

    from pipeline.errors import PipelineError
    from pipeline.extraction.crashes import noted
    from pipeline.finetuning.activations import Live
    from pipeline.images.preprocess import Preprocess
    from pipeline.store.cache import Cache
    from pipeline.trunks.engines.finite import FiniteRows

    arm(folder, plan)
    heard, names = Heard(), sorted(str(path) for path in folder.rglob("*.png"))
    paths = {hashlib.sha256(Path(name).read_bytes()).digest(): name for name in names}
    source = Live(
        Engine(), paths, Preprocess(10, 8), workers=plan.get("workers", 1),
        device=torch.device("cpu"), guarded=partial(noted, Cache.at(cache), heard),
        finite=FiniteRows("t", "fp32"),
    )  # fmt: skip
    keys, done, error = [(digest, 0) for digest in paths], 0, ""
    try:
        for _ in range(2):
            done += sum(len(rows) for rows in source.batches(keys, 4))
    except PipelineError as refused:
        error = str(refused)
    return {"folder": str(folder), "done": done, "error": error, "said": heard.said}


def run(folder: Path, cache: Path, plan: dict) -> dict:
    from kill_driver import Engine, resolve

    from pipeline.extraction import engines, extract
    from pipeline.extraction import plan as planning
    from pipeline.extraction.options import ExtractOptions
    from pipeline.extraction.spread import share
    from pipeline.store import upkeep
    from pipeline.store.cache import Cache
    from pipeline.trunks import spec
    from pipeline.trunks.engines import choice

    class Crashing(Engine):
        batches = 0

        def run(self, batches):
            for made in super().run(batches):
                self.batches += 1
                if self.batches == 3 and "forward" in plan:
                    die(plan["forward"])
                yield made

    arm(folder, plan)
    heard = Heard()
    spec.resolve = resolve
    engines.make_engine = lambda *args: Crashing()
    choice.BATCH_SIZE = dict.fromkeys(choice.BATCH_SIZE, 4)
    planning.SHARD_ROWS = 8
    home = Cache.at(cache)
    found = upkeep.verify(home).problems
    options = ExtractOptions(precision="fp32", workers=plan.get("workers", 1),
                             rehash=plan.get("again", False))  # fmt: skip
    if part := plan.get("part"):
        done = share.compute_share(folder, share.Share.asked(part), options, home, heard)
        return {"images": done.images, "bad": [list(entry) for entry in done.bad]}
    done = extract.extract_table(folder, options, home, heard)
    table = done.table
    metas = [store.check(name)[1] for store in home.stores() for name in store.names()]
    return {
        "folder": str(folder),
        "problems": list(found),
        "bad": [list(entry) for entry in done.bad],
        "extracted": done.extracted,
        "rows": hashlib.sha256(
            table.features.tobytes() + repr(tuple(table.paths)).encode()
        ).hexdigest(),
        "in_shards": [reason for meta in metas for _, _, reason in meta["bad"]],
        "said": heard.said,
        "notes": [len(path.read_bytes()) for path in home.decoding.glob("*")],
    }


def main() -> None:
    # imported before the fork, so that children start at once
    import torch  # noqa: F401
    import torchvision.io
    import torchvision.transforms.v2  # noqa: F401

    from pipeline.images.decoding import loader  # noqa: F401

    folder, cache, plans = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    reports = []
    for plan in plans:
        reader, writer = os.pipe()
        if not (pid := os.fork()):
            try:
                work = {"predict": predict, "show": show, "live": live}
                does = next((work[name] for name in work if plan.get(name)), run)
                result = does(folder, cache / plan.get("cache", "c"), plan)
            except BaseException as error:
                result = {"raised": repr(error)}
            os.write(writer, json.dumps(result).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            data = pipe.read()
        status = os.waitpid(pid, 0)[1]
        died = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        reports.append({"died": died, **json.loads(data or "{}")})
    print(json.dumps(reports))


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--probe"] else main()
