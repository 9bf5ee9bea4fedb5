"""PyTorch on CPU, CUDA or MPS as an `Engine`."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from pipeline.errors import PipelineError
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


class TorchEngine:
    """PyTorch on CPU, CUDA or MPS.

    On a CPU BatchNorm is folded and the stages run in the precision's dtype; on a GPU under
    autocast, with pinned and non-blocking copies, and a batch is launched before the rows of the
    one before it are fetched. Everywhere channels_last. A batch that does not fit a GPU's memory
    is halved, for good, and the engine's notes say so.

    Args:
        net: what to run; copied, since its trunk may be trained meanwhile.
        device: `cpu`, `cuda` or `mps`.
        precision: `fp32`, `tf32`, `bf16` or `fp16`.
        size: side of the input, in pixels.
    """

    def __init__(self, net: FeatureNet, *, device: str, precision: str, size: int):
        self.name = f"torch-{device}"
        self.notes: list[str] = []
        self.precision = precision
        self.device, self.dtype = torch.device(device), DTYPES[precision]
        self.limit: int | None = None  # images at once, once memory has run out
        net = copy.deepcopy(net).eval()
        if device == "cpu":
            seeded = torch.Generator().manual_seed(0)
            example = torch.randint(0, 256, (2, 3, size, size), generator=seeded)
            folded = fuse(net, example.to(torch.uint8))
            assert isinstance(folded, FeatureNet)
            net = folded.cast(self.dtype)
        self.net = net.to(self.device).to(memory_format=torch.channels_last)

    def run(self, batches: Iterable[torch.Tensor]) -> Iterator[np.ndarray]:
        """Yield float32 [B, …] for each uint8 batch [B, 3, S, S]."""
        ahead = 0 if self.device.type == "cpu" else 1
        launched: list[list[torch.Tensor]] = []
        for crops in batches:
            launched.append(self._launch(as_tensor(crops)))
            if len(launched) > ahead:
                yield _fetch(launched.pop(0))
        for parts in launched:
            yield _fetch(parts)

    @torch.no_grad()  # inference mode fails in convolutions of one image (torch 2.14)
    def _launch(self, crops: torch.Tensor) -> list[torch.Tensor]:
        """Return rows of consecutive parts of a batch, where they were computed."""
        parts: list[torch.Tensor] = []
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

    def _forward(self, crops: torch.Tensor) -> torch.Tensor:
        if self.device.type == "cpu":
            rows: torch.Tensor = self.net(crops)
            return rows
        crops = crops.to(self.device, non_blocking=True, memory_format=torch.channels_last)
        enabled = self.dtype != torch.float32
        autocast = torch.autocast(self.device.type, dtype=self.dtype, enabled=enabled)
        with products(self.precision), autocast:
            rows = self.net(crops)
        return rows.float()


def _fetch(parts: list[torch.Tensor]) -> np.ndarray:
    return np.concatenate([part.cpu().numpy() for part in parts])
