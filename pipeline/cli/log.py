"""`--log-file`: what is told to the person is appended to a file, each line with the time."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import click
from click.core import ParameterSource

from pipeline import __version__


class Tee:
    """A text stream whose whole lines a log hears; anything else is the stream's own.

    Args:
        stream: standard output or error.
        log: hears.
    """

    def __init__(self, stream: TextIO, log: Log):
        self.stream, self.log, self.rest, self.heard = stream, log, "", True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write, and tell the log of the lines that are whole now."""
        count = self.stream.write(text)
        if self.heard:
            *lines, self.rest = (self.rest + text).split("\n")
            self.log.tell(lines)
        return count

    def finish(self) -> None:
        """Tell the log of a last line without an end."""
        if self.rest:
            self.log.tell([self.rest])


class Log:
    """A file that hears all that is told, from `open` to the end of the `with` block.

    Args:
        words: of the command line, without the program's name.
    """

    def __init__(self, words: Sequence[str]):
        self.words = words
        self.file: TextIO | None = None
        self.out: Tee | None = None
        self.err: Tee | None = None

    def open(self, path: str) -> None:
        """Append to `path` from now on.

        Raises:
            click.ClickException: it cannot be written.
        """
        try:
            self.file = open(  # noqa: SIM115 - closed at the end of the block
                path, "a", encoding="utf-8", errors="backslashreplace", buffering=1
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise click.ClickException(
                f"The log file {path} cannot be written: {reason}. Name another with --log-file."
            ) from error
        self.tell([f"headstart {__version__}: {shlex.join(['pipeline', *self.words])}"])
        sys.stdout = self.out = Tee(sys.stdout, self)
        sys.stderr = self.err = Tee(sys.stderr, self)

    def tell(self, lines: Sequence[str]) -> None:
        """Write lines, each with the time (UTC); where that fails, say so and go on without."""
        if self.file is None:
            return
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        try:
            self.file.writelines(f"{now} {part}\n" for line in lines for part in line.split("\n"))
        except OSError as error:
            self.file = None  # first, since the sentence is told here too
            click.echo(f"The log file ends here: {error.strerror}.", err=True)

    def leave_out_results(self) -> None:
        """Keep standard output out: results for programs are not told to a person."""
        if self.out is not None:
            self.out.heard = False

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for tee in (self.out, self.err):
            if tee is not None:
                tee.finish()
        # unless somebody took its place, as for a reader that left
        if self.out is not None and sys.stdout is self.out:
            sys.stdout = self.out.stream
        if self.err is not None and sys.stderr is self.err:
            sys.stderr = self.err.stream
        if isinstance(error, SystemExit):
            self.tell([f"exit code {error.code or 0}"])
        elif error is not None:
            self.tell([f"ended by {error!r}"])
        if self.file is not None:
            self.file.close()


def option() -> click.Option:
    """Return the option, which stands before or behind the command's name."""
    return click.Option(
        ["--log-file"],
        metavar="FILE",
        expose_value=False,
        callback=_open,
        help="Append all that is told to FILE, each line with the time.",
    )


def _open(context: click.Context, param: click.Parameter, value: str | None) -> None:
    log = context.find_object(Log)
    if value is None or log is None or context.resilient_parsing:
        return
    if log.file is None:
        log.open(str(Path(value).expanduser()))
    elif context.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--log-file is given twice; give it once.", context)
