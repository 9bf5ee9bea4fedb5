"""`quiet`: what image libraries complain about while images are decoded is not shown.

A damaged picture becomes a reason in our own list. Besides, libjpeg and libtiff print lines on C's
standard error for such files, and Pillow warns and logs: a flood over a million images.
"""

from __future__ import annotations

import ctypes
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

#: An entry of `warnings.filters`: nothing from these modules, the ones that decode.
_FILTER = ("ignore", None, Warning, re.compile(r"(PIL|torchvision|pipeline\.images)\."), 0)
_LOG = logging.getLogger("PIL.TiffImagePlugin")
#: The C variable that `fprintf(stderr, …)` writes to: glibc's and musl's name, then macOS's.
_C_NAMES = ("stderr", "__stderrp")


class _Silence:
    """The process's warning filters, Pillow's log and C's `stderr`, changed while anyone is inside.

    C's `stderr` points at /dev/null meanwhile. Python itself writes to file descriptor 2 and not
    through this variable, so progress, logging, tracebacks and faulthandler still reach the person.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters: list[list[Any]] = []  # every list that the entry was put into
        self._c_stderr: int | None = None  # where it pointed before

    def enter(self) -> None:
        with self._lock:
            filters = cast("list[Any]", warnings.filters)
            if _FILTER not in filters:  # also where somebody has replaced the list since
                filters.insert(0, _FILTER)
                self._filters.append(filters)
            if not self._inside:
                _LOG.addFilter(_refuse)
                if (found := _c_stderr()) is not None:
                    variable, null = found
                    self._c_stderr, variable.value = variable.value, null
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside:
                return
            # `catch_warnings` copies the list: what it will bring back is to be cleared as well
            for filters in (*self._filters, cast("list[Any]", warnings.filters)):
                filters[:] = [entry for entry in filters if entry != _FILTER]
            self._filters.clear()
            _LOG.removeFilter(_refuse)
            if (found := _c_stderr()) is not None:
                found[0].value = self._c_stderr


def _refuse(_record: logging.LogRecord) -> bool:
    return False


@cache
def _c_stderr() -> tuple[ctypes.c_void_p, int] | None:
    """Return C's `stderr` and an open /dev/null; None where there is no such library (Windows)."""
    try:
        library = ctypes.CDLL(None)
        name = next(name for name in _C_NAMES if hasattr(library, name))
    except (OSError, TypeError, StopIteration):
        return None
    library.fopen.restype = ctypes.c_void_p
    null = library.fopen(b"/dev/null", b"w")  # stays open: another thread may be in it
    return (ctypes.c_void_p.in_dll(library, name), null) if null else None


_silence = _Silence()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the libraries that decode, in the whole process, for as long as the block lasts.

    For the thread that starts others to decode, around their whole life. Blocks may be nested, and
    open in any number of threads: what was before is restored when the last one ends.
    """
    _silence.enter()
    try:
        yield
    finally:
        _silence.leave()


@contextmanager
def decoding_threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Give threads that decode quietly; at the end they are waited for, and what waits dropped."""
    with quiet():
        pool = ThreadPoolExecutor(workers, "decode")
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
