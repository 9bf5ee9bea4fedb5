"""`Engine`: uint8 batches in, float32 rows out. Its implementations stand beside it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline.images.decoding.loader import Batch

if TYPE_CHECKING:
    import torch


class Engine(Protocol):
    """Runs a frozen trunk over a stream of batches."""

    name: str  #: recorded with every shard
    precision: str  #: what it computes in, read back where that was a hint; "" for none
    notes: list[str]  #: sentences for the person, such as a halved batch

    def run(self, batches: Iterable[torch.Tensor]) -> Iterator[np.ndarray]:
        """Yield the rows of each batch, in order; may take a few batches ahead.

        Args:
            batches: uint8 crops [B, 3, S, S], channels last in memory; or arrays [B, S, S, 3].

        Yields:
            [B, …] of each: float32, or the crops themselves.
        """
        ...


def run_batches(engine: Engine, batches: Iterable[Batch]) -> Iterator[tuple[Batch, np.ndarray]]:
    """Yield each batch with its rows [B, …]; those behind its last image are padding's.

    Args:
        engine: may take a few batches ahead.
        batches: from the loader, in order.
    """
    taken: deque[Batch] = deque()

    def crops() -> Iterator[Any]:
        for batch in batches:
            taken.append(batch)
            yield batch.crops

    for rows in engine.run(crops()):
        yield taken.popleft(), rows


class Pixels:
    """No trunk at all: the crops are the rows, channels last, uint8 [B, S, S, 3]."""

    def __init__(self) -> None:
        self.name = "pixels"
        self.precision = ""
        self.notes: list[str] = []

    def run(self, batches: Iterable[torch.Tensor]) -> Iterator[np.ndarray]:
        """Yield uint8 [B, S, S, 3] for uint8 crops [B, 3, S, S]."""
        for crops in batches:
            yield as_array(crops)


def as_array(crops: Any) -> np.ndarray:
    """Return a batch of crops as an array [B, S, S, 3]."""
    if isinstance(crops, np.ndarray):
        return crops
    return np.asarray(crops.permute(0, 2, 3, 1).contiguous().numpy())


def as_tensor(crops: Any) -> torch.Tensor:
    """Return a batch of crops as a tensor [B, 3, S, S], channels last in memory."""
    import torch

    if isinstance(crops, np.ndarray):
        return torch.from_numpy(crops).permute(0, 3, 1, 2)
    tensor: torch.Tensor = crops
    return tensor
