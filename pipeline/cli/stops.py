"""Ctrl-C and SIGTERM end a command as a KeyboardInterrupt, whatever code they meet it in."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer, main_thread
from types import FrameType

#: Seconds until a stop that was lost is sent again: by then the code that lost it has returned.
AGAIN = 0.02


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM)."""


@contextmanager
def heard() -> Iterator[None]:
    """Raise `Terminated` at SIGTERM, and send a stop again that was raised where nothing can be.

    Python runs a signal's handler between any two steps of the main thread, also in the end of an
    object or of a weak reference (`sys.unraisablehook`): what is raised there is printed and
    forgotten, and the command would go on as if nobody had asked.
    """
    before, hook = signal.signal(signal.SIGTERM, _terminate), sys.unraisablehook
    timers: list[Timer] = []

    def unraisable(lost: sys.UnraisableHookArgs) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            timers.append(Timer(AGAIN, _send, [number(lost.exc_type)]))
            timers[-1].daemon = True
            timers[-1].start()
        else:
            hook(lost)

    sys.unraisablehook = unraisable
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, before)


def number(kind: type[BaseException]) -> signal.Signals:
    """Return the signal that raises a kind of KeyboardInterrupt."""
    return signal.SIGTERM if issubclass(kind, Terminated) else signal.SIGINT


def _send(number: int) -> None:
    """Send a signal to the main thread, which may be waiting for another."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated
