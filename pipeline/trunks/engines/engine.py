"""`Engine`: uint8 batches in, float32 rows out. Its implementations stand beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import torch


class Engine(Protocol):
    """Runs a frozen trunk over a stream of batches."""

    name: str  #: recorded with every shard
    notes: list[str]  #: sentences for the person, such as a halved batch

    def run(self, batches: Iterable[torch.Tensor]) -> Iterator[np.ndarray]:
        """Yield the rows of each batch, in order; may take a few batches ahead.

        Args:
            batches: uint8 crops [B, 3, S, S], channels last in memory.

        Yields:
            [B, …] of each: float32, or the crops themselves.
        """
        ...


class Pixels:
    """No trunk at all: the crops are the rows, channels last, uint8 [B, S, S, 3]."""

    def __init__(self) -> None:
        self.name = "pixels"
        self.notes: list[str] = []

    def run(self, batches: Iterable[torch.Tensor]) -> Iterator[np.ndarray]:
        """Yield uint8 [B, S, S, 3] for uint8 crops [B, 3, S, S]."""
        for crops in batches:
            yield crops.permute(0, 2, 3, 1).contiguous().numpy()
