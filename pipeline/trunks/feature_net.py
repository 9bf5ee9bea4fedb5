"""`FeatureNet`: from crops, or from a boundary, to pooled features, in one network."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from pipeline.images.preprocess import Preprocess
from pipeline.trunks.stages import StagedTrunk

GEM_POWER = 3.0  # Radenović et al. 2018, "Fine-tuning CNN Image Retrieval with No Human Annotation"


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
