"""`ThreadPool`: threads that each take whole blocks of rows.

PyTorch splits every small operation over its threads, which meet at a barrier after each. On a
busy machine a barrier waits for whoever is not scheduled, and a step of the solver has hundreds.
Here each thread runs its own operations on its own rows, and they meet once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ThreadPool:
    """Threads for blocks of rows. Equal when they are the same threads."""

    size: int = 1
    pool: ThreadPoolExecutor | None = None

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Yield the results in the order of the items, whoever finished first."""
        if self.pool is None or len(items) < 2:
            return map(work, items)
        return self.pool.map(torch.inference_mode()(work), items)  # a mode is its thread's own


@contextmanager
def thread_pool(device: torch.device, elements: int) -> Iterator[ThreadPool]:
    """Give as many threads as PyTorch was allowed, each running its operations alone.

    Args:
        device: a GPU needs none.
        elements: size of the data; little data is faster in one thread.
    """
    allowed = torch.get_num_threads()
    if device.type != "cpu" or allowed == 1:
        yield ThreadPool()
        return
    torch.set_num_threads(1)
    try:
        if elements < 1 << 20:
            yield ThreadPool()
            return
        with ThreadPoolExecutor(allowed, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield ThreadPool(allowed, pool)
    finally:
        torch.set_num_threads(allowed)
