"""Engines: uint8 batches in, float32 rows out."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.errors import PipelineError, UsageError
from pipeline.images.preprocess import Preprocess
from pipeline.trunks.fuse import fuse
from pipeline.trunks.stages import StagedTrunk

DEVICES = ("cpu", "cuda", "mps")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
GEM_POWER = 3.0  # Radenović et al. 2018, "Fine-tuning CNN Image Retrieval with No Human Annotation"


class Engine(Protocol):
    """Runs a frozen trunk over batches."""

    name: str  #: recorded with every shard
    notes: list[str]  #: sentences for the person, such as a halved batch

    def rows(self, crops: torch.Tensor) -> np.ndarray:
        """Return [B, …] for uint8 crops [B, 3, S, S]: float32, or the crops themselves."""
        ...


class Pixels:
    """No trunk at all: the crops are the rows, channels last, uint8 [B, S, S, 3]."""

    def __init__(self) -> None:
        self.name = "pixels"
        self.notes: list[str] = []

    def rows(self, crops: torch.Tensor) -> np.ndarray:
        """Return uint8 [B, S, S, 3] for uint8 crops [B, 3, S, S]."""
        return crops.permute(0, 2, 3, 1).contiguous().numpy()


class FeatureNet(nn.Module):
    """Normalise, run a trunk to the end of a layer, pool in float32.

    Args:
        trunk: in eval mode.
        preprocess: its mean and std are applied here.
        layer: a stage, or `feature` for what enters the library's last Linear.
        pool: `avg`, `max`, `gem`, `flat`, `own` (only with `feature`), or `map` for none.
        after: run from the end of this stage on, of whose activation the input is then;
            `pixels` for crops, `feature` for what this network itself gives.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        trunk: StagedTrunk,
        preprocess: Preprocess,
        layer: str,
        pool: str,
        after: str = "pixels",
    ):
        super().__init__()
        self.trunk, self.pool, self.after = trunk, pool, after
        self.stage = "layer4" if layer == "feature" else layer
        self.run = stages_between(trunk, after, self.stage)
        scale = 255.0
        mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
        self.register_buffer("mean", (mean * scale).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", (std * scale).view(1, 3, 1, 1), persistent=False)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Return float32 [B, D], or [B, H, W, C] with `map`.

        Args:
            crops: uint8 (or float, 0 to 255) [B, 3, S, S]; or the activation [B, C, H, W] that
                `after` names.
        """
        x = crops
        if self.after == "feature":
            return x.float()
        if self.after == "pixels":
            x = (x.float() - self.mean) / self.std
        for name in self.run:
            x = self.trunk.stages[name](x if name == "stem" else x.to(self.dtype))
        x = x.float()
        if self.pool == "map":
            return x.permute(0, 2, 3, 1)
        if self.pool == "own":
            return self.trunk.forward_after(x, "layer4")
        if self.pool == "flat":
            return x.flatten(1)
        if self.pool == "max":
            return x.amax((2, 3))
        if self.pool == "gem":
            return F.adaptive_avg_pool2d(x.clamp_min(1e-6) ** GEM_POWER, 1).flatten(1) ** (
                1 / GEM_POWER
            )
        return x.mean((2, 3))

    dtype: torch.dtype = torch.float32

    def cast(self, dtype: torch.dtype) -> FeatureNet:
        """Run the stages in `dtype`; stem, pooling and neck stay in float32.

        With few channels nothing averages rounding out: in bfloat16 half of the error of
        EfficientNet-Lite0's features came from its stem.
        """
        self.dtype = dtype
        for name, stage in self.trunk.stages.items():
            if name != "stem":
                stage.to(dtype)
        return self


def stages_between(trunk: StagedTrunk, after: str, last: str) -> list[str]:
    """Return the stages behind `after` up to and with `last`."""
    names = list(trunk.stages)
    if after == "feature":
        return []
    first = 0 if after == "pixels" else names.index(after) + 1
    return names[first : names.index(last) + 1]


class TorchEngine:
    """PyTorch on CPU, CUDA or MPS.

    On a CPU BatchNorm is folded and the stages run in the precision's dtype; on a GPU under
    autocast, with pinned and non-blocking copies. Everywhere channels_last. A batch that does not
    fit a GPU's memory is halved, for good, and the engine's notes say so.

    Args:
        net: what to run; copied, since its trunk may be trained meanwhile.
        device: `cpu`, `cuda` or `mps`.
        precision: `fp32`, `bf16` or `fp16`.
        size: side of the input, in pixels.
    """

    def __init__(self, net: FeatureNet, *, device: str, precision: str, size: int):
        self.name = f"torch-{device}"
        self.notes: list[str] = []
        self.device, self.dtype = torch.device(device), DTYPES[precision]
        self.limit: int | None = None  # images at once, once memory has run out
        net = copy.deepcopy(net).eval()
        if device == "cpu":
            example = torch.randint(0, 256, (2, 3, size, size), generator=_generator())
            folded = fuse(net, example.to(torch.uint8))
            assert isinstance(folded, FeatureNet)
            net = folded.cast(self.dtype)
        self.net = net.to(self.device).to(memory_format=torch.channels_last)

    @torch.no_grad()  # inference mode fails in convolutions of one image (torch 2.14)
    def rows(self, crops: torch.Tensor) -> np.ndarray:
        """Return float32 [B, D] for uint8 crops [B, 3, S, S]."""
        parts: list[np.ndarray] = []
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
        return np.concatenate(parts)

    def _forward(self, crops: torch.Tensor) -> np.ndarray:
        if self.device.type == "cpu":
            return np.asarray(self.net(crops))
        crops = crops.to(self.device, non_blocking=True, memory_format=torch.channels_last)
        enabled = self.dtype != torch.float32
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=enabled):
            rows = self.net(crops)
        return np.asarray(rows.float().cpu())


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def choose_device(asked: str) -> str:
    """Return the device that `auto` means here, or the one asked for if it is there.

    Raises:
        UsageError: the device is unknown or not available.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if asked == "auto":
        return next(name for name, available in there.items() if available)
    if asked not in there:
        raise UsageError(f"'{asked}' is not a device: auto, {', '.join(DEVICES)}.")
    if not there[asked]:
        found = ", ".join(name for name, available in there.items() if available)
        raise UsageError(f"This machine (or this build of torch) has no {asked}; it has {found}.")
    return asked


def choose_precision(asked: str, device: str) -> str:
    """Return the precision that `auto` means for a new store on this device.

    bf16 where the hardware computes in it (AMX or AVX512-BF16, CUDA from compute capability 8),
    else fp32.
    """
    if asked == "fp16" and device == "cpu":
        raise UsageError("fp16 needs a GPU; on a CPU give --precision bf16, fp32 or auto.")
    if asked != "auto":
        return asked
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device == "cpu" and cpu_has_bf16() else "fp32"


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Say whether this CPU multiplies bfloat16 in hardware."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return False  # not Linux: nothing is known, fp32 is right everywhere
    flags = set(text.split())
    return bool(flags & {"amx_bf16", "avx512_bf16", "bf16"})
