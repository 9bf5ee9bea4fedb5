"""`FeatureNet`: from crops, or from a boundary, to pooled features, in one network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from pipeline.images.preprocess import Preprocess
from pipeline.trunks.staging.stages import StagedTrunk

GEM_POWER = 3.0  # Radenović et al. 2018, "Fine-tuning CNN Image Retrieval with No Human Annotation"

#: Pooling → what it makes of an activation, float32 [B, C, H, W]; of tokens, [B, C, N, 1].
_POOLS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "avg": lambda x: x.mean((2, 3)),
    "max": lambda x: x.amax((2, 3)),
    "gem": lambda x: (
        F.adaptive_avg_pool2d(x.clamp_min(1e-6) ** GEM_POWER, 1).flatten(1) ** (1 / GEM_POWER)
    ),
    "flat": lambda x: x.flatten(1),
    "map": lambda x: x.permute(0, 2, 3, 1) if x.ndim == 4 else x,
}
#: Poolings that see class and register tokens too.
_WHOLE = ("flat", "map")


class FeatureNet(nn.Module):
    """Normalise, run a trunk to the end of a layer, pool in float32.

    Several layers give their pooled features side by side, each block divided by its length
    ("unit_vector" in the code of Head2Toe; Evci et al. 2022), so that none drowns the others.

    Args:
        trunk: in eval mode.
        preprocess: its mean and std are applied here.
        layer: a stage, `feature` for what enters the library's last Linear, or several joined
            by `+`, from the pixels up.
        pool: `avg`, `max`, `gem`, `flat`, `own` (only with `feature`), or `map` for none; of
            tokens also `cls` and `cls+avg`. `avg`, `max` and `gem` leave out class and register
            tokens.
        after: run from the end of this stage on, of whose activation the input is then;
            `pixels` for crops, `feature` for what this network itself gives.
        also: (layer, pool) of other features that are to stand behind the first in every row.
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
        also: Sequence[tuple[str, str]] = (),
    ):
        super().__init__()
        self.trunk, self.pool, self.after = trunk, pool, after
        self.rows = [blocks(*given) for given in ((layer, pool), *also)]
        stages = list(trunk.stages)
        last = max((stage for row in self.rows for stage, _ in row), key=stages.index)
        self.run = stages_between(trunk, after, last)
        scale = 255.0
        mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
        self.register_buffer("mean", (mean * scale).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", (std * scale).view(1, 3, 1, 1), persistent=False)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Return float32 [B, D]; [B, H, W, C] or [B, T, C] with `map`.

        Args:
            crops: uint8 (or float, 0 to 255) [B, 3, S, S]; or the activation [B, C, H, W] or
                [B, T, C] that `after` names.
        """
        parts = self.parts(crops)
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def parts(self, crops: torch.Tensor) -> list[torch.Tensor]:
        """Return what stands side by side in `forward`'s rows: [B, D] of each (layer, pool)."""
        if self.after == "feature":
            return [crops.float()]
        x, found = crops, {}
        if self.after == "pixels":
            x = (x.float() - self.mean) / self.std
        else:
            found = self._pooled(x, self.after)
        for name in self.run:
            x = self.trunk.stages[name](x.to(self.stem_dtype if name == "stem" else self.dtype))
            found |= self._pooled(x, name)
        return [_side_by_side([found[block] for block in row]) for row in self.rows]

    def widths(self, side: int) -> list[int]:
        """Return D of each of `parts` for crops of side×side pixels."""
        with torch.no_grad():
            return [part.shape[1] for part in self.parts(torch.zeros(1, 3, side, side))]

    def _pooled(self, x: torch.Tensor, stage: str) -> dict[tuple[str, str], torch.Tensor]:
        """Return what is wanted of the end of a stage, at once: the next may write into it."""
        wanted = {block for row in self.rows for block in row if block[0] == stage}
        return {block: self._pool(x.float(), block[1]) for block in sorted(wanted)}

    def _pool(self, x: torch.Tensor, pool: str) -> torch.Tensor:
        return self.trunk.forward_head(x) if pool == "own" else pooled(x, pool, self.trunk.prefix)

    dtype: torch.dtype = torch.float32
    stem_dtype: torch.dtype = torch.float32

    def cast(self, dtype: torch.dtype, *, stem: bool = False) -> FeatureNet:
        """Run the stages in `dtype`; pooling and neck stay in float32.

        Args:
            dtype: of the stages.
            stem: of the stem too. With few channels nothing averages rounding out: in bfloat16
                half of the error of EfficientNet-Lite0's features came from its stem.
        """
        self.dtype = dtype
        self.stem_dtype = dtype if stem else torch.float32
        for name, stage in self.trunk.stages.items():
            if stem or name != "stem":
                stage.to(dtype)
        return self


def pooled(activation: torch.Tensor, pool: str, prefix: int | None) -> torch.Tensor:
    """Return what a pooling makes of an activation.

    Args:
        activation: float32, [B, C, H, W], or tokens [B, T, C].
        pool: as in `FeatureNet`, `own` excepted.
        prefix: class and register tokens in front of those of the image; None for maps.
    """
    if prefix is None or pool in _WHOLE:
        return _POOLS[pool](activation)
    patches = activation[:, prefix:].transpose(1, 2).unsqueeze(3)  # [B, C, N, 1]
    parts = [activation[:, 0] if one == "cls" else _POOLS[one](patches) for one in pool.split("+")]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


@torch.no_grad()
def own_pool(trunk: StagedTrunk) -> str:
    """Return which pooling a trunk's own is: `cls`, `avg`, `attention`, …; empty for maps.

    It is measured: what the trunk makes of random tokens is compared with what each would.
    """
    if trunk.prefix is None:
        return ""
    generator = torch.Generator().manual_seed(0)
    side = trunk.side // trunk.strides["layer4"]
    shape = (2, trunk.prefix + side**2, trunk.channels["layer4"])
    tokens = torch.randn(shape, generator=generator)
    found = trunk.pool(tokens)
    if found is tokens or found.shape == tokens.shape:
        return "attention"
    names = ["avg", "max", *(["cls", "cls+avg"] if trunk.prefix else [])]
    wanted = {name: pooled(tokens, name, trunk.prefix) for name in names}
    wanted |= {"avg over all tokens": tokens.mean(1)}
    near = (
        name for name, value in wanted.items()
        if value.shape == found.shape and torch.allclose(value, found, atol=1e-4)
    )  # fmt: skip
    return next(near, "the library's own")


def stages_between(trunk: StagedTrunk, after: str, last: str) -> list[str]:
    """Return the stages behind `after` up to and with `last`."""
    names = list(trunk.stages)
    if after == "feature":
        return []
    first = 0 if after == "pixels" else names.index(after) + 1
    return names[first : names.index(last) + 1]


def blocks(layer: str, pool: str) -> list[tuple[str, str]]:
    """Return the stages whose ends are pooled, and how each is."""
    return [("layer4", "own") if name == "feature" else (name, pool) for name in layer.split("+")]


def _side_by_side(found: list[torch.Tensor]) -> torch.Tensor:
    """Return one block as it is, several divided by their lengths; zeros stay zeros."""
    if len(found) == 1:
        return found[0]
    return torch.cat([F.normalize(block, dim=1) for block in found], 1)
