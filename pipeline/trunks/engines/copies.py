"""How crops reach a device and rows come back: at once, or in CUDA streams of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch

#: Returns rows once they are back, float32 [B, …].
Waiting = Callable[[], np.ndarray]


class Copies(Protocol):
    """Brings batches to a device and rows back."""

    ahead: int  #: batches to launch before the rows of the first are waited for

    def put(self, crops: torch.Tensor) -> torch.Tensor:
        """Return crops [B, 3, S, S] on the device, channels last in memory."""
        ...

    def get(self, rows: torch.Tensor) -> Waiting:
        """Return what waits for float32 rows [B, …] of the device, and gives them."""
        ...


class DirectCopies:
    """Copies at once, where there is nothing to do beside them: a CPU, or MPS."""

    def __init__(self, device: torch.device):
        self.device, self.ahead = device, 0 if device.type == "cpu" else 1

    def put(self, crops: torch.Tensor) -> torch.Tensor:
        """Return crops on the device."""
        if self.device.type == "cpu":
            return crops
        return crops.to(self.device, memory_format=torch.channels_last)

    def get(self, rows: torch.Tensor) -> Waiting:
        """Return what fetches the rows."""
        return lambda: np.asarray(rows.cpu().numpy())


class StreamCopies:
    """Copies in CUDA streams of their own, one inwards and one outwards.

    The rows of a batch come back while the next one is computed and the one after that comes in:
    each copy waits for what it needs, and for nothing that was queued since. Page-locked memory is
    from torch's caching allocator, which gives a block again once the copies that use it are done;
    so does its allocator on the device, which is told of each stream that uses a tensor.
    """

    ahead = 2

    def __init__(self, device: torch.device):
        self.device = device
        streams: Any = torch.cuda.Stream
        self.inward, self.outward = streams(device), streams(device)

    def put(self, crops: torch.Tensor) -> torch.Tensor:
        """Return crops on the device; what is queued next on the current stream waits for them."""
        current = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self.inward):
            there = crops.to(self.device, non_blocking=True, memory_format=torch.channels_last)
        current.wait_stream(self.inward)
        there.record_stream(current)
        return there

    def get(self, rows: torch.Tensor) -> Waiting:
        """Return what waits for rows of the current stream, and for nothing queued behind them."""
        self.outward.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.outward):
            here = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
            here.copy_(rows, non_blocking=True)
        rows.record_stream(self.outward)
        back = self.outward.record_event()

        def wait() -> np.ndarray:
            back.synchronize()
            return np.asarray(here.numpy())

        return wait


def copies_for(device: torch.device) -> Copies:
    """Return how to copy to and from a device."""
    return StreamCopies(device) if device.type == "cuda" else DirectCopies(device)
