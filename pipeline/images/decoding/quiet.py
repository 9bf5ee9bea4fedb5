"""`quiet`: what image libraries complain about while we decode is not shown.

A damaged picture becomes a reason in our own list. Besides, libjpeg prints a line on C's
standard error for each such file, and Pillow warns and logs: a flood over a million images.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

#: The C variable that `fprintf(stderr, …)` writes to: glibc's and musl's name, then macOS's.
_C_NAMES = ("stderr", "__stderrp")


class _CStderr:
    """C's `stderr`, pointed at /dev/null for as long as any thread is inside.

    Python itself writes to file descriptor 2 and not through this variable, so progress, logging,
    tracebacks and faulthandler still reach the person. Swapping the descriptor would take them
    along.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._variable, self._null, self._before = self._find()

    @staticmethod
    def _find() -> tuple[ctypes.c_void_p | None, int | None, int | None]:
        try:
            library = ctypes.CDLL(None)
        except (OSError, TypeError):  # Windows has no such library: nothing is silenced there
            return None, None, None
        for name in _C_NAMES:
            try:
                variable = ctypes.c_void_p.in_dll(library, name)
            except ValueError:
                continue
            library.fopen.restype = ctypes.c_void_p
            null = library.fopen(b"/dev/null", b"w")  # stays open: another thread may be in it
            return (variable, null, variable.value) if null else (None, None, None)
        return None, None, None

    def enter(self) -> None:
        if self._variable is not None:
            with self._lock:
                self._inside += 1
                self._variable.value = self._null

    def leave(self) -> None:
        if self._variable is not None:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._variable.value = self._before


class _ThisThread(threading.local):
    """Stands in a warning filter where a pattern would: it matches while its thread is quiet.

    `warnings.catch_warnings` replaces the whole process's filters and is not safe in threads.
    """

    depth = 0

    def match(self, _text: str) -> bool:
        return self.depth > 0

    def log(self, _record: logging.LogRecord) -> bool:
        """Stand in a logger as its filter: nothing passes while the thread is quiet."""
        return self.depth == 0


_c_stderr = _CStderr()
_this_thread = _ThisThread()
logging.getLogger("PIL.TiffImagePlugin").addFilter(_this_thread.log)
_FILTER = ("ignore", cast("Any", _this_thread), Warning, None, 0)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence C's standard error, and this thread's warnings and Pillow's log, in the block.

    Any number of threads may be inside at once. Python's own `sys.stderr` is not touched, nor
    are the warnings of other threads.
    """
    filters = cast("list[Any]", warnings.filters)
    if not filters or filters[0] is not _FILTER:  # not there yet, or someone reset the filters
        filters.insert(0, _FILTER)
    _c_stderr.enter()
    _this_thread.depth += 1
    try:
        yield
    finally:
        _this_thread.depth -= 1
        _c_stderr.leave()
