"""Activations as a network takes them in batches: from the cache, or from the images themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import PipelineError
from pipeline.images.decoding.loader import load
from pipeline.images.decoding.reading import VANISHED, Guard
from pipeline.images.names import shown
from pipeline.images.preprocess import Preprocess
from pipeline.images.sources.shelf import is_there
from pipeline.store.shards import Index, Key, RowStore
from pipeline.trunks.engines.engine import Engine, run_batches
from pipeline.trunks.engines.finite import FiniteRows

#: Share of a GPU's free memory that resident activations may take.
RESIDENT = 0.5


class Source(Protocol):
    """Gives what a `Network` takes."""

    def batches(self, keys: Sequence[Key], size: int) -> Iterator[Tensor]:
        """Yield [B, C, H, W] (or [B, D]) for `size` keys at a time, in order, on the device."""
        ...


class LostImages(PipelineError):
    """Images that can no longer be read or used while a network learns from them.

    Args:
        lost: digest to the reason.
        first: path of one of them.
    """

    def __init__(self, lost: Mapping[bytes, str], first: str):
        self.lost = lost
        super().__init__(f"{first} can no longer be decoded: {next(iter(lost.values()))}.")


class Cached:
    """Rows of the shard store, memory-mapped; on a GPU held there whole where they fit.

    Args:
        store: the shards.
        index: where each key's row is.
        keys: all that will be asked for.
        device: where batches are wanted.
    """

    def __init__(self, store: RowStore, index: Index, keys: Sequence[Key], device: torch.device):
        self.index, self.device = index, device
        numbers = np.unique(index.find(keys)[0])
        self.maps = {one: store.rows(index.names[one]) for one in numbers.tolist() if one >= 0}
        self.resident: Tensor | None = None
        if device.type == "cuda" and _fits(self._bytes(keys), torch.cuda.mem_get_info(device)[0]):
            self.place = {key: number for number, key in enumerate(dict.fromkeys(keys))}
            self.resident = torch.from_numpy(self._rows(list(self.place))).to(device)

    def batches(self, keys: Sequence[Key], size: int) -> Iterator[Tensor]:
        """Yield batches; the next is read while one is used."""
        parts = [keys[start : start + size] for start in range(0, len(keys), size)]
        if self.resident is not None:
            for part in parts:
                at = torch.tensor([self.place[key] for key in part], device=self.device)
                yield _channels_first(self.resident[at])
            return
        pin = self.device.type == "cuda"
        with ThreadPoolExecutor(1, "gather") as ahead:
            waiting = [ahead.submit(self._rows, parts[0])] if parts else []
            for number in range(len(parts)):
                rows = torch.from_numpy(waiting.pop().result())
                if number + 1 < len(parts):
                    waiting.append(ahead.submit(self._rows, parts[number + 1]))
                rows = rows.pin_memory() if pin else rows
                yield _channels_first(rows.to(self.device, non_blocking=pin))

    def _rows(self, keys: Sequence[Key]) -> np.ndarray:
        first = next(iter(self.maps.values()))
        out = np.empty((len(keys), *first.shape[1:]), first.dtype)
        numbers, rows = (found.tolist() for found in self.index.find(keys))
        for place, (number, row) in enumerate(zip(numbers, rows, strict=True)):
            out[place] = self.maps[number][row]
        return out

    def _bytes(self, keys: Sequence[Key]) -> int:
        first = next(iter(self.maps.values()))
        return len(set(keys)) * first[:1].nbytes


def _fits(needed: int, free: int) -> bool:
    """Say whether activations may stay on a GPU with so many bytes free."""
    return needed <= RESIDENT * free


class Live:
    """The images themselves, decoded, cropped and run through the frozen part at every use.

    Args:
        engine: runs the frozen part.
        paths: digest to the path of an image, or its bytes.
        preprocess: the trunk's.
        workers: decoding threads.
        device: where batches are wanted.
        guarded: gives the guard against images that crash the decoder, anew for each use.
        finite: tells activations that are not finite.
    """

    def __init__(
        self,
        engine: Engine,
        paths: Mapping[bytes, str | bytes],
        preprocess: Preprocess,
        *,
        workers: int,
        device: torch.device,
        guarded: Callable[[], AbstractContextManager[Guard]],
        finite: FiniteRows,
    ):
        self.engine, self.paths, self.preprocess = engine, paths, preprocess
        self.workers, self.device, self.guarded, self.finite = workers, device, guarded, finite

    def batches(self, keys: Sequence[Key], size: int) -> Iterator[Tensor]:
        """Yield batches; decoding runs ahead.

        Raises:
            LostImages: one is bad now, or its activation not finite; with it every other that is
                no longer there.
        """
        files = [(self.paths[digest], digest, view) for digest, view in keys]
        with (
            self.guarded() as guard,
            closing(load(
                files, self.preprocess, batch_size=size, workers=self.workers,
                pin=self.device.type == "cuda", guard=guard,
            )) as batches,
        ):  # fmt: skip
            for batch, computed in run_batches(self.engine, batches):
                own = files[batch.start : batch.start + batch.count]
                bad = batch.bad or self.finite.bad(
                    computed[: batch.count], [_name(source) for source, _, _ in own]
                )
                if bad:
                    lost = {own[slot][1]: reason for slot, reason in bad.items()}
                    raise LostImages(lost | self._vanished(), _name(own[next(iter(bad))][0]))
                rows = torch.from_numpy(computed[: batch.count])
                yield _channels_first(rows.to(self.device))

    def _vanished(self) -> dict[bytes, str]:
        """Return the images that are not there any more, so that each does not cost a new start."""
        paths = self.paths.items()
        return {d: VANISHED for d, path in paths if isinstance(path, str) and not is_there(path)}


def _name(source: str | bytes) -> str:
    return shown(source) if isinstance(source, str) else "a picture"


def _channels_first(rows: Tensor) -> Tensor:
    """Return [B, C, H, W], channels last in memory, of rows [B, H, W, C]; others as they are."""
    return rows.permute(0, 3, 1, 2) if rows.ndim == 4 else rows
