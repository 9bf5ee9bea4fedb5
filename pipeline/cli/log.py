"""What is told to the person: printed, and with `--log-file` appended to a file with the time."""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
from click.core import ParameterSource

from pipeline import __version__

#: Hears all that is told; results for programs are printed past it.
MESSAGES = logging.getLogger("pipeline.messages")
MESSAGES.propagate = False


def shown(text: object) -> str:
    """Return text that any terminal takes: bytes that are not UTF-8 are replaced."""
    return str(text).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def echo(text: object, *, err: bool = False) -> None:
    """Tell the person a line, on standard output or standard error."""
    line = shown(text)
    click.echo(line, err=err)
    MESSAGES.info(line)


class LogFile(logging.FileHandler):
    """Appends what is told, each line with the time (UTC); a full disk ends it and not the work."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a message's lines, each with the time."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        return "\n".join(f"{now} {line}" for line in str(record.msg).split("\n"))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say why the file ends, and hear no more."""
        MESSAGES.removeHandler(self)
        error = sys.exc_info()[1]
        click.echo(f"The log file ends here: {getattr(error, 'strerror', error)}.", err=True)


@contextmanager
def logged(words: Sequence[str]) -> Iterator[None]:
    """Write how the command line of the block ended to the log file, if it opens one.

    Args:
        words: of the command line, without the program's name.
    """
    before, level = list(MESSAGES.handlers), MESSAGES.level
    MESSAGES.setLevel(logging.INFO)
    try:
        yield
    except SystemExit as error:
        MESSAGES.info(f"exit code {error.code or 0}")
        raise
    except BaseException as error:
        MESSAGES.info(f"ended by {error!r}")
        raise
    finally:
        for handler in [one for one in MESSAGES.handlers if one not in before]:
            MESSAGES.removeHandler(handler)
            handler.close()
        MESSAGES.setLevel(level)


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
    words = context.find_object(list)
    if value is None or words is None or context.resilient_parsing:
        return
    if any(isinstance(handler, LogFile) for handler in MESSAGES.handlers):
        if context.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE:
            raise click.UsageError("--log-file is given twice; give it once.", context)
        return
    path = Path(value).expanduser()
    try:
        MESSAGES.addHandler(LogFile(path, encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise click.ClickException(
            f"The log file {path} cannot be written: {reason}. Name another with --log-file."
        ) from error
    from pipeline.images.sources.address import without_secrets

    command = shlex.join(["pipeline", *map(without_secrets, words)])
    MESSAGES.info(shown(f"headstart {__version__}: {command}"))
