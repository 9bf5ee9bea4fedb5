"""PyTorch on CPU, CUDA or MPS as an `Engine`."""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext

import numpy as np
import torch

from pipeline.errors import PipelineError, UsageError
from pipeline.trunks.engines.copies import Waiting, copies_for
from pipeline.trunks.engines.engine import as_tensor
from pipeline.trunks.engines.fuse import fuse
from pipeline.trunks.engines.products import products
from pipeline.trunks.feature_net import FeatureNet

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
#: Batches that a rate is measured on.
_TRIED = 6


class TorchEngine:
    """PyTorch on CPU, CUDA or MPS.

    BatchNorm is folded, and the stages hold their weights in the precision's dtype, channels last;
    on a GPU the stem too, which would take as long as all others there. Copies to and from CUDA go
    on beside the arithmetic. A batch that does not fit a GPU's memory is halved, for good, and the
    engine's notes say so.

    Args:
        net: what to run; copied, since its trunk may be trained meanwhile.
        device: `cpu`, `cuda` or `mps`.
        precision: `fp32`, `tf32`, `bf16` or `fp16`.
        size: side of the input, in pixels.
        compiled: run what `torch.compile` makes of it.

    Raises:
        UsageError: it cannot be compiled here.
    """

    def __init__(
        self, net: FeatureNet, *, device: str, precision: str, size: int, compiled: bool = False
    ):
        self.name = f"torch-{device}" + "-compiled" * compiled
        self.notes: list[str] = []
        self.precision = precision
        self.device = torch.device(device)
        self.shape = (3, size, size)
        self.limit: int | None = None  # images at once, once memory has run out
        seeded = torch.Generator().manual_seed(0)
        example = torch.randint(0, 256, (2, *self.shape), generator=seeded).to(torch.uint8)
        folded = fuse(copy.deepcopy(net).eval(), example)
        assert isinstance(folded, FeatureNet)
        cast = folded.cast(DTYPES[precision], stem=device != "cpu")
        self.copies = copies_for(self.device)
        self.net: Callable[[torch.Tensor], torch.Tensor] = cast.to(self.device).to(
            memory_format=torch.channels_last
        )
        if compiled:
            self.net = _compiled(self.net, self.copies.put(example))

    def run(self, batches: Iterable[torch.Tensor]) -> Iterator[np.ndarray]:
        """Yield float32 [B, …] for each uint8 batch [B, 3, S, S]."""
        launched: deque[list[Waiting]] = deque()
        for crops in batches:
            launched.append(self._launch(as_tensor(crops)))
            if len(launched) > self.copies.ahead:
                yield _fetch(launched.popleft())
        while launched:
            yield _fetch(launched.popleft())

    @torch.no_grad()
    def rate(self, size: int) -> float:
        """Return images of noise a second in batches of `size`; 0 where one fills the memory."""
        noise = torch.randint(0, 256, (size, *self.shape), dtype=torch.uint8)
        crops = noise.contiguous(memory_format=torch.channels_last)
        if self.device.type == "cuda":
            crops = crops.pin_memory()
        try:
            self._forward(crops)()
            began = time.perf_counter()
            for wait in [self._forward(crops) for _ in range(_TRIED)]:
                wait()
        except torch.OutOfMemoryError:
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            return 0.0
        return _TRIED * size / (time.perf_counter() - began)

    @torch.no_grad()  # inference mode fails in convolutions of one image (torch 2.14)
    def _launch(self, crops: torch.Tensor) -> list[Waiting]:
        """Return what waits for the rows of consecutive parts of a batch."""
        parts: list[Waiting] = []
        start = 0
        while start < len(crops):
            part = crops[start : start + (self.limit or len(crops))]
            try:
                parts.append(self._forward(part))
            except torch.OutOfMemoryError as error:
                if len(part) == 1:
                    raise PipelineError(
                        f"One image does not fit the memory of {self.device}; give --device cpu or "
                        "a smaller --image-size."
                    ) from error
                self.limit = (len(part) + 1) // 2
                self.notes.append(
                    f"Out of memory on {self.device} with {len(part)} images at once; "
                    f"going on with {self.limit}."
                )
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            start += len(part)
        return parts

    def _forward(self, crops: torch.Tensor) -> Waiting:
        with products(self.precision) if self.device.type == "cuda" else nullcontext():
            rows = self.net(self.copies.put(crops))
        return self.copies.get(rows.float())


def _fetch(parts: list[Waiting]) -> np.ndarray:
    return np.concatenate([wait() for wait in parts])


def _compiled(
    net: Callable[[torch.Tensor], torch.Tensor], example: torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a network compiled, and run once: what is missing for that shows then."""
    made: Callable[[torch.Tensor], torch.Tensor] = torch.compile(net)
    try:
        with torch.no_grad():
            made(example)
    except Exception as error:  # whatever its backends raise
        why = (
            str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        )
        raise UsageError(
            f"torch.compile does not work here ({why}). Give --engine torch."
        ) from error
    return made
