"""What a worker of Dask runs: a part of a plan, once; only names go back."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from pipeline.cores import usable_cores
from pipeline.errors import DamagedError, PipelineError
from pipeline.extraction import engines
from pipeline.extraction.compute import compute_parts
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.plan import Plan
from pipeline.extraction.spread.plan_file import PATIENCE, PlanFile, told
from pipeline.progress import Silent
from pipeline.store.cache import Cache
from pipeline.trunks import permitted

if TYPE_CHECKING:
    from pipeline.trunks.engines.engine import Engine

#: A worker may have several threads; a part takes all of its cores.
_ALONE = Lock()


def compute_part(job: str, number: int) -> dict[str, Any]:
    """Compute a part of a plan and return what came of it, as `told` has it.

    It takes no lock of the cache, and what is done already is not done again: a task may run on
    several workers at once, and any of them may die.

    Args:
        job: a JSON object: `cache`, `plan`, `paths`, `options`, `cores`, `gpus`, `path`.
        number: of the part.

    Raises:
        PipelineError: what went wrong, and on which host.
    """
    try:
        with _ALONE, _prepared(json.loads(job)) as options:
            return _compute(job, number, options)
    except PipelineError as error:
        raise type(error)(f"On {platform.node()}: {error}") from error


def _compute(job: str, number: int, options: ExtractOptions) -> dict[str, Any]:
    cache = Cache(Path(json.loads(job)["cache"]))
    file, plan = _plan(job)
    if (names := file.shards(number)) is not None:
        with suppress(DamagedError):
            for name in names:
                plan.rows[0].store.check(name)
            return {"part": number, "shards": names, "passing": [], "sides": [], "notes": []}
    parts = compute_parts(
        plan, [plan.parts[number]], cache, options, Silent(), engine=_engine(job, options)
    )
    (done,) = parts
    file.note(done)
    return told(done)


@lru_cache(maxsize=1)
def _plan(job: str) -> tuple[PlanFile, Plan]:
    """Return the plan of a job, looked for again where another host has just written it."""
    asked = json.loads(job)
    cache, until = Cache(Path(asked["cache"])), time.monotonic() + PATIENCE
    while True:
        try:
            file = PlanFile.read(cache.plans / asked["plan"])
            return file, file.plan(cache, file.paths(asked["paths"]))
        except DamagedError as error:
            if time.monotonic() >= until:
                raise PipelineError(
                    f"{error} Every worker has to see the cache {cache.root} at the same place."
                ) from error
            time.sleep(0.2)


@lru_cache(maxsize=1)
def _engine(job: str, options: ExtractOptions) -> Engine:
    """Return the engine of a job, which stays for its other parts."""
    _, plan = _plan(job)
    cache = Cache(Path(json.loads(job)["cache"]))
    return engines.make_engine(None, plan.rows[0].key, options, cache)


@contextmanager
def _prepared(job: dict[str, Any]) -> Iterator[ExtractOptions]:
    """Give the options for this worker, with PyTorch on as many threads as it has cores.

    Dask's nannies set `OMP_NUM_THREADS=1`, whatever a worker has.
    """
    from distributed import get_worker

    worker = get_worker()
    cores = job["cores"] or worker.state.nthreads
    sys.path += [folder for folder in job["path"] if folder not in sys.path]
    if job["gpus"] and "torch" not in sys.modules:  # before CUDA is looked for
        os.environ["CUDA_VISIBLE_DEVICES"] = job["gpus"][int(worker.name) % len(job["gpus"])]
    import torch

    asked = {**job["options"], "processes": max(1, usable_cores() // cores)}
    options = ExtractOptions(**asked)
    permitted.permit(options.trunk)
    threads = torch.get_num_threads()
    torch.set_num_threads(options.cores)
    try:
        yield options
    finally:
        torch.set_num_threads(threads)
