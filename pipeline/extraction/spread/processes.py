"""Parts of a plan in several processes of this machine, each with its share of cores, or a GPU.

Python's threads take turns; past about 3,000 images a second decoding has to be in several
processes. They are started afresh, since torch and CUDA cannot be forked, and take numbers of parts
from one pipe: no process waits for another, and what a dead one had in hand is known.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from pipeline import errors
from pipeline.errors import DamagedError, PipelineError
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.plan import Done, Part, Plan
from pipeline.extraction.spread.plan_file import PlanFile, heard
from pipeline.images.names import counted
from pipeline.images.sources.address import secrets
from pipeline.progress import Progress
from pipeline.store.cache import Cache

#: `-P`: the working folder may be a person's, with a `torch.py` in it.
COMMAND = (sys.executable, "-P", "-m", "pipeline.extraction.spread.child")
#: Processes that may end suddenly, one after the other, before another part is done.
STRIKES = 4
#: Seconds that a process has for an orderly end.
GRACE = 10.0
_NUMBER = 4  # bytes, as in `child`


def in_processes(
    plan: Plan,
    parts: Iterable[Part],
    cache: Cache,
    options: ExtractOptions,
    progress: Progress,
    *,
    count: int,
    gpus: Sequence[str] = (),
) -> Generator[Done]:
    """Compute parts of a plan in several processes and yield what came of each, in any order.

    Args:
        plan: of one fingerprint; its images are files.
        parts: of it.
        cache: where rows and plans are kept.
        options: how to compute.
        progress: told of each batch, and of processes that end suddenly.
        count: how many processes.
        gpus: of CUDA, as `CUDA_VISIBLE_DEVICES` has them; each process has one of them to itself,
            or with others where these are fewer.

    Raises:
        PipelineError: what a process raised; or they keep ending suddenly.
    """
    left = {part.number: part for part in parts}
    options = replace(options, processes=count, on=None)
    file, strikes = PlanFile.write(cache, plan), 0
    job = {
        "cache": str(cache.root),
        "plan": file.folder.name,
        "paths": file.write_paths(plan.parts.sources),
        "options": vars(options),
        "path": sys.path,
        "secrets": secrets(),  # through a pipe, and in no file
    }
    told = _Listening(progress, sum(len(part.keys) for part in left.values()))
    while left:  # again for what was in the hands of those that died
        with _Crew(job, [*left], min(count, len(left)), gpus, options.cores) as crew:
            for child, message in crew.messages():
                if message is None:
                    strikes += 1
                    told.died(child, strikes)
                    if strikes >= STRIKES:
                        raise PipelineError(
                            f"{strikes} processes ended suddenly, one after the other, the last "
                            f"{child.end}. Where memory is short, give fewer --processes. What was "
                            "computed is kept."
                        )
                    crew.start(child.place)
                elif "done" in message:
                    number = message["done"]["part"]
                    child.taken.discard(number)
                    child.advanced = max(0, child.advanced - len(left[number].keys))
                    with suppress(DamagedError):  # it is done again
                        done = heard(plan.rows[0], left[number], message["done"])
                        del left[number]
                        strikes = 0
                        yield done
                elif "taken" in message:
                    child.taken.add(message["taken"])
                elif "error" in message:
                    name, sentence = message["error"]
                    kind = getattr(errors, name, PipelineError)
                    raise kind(sentence)
                else:
                    told.tell(child, message)


class _Listening:
    """Tells one person what several processes do."""

    def __init__(self, progress: Progress, total: int):
        self.progress, self.total, self.started = progress, total, False

    def tell(self, child: _Child, message: dict[str, Any]) -> None:
        if "say" in message:
            self.progress.say(message["say"])
        elif "start" in message and not self.started:
            self.started = True
            self.progress.start(message["start"], self.total)
        elif "advance" in message:
            child.advanced += message["advance"][0]
            self.progress.advance(*message["advance"])

    def died(self, child: _Child, strikes: int) -> None:
        self.progress.say(
            f"A process that computes features (pid {child.process.pid}) ended suddenly, "
            f"{child.end}: what it had begun, {counted(len(child.taken), 'shard')}, is done again."
        )
        if child.advanced:
            self.progress.advance(-child.advanced)


@dataclass(eq=False)
class _Child:
    """A process. Two are equal when they are the same object.

    Attributes:
        place: of how many processes run at once, which one.
        process: as the system has it.
        taken: numbers of parts that it has in hand.
        advanced: images of these that it told as done.
    """

    place: int
    process: subprocess.Popen[str]
    taken: set[int] = field(default_factory=set)
    advanced: int = 0

    @property
    def end(self) -> str:
        """Return how it ended, in words."""
        code = self.process.returncode
        if code >= 0:
            return f"with exit code {code}"
        try:
            return f"by {signal.Signals(-code).name}"
        except ValueError:
            return f"by signal {-code}"


class _Crew:
    """Processes that take numbers of parts from one pipe until it is empty.

    Args:
        job: what each is to do.
        numbers: of the parts.
        count: how many processes.
        gpus: as in `in_processes`.
        cores: of each.
    """

    def __init__(
        self, job: dict[str, Any], numbers: list[int], count: int, gpus: Sequence[str], cores: int
    ):
        self.job, self.numbers, self.count = job, numbers, count
        self.gpus, self.cores = gpus, cores
        self.children: list[_Child] = []
        self.told: SimpleQueue[tuple[_Child, dict[str, Any] | None]] = SimpleQueue()
        self.stack = ExitStack()

    def __enter__(self) -> _Crew:
        self.queue, feed = os.pipe()
        self.stack.callback(os.close, self.queue)
        Thread(target=self._feed, args=(feed,), daemon=True).start()
        self.stack.callback(self._stop)
        with ExitStack() as failing:
            failing.push(self.__exit__)
            for place in range(self.count):
                self.start(place)
            failing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def _feed(self, feed: int) -> None:
        """Put the numbers into the pipe, of which the last reader may have gone."""
        with os.fdopen(feed, "wb", buffering=0) as file, suppress(BrokenPipeError):
            for number in self.numbers:
                file.write(number.to_bytes(_NUMBER, "little"))

    def start(self, place: int) -> None:
        """Start a process, in place of one that ended perhaps."""
        package = str(Path(__file__).parents[3])
        environment = {
            "OMP_NUM_THREADS": str(self.cores),
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                filter(None, [package, os.environ.get("PYTHONPATH")])
            ),
        }  # fmt: skip
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[place % len(self.gpus)]
        process = subprocess.Popen(
            COMMAND,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(self.queue,),
            text=True,
            process_group=0,  # Ctrl-C is for this process alone, which ends them
        )
        child = _Child(place, process)
        self.children.append(child)
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # its end is told where it is heard
            process.stdin.write(json.dumps({**self.job, "queue": self.queue}) + "\n")
            process.stdin.flush()
        Thread(target=self._listen, args=(child,), daemon=True).start()

    def _listen(self, child: _Child) -> None:
        assert child.process.stdout is not None
        for line in child.process.stdout:
            with suppress(ValueError):  # half a line, of one that was killed
                self.told.put((child, json.loads(line)))
        child.process.wait()
        self.told.put((child, None))

    def messages(self) -> Iterator[tuple[_Child, dict[str, Any] | None]]:
        """Yield what processes tell until all have ended; None of one that ended suddenly."""
        ended = 0
        while ended < len(self.children):
            child, message = self.told.get()
            if message is None:
                ended += 1
                if child.process.returncode == 0:
                    continue
            yield child, message

    def _stop(self) -> None:
        """End the processes that are there still, in order where they can."""
        running = [child.process for child in self.children if child.process.poll() is None]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for child in self.children:
            assert child.process.stdin is not None
            with suppress(OSError):
                child.process.stdin.close()
