"""Compute parts of a plan in a process of its own, for `pipeline.extraction.spread.processes`.

    python -m pipeline.extraction.spread.child

reads a job, one line of JSON, from standard input, and numbers of parts from a pipe that all such
processes share: whoever reads one has it. It tells what it does in lines of JSON on standard
output, and ends when standard input does, since then nobody listens any more.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any, TextIO

from pipeline import garbage
from pipeline.errors import PipelineError
from pipeline.extraction.compute import compute_parts
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.plan import Part, Parts
from pipeline.extraction.spread.plan_file import PlanFile, told
from pipeline.images.sources.address import remember
from pipeline.store.cache import Cache
from pipeline.trunks import permitted

#: Bytes of a number in the pipe; so few are read and written in one piece.
NUMBER = 4


class _Told:
    """Tells the process that listens, as a `Progress` and otherwise."""

    def __init__(self, out: TextIO):
        self.out = out

    def tell(self, **message: Any) -> None:
        self.out.write(json.dumps(message) + "\n")
        self.out.flush()

    def start(self, what: str, total: int) -> None:
        self.tell(start=what)

    def advance(self, count: int, bad: int = 0) -> None:
        self.tell(advance=[count, bad])

    def update(self, text: str) -> None:
        pass

    def say(self, sentence: str) -> None:
        self.tell(say=sentence)


def numbers(queue: int) -> Iterator[int]:
    """Yield numbers of parts until there are no more, each a little before it is needed."""
    while number := os.read(queue, NUMBER):
        yield int.from_bytes(number, "little")


def taken(parts: Parts, own: Iterator[int], tell: _Told) -> Iterator[Part]:
    """Yield parts, and tell of each that it is in hand now."""
    for number in own:
        tell.tell(taken=number)
        yield parts[number]


def main() -> None:
    """Do the job of standard input."""
    garbage.collect_rarely()
    tell = _Told(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)  # what libraries print is no message
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that listens
    signal.signal(signal.SIGTERM, _end)
    job = json.loads(sys.stdin.readline())
    Thread(target=_end_with_input, daemon=True).start()
    own = numbers(job["queue"])
    if (first := next(own, None)) is None:
        return  # before anything slow is imported
    sys.path[:] = job["path"]
    remember(job["secrets"])
    options, cache = ExtractOptions(**job["options"]), Cache(Path(job["cache"]))
    permitted.permit(options.trunk)
    try:
        file = PlanFile.read(cache.plans / job["plan"])
        plan = file.plan(cache, file.paths(job["paths"]))
        parts = taken(plan.parts, chain([first], own), tell)
        for done in compute_parts(plan, parts, cache, options, tell, shared=True):
            file.note(done)
            tell.tell(done=told(done))
    except PipelineError as error:
        tell.tell(error=[type(error).__name__, str(error)])


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _end_with_input() -> None:
    while os.read(0, 1 << 10):  # not `sys.stdin`, whose lock the interpreter needs to end
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
