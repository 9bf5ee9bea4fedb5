"""Standard streams that take any text in any encoding, and whose loss ends no work."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import TextIOWrapper
from typing import TextIO


def in_utf8() -> None:
    """Start the program anew in Python's UTF-8 mode, where the locale makes file names another.

    Names of files and classes are UTF-8 on nearly every disk; where Python takes them for ASCII or
    Latin-1 (`LC_ALL=C`), the same folder would be another data set. What is printed stays in the
    encoding of the terminal, but for ASCII.
    """
    environment = os.environ | {"PYTHONUTF8": "1"}
    ready = sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1"
    if ready or os.name == "nt" or not sys.executable:
        return
    if sys.stdout is not None and sys.stdout.encoding.lower() not in ("ascii", "ansi_x3.4-1968"):
        environment.setdefault("PYTHONIOENCODING", sys.stdout.encoding)
    with suppress(OSError):  # it works with the names as they are
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


@contextmanager
def prepared() -> Iterator[None]:
    """Let the standard streams take what is printed in the block, and be there.

    A character that a stream's encoding lacks is written as its number. A stream that was closed
    (`>&-`) is /dev/null: else its number would go to the next file that is opened, and a library
    that prints would print into a shard.

    Raises:
        SystemExit: 1, what was printed could not be written, as to a full disk.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number, which is this one
    with ExitStack() as stack:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None:
                null = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                setattr(sys, name, null)
                stack.callback(setattr, sys, name, None)
            elif isinstance(stream, TextIOWrapper):
                stack.callback(_restore, stream, stream.errors)
                stream.reconfigure(errors="backslashreplace")
        try:
            yield
        finally:
            _flush(sys.stdout)


def _flush(stream: TextIO | None) -> None:
    """Write out what is held back, while there is somebody to tell that it cannot be written."""
    if stream is None or stream.closed:
        return
    try:
        stream.flush()
    except OSError as error:
        with suppress(OSError, ValueError):  # else Python tries again when it ends, and complains
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not isinstance(error, BrokenPipeError):  # the reader has left, as `head` does
            print(f"Error: What was printed cannot be written: {error.strerror}.", file=sys.stderr)  # noqa: T201
            raise SystemExit(1) from error


def _restore(stream: TextIOWrapper, errors: str | None) -> None:
    with suppress(OSError, ValueError):  # it is full, or was closed
        stream.reconfigure(errors=errors)
