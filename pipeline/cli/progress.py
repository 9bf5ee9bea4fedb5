"""Progress on standard error: rate, time left, bad images so far. Quiet when not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.cli.log import MESSAGES, echo, shown
from pipeline.progress import Progress, Silent

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


@contextmanager
def reporter(quiet: bool = False, *, stopped: str = "") -> Iterator[Progress]:
    """Yield a `Progress` that draws bars on a terminal, and elsewhere prints sentences alone.

    Args:
        quiet: draw no bars.
        stopped: what Ctrl-C says; empty for what the work itself says.
    """
    try:
        if quiet or not sys.stderr.isatty():
            yield Sentences()
        else:
            with _bars() as bars:
                yield _Bars(bars)
    except KeyboardInterrupt as stop:
        stop.args = (stopped,) if stopped else stop.args
        raise


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[bad]}", style="red"),
        console=Console(file=sys.stderr),
    )


class Sentences(Silent):
    """Prints what a person should read now, each sentence once, and draws nothing."""

    def __init__(self) -> None:
        self.told: set[str] = set()

    def say(self, sentence: str) -> None:
        """Print a sentence on standard error."""
        if sentence not in self.told:
            self.told.add(sentence)
            echo(sentence, err=True)


class _Bars:
    def __init__(self, bars: Bars):
        self.bars = bars
        self.task: TaskID | None = None
        self.bad = 0
        self.told: set[str] = set()

    def start(self, what: str, total: int) -> None:
        if self.task is not None and self.bars.tasks[self.task].total is None:
            self.bars.update(self.task, total=1, completed=1)  # what is not counted has ended
        self.bad = 0
        self.task = self.bars.add_task(what, total=total or None, state="", bad="")

    def advance(self, count: int, bad: int = 0) -> None:
        assert self.task is not None
        self.bad += bad
        self.bars.advance(self.task, count)
        task = self.bars.tasks[self.task]
        rate = f"  {task.speed:.0f} images/s" if task.speed else ""
        self.bars.update(
            self.task,
            state=f"{task.completed:,.0f}/{task.total:,.0f}{rate}",
            bad=f"{self.bad} bad" if self.bad else "",
        )

    def update(self, text: str) -> None:
        assert self.task is not None
        self.bars.update(self.task, state=shown(text))

    def say(self, sentence: str) -> None:
        if sentence in self.told:
            return
        self.told.add(sentence)
        line = shown(sentence)
        self.bars.console.print(line, highlight=False, markup=False)
        MESSAGES.info(line)
