"""A stream in the parts in which it comes, so that whoever waits for an answer gets it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")

#: Seconds without another item after which those that have come are worked on.
PATIENCE = 0.01
_END = object()


def bursts(items: Iterable[T], most: int, patience: float = PATIENCE) -> Iterator[list[T]]:
    """Yield the items in parts of one to `most`, each as soon as nothing more is coming.

    A thread reads the items; it waits while as many as `most` have not been asked for.

    Args:
        items: whose next one may take any time.
        most: in a part.
        patience: seconds to wait for one more.

    Raises:
        Exception: that reading raised, after what came before it.
    """
    come: Queue[object] = Queue(most)
    failed: list[BaseException] = []
    stopped = Event()

    def put(item: object) -> None:
        waiting = True
        while waiting and not stopped.is_set():
            with suppress(Full):
                come.put(item, timeout=1)
                waiting = False

    def read() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
        except BaseException as error:
            failed.append(error)
        put(_END)

    Thread(target=read, name="reading", daemon=True).start()
    try:
        part: list[T] = []
        while True:
            try:
                item = come.get(timeout=patience if part else None)
            except Empty:
                item = None
            if item is not None and item is not _END:
                part.append(item)  # type: ignore[arg-type]
            if part and (item is None or item is _END or len(part) == most):
                yield part
                part = []
            if item is _END:
                break
        if failed:
            raise failed[0]
    finally:
        stopped.set()
