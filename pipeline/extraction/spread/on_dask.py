"""Parts of a plan by the workers of Dask: of a cluster on this machine, or of any scheduler.

Each part is a future whose key names fingerprint and part. Workers and the scheduler may end at any
moment: what is done is in the cache, with a record, and what is not is handed out again. Few parts
are handed out ahead of need, since Dask blames a task for the death of each worker that it only
waited on.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline import clusters
from pipeline.cores import usable_cores
from pipeline.errors import DamagedError, PipelineError
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.plan import Done, Part, Plan
from pipeline.extraction.spread.plan_file import PlanFile, heard
from pipeline.extraction.spread.task import compute_part
from pipeline.progress import Progress
from pipeline.store.cache import Cache

#: Times that a part may fail, and workers may die one after the other without a part done.
TRIES, STRIKES = 3, 8
#: Seconds for which a scheduler that is gone is waited for, and between two looks at what is done.
ABSENCE, LOOK = 600.0, 0.05
#: Seconds between two looks at how many workers there are.
COUNT = 5.0


class _Lost(Exception):
    """The scheduler is gone."""


def on_dask(
    plan: Plan,
    parts: Iterable[Part],
    cache: Cache,
    options: ExtractOptions,
    progress: Progress,
    *,
    gpus: Sequence[str] = (),
) -> Generator[Done]:
    """Compute parts of a plan by the workers of Dask and yield what came of each, in any order.

    Args:
        plan: of one fingerprint; its images are files, at the same places for every worker.
        parts: of it.
        cache: where rows and plans are kept, likewise.
        options: `on` says by which workers.
        progress: told of each part.
        gpus: of this machine, one for each worker of a cluster on it.

    Raises:
        PipelineError: Dask is not installed, the scheduler is gone for good, workers keep dying, or
            a part failed on several of them.
    """
    distributed = clusters.library()
    left = {part.number: part for part in parts}
    file = PlanFile.write(cache, plan)
    local = options.on == "dask"
    count = options.processes or len(gpus) or max(2, usable_cores() // 4)
    cores = max(1, usable_cores() // count)
    job = {
        "cache": str(cache.root),
        "plan": file.folder.name,
        "paths": file.write_paths(plan.parts.sources),
        "options": vars(replace(options, processes=None, on=None)),
        "cores": cores if local else 0,
        "gpus": list(gpus) if local else [],
        "path": [*sys.path, str(Path.cwd())],  # where one's own network may be
    }
    key = f"{plan.rows[0].key.fingerprint[:16]}-{file.folder.name}"
    work = _Work(plan, left, key, json.dumps(job), distributed)
    progress.start("extracting", sum(len(part.keys) for part in left.values()))
    if local:
        with clusters.cluster(count, cores) as cluster, clusters.client(cluster) as own:
            try:
                yield from work.through(own, progress)
            except _Lost as lost:
                raise PipelineError(
                    "The Dask cluster of this machine ended. What was computed is kept; run the "
                    "same command again."
                ) from lost
        return
    since = time.monotonic()
    while left:
        try:
            with clusters.client(options.on) as client:
                since = time.monotonic()
                yield from work.through(client, progress)
        except (_Lost, OSError) as error:
            if time.monotonic() - since > (ABSENCE if work.reached else 0.0):
                raise PipelineError(
                    f"There is no Dask scheduler at {options.on} ({error}). What was computed is "
                    "kept; run the same command again when there is one."
                ) from error
            progress.say(f"The Dask scheduler at {options.on} is gone: waiting for it.")
            time.sleep(1.0)


class _Work:
    """What is to be done, whichever scheduler hands it out.

    Args:
        plan: whose rows get what is done.
        left: number to part; what is done is taken out.
        key: how those of futures begin.
        job: as `task.compute_part` has it.
        distributed: the library.
    """

    def __init__(self, plan: Plan, left: dict[int, Part], key: str, job: str, distributed: Any):
        self.plan, self.left, self.key, self.job = plan, left, key, job
        self.distributed = distributed
        self.failed: dict[int, int] = {}
        self.strikes = 0
        self.reached = False

    def through(self, client: Any, progress: Progress) -> Iterator[Done]:
        """Hand out parts until all are done, a few ahead of need.

        Raises:
            _Lost: the scheduler is gone.
        """
        self.reached = True
        running: dict[Any, int] = {}
        waiting = [*self.left]
        counted, workers, resources, alone = -COUNT, 0, dict[str, int](), False
        try:
            while self.left:
                if client.status != "running":  # and its futures are cancelled, whatever comes
                    raise _Lost("the connection is lost")
                if time.monotonic() - counted > (COUNT if workers else 10 * LOOK):
                    counted = time.monotonic()
                    workers, resources = _workers(client)
                    if not workers and not alone:
                        alone = True
                        progress.say("The Dask scheduler has no workers: waiting for them.")
                while waiting and len(running) < workers + workers // 4 + 1:
                    number = waiting.pop(0)
                    running[self._submit(client, number, resources)] = number
                ended = [future for future in running if future.done()]
                for future in ended:
                    number = running.pop(future)
                    done = self._outcome(future, number)
                    if done is None:
                        waiting.append(number)
                        continue
                    del self.left[number]
                    self.strikes = 0
                    bad = sum(len(shard.bad) for shard in done.shards[0]) + len(done.passing)
                    progress.advance(len(done.part.keys), bad)
                    yield done
                if not ended:
                    time.sleep(LOOK)
        finally:
            for future in running:
                with suppress(Exception):  # the scheduler may be gone
                    future.cancel()

    def _submit(self, client: Any, number: int, resources: Mapping[str, int]) -> Any:
        return client.submit(
            compute_part, self.job, number, key=f"{self.key}-{number}-{self.failed.get(number, 0)}",
            resources=resources or None, pure=False,
        )  # fmt: skip

    def _outcome(self, future: Any, number: int) -> Done | None:
        """Return what came of a part; None where it is to be done again."""
        if future.status == "finished":
            try:
                return heard(self.plan.rows[0], self.left[number], future.result())
            except DamagedError as error:
                self._again(number, error)
                return None
            except (self.distributed.client.FutureCancelledError, OSError) as error:
                raise _Lost(str(error)) from error
        if future.status in ("cancelled", "lost"):
            raise _Lost("the connection is lost")
        why = future.exception()
        if isinstance(why, self.distributed.KilledWorker):
            self.strikes += 1
            if self.strikes < STRIKES:
                self.failed[number] = self.failed.get(number, 0) + 1
                return None
            raise PipelineError(
                f"Dask workers die while they compute features, {self.strikes} times by now "
                f"without a part done: {why} What was computed is kept."
            ) from why
        self._again(number, why)
        return None

    def _again(self, number: int, error: BaseException) -> None:
        """Let a part be done again, if it did not fail too often."""
        self.failed[number] = self.failed.get(number, 0) + 1
        if self.failed[number] < TRIES:
            return
        if isinstance(error, PipelineError):
            raise error
        raise PipelineError(
            f"A part failed {TRIES} times on Dask workers: {type(error).__name__}: {error}. They "
            "need the same version of this package as this machine."
        ) from error


def _workers(client: Any) -> tuple[int, dict[str, int]]:
    """Return how many workers there are, and what to ask of one: a GPU where any has some."""
    try:
        found = client.scheduler_info(n_workers=-1)["workers"].values()
    except (OSError, RuntimeError) as error:
        raise _Lost(str(error)) from error
    gpus = any("GPU" in worker.get("resources", {}) for worker in found)
    return len(found), {"GPU": 1} if gpus else {}
