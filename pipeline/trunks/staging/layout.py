"""`Layout`: what the activations of a network look like, and how many positions a side has."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from pipeline.trunks.staging import graph
from pipeline.trunks.staging.graph import Axes, Segment

#: From H×W×C to C×H×W behind the batch, and back.
TO_MAP: Axes = (0, 3, 1, 2)
FROM_MAP: Axes = (0, 2, 3, 1)


@dataclass(frozen=True)
class Layout:
    """What counts as an activation of one network.

    Attributes:
        kind: `CHW` for a CNN, and what looks like one from outside; `HWC` where most modules
            give maps with the channels last; `TC` where they give tokens.
        prefix: class and register tokens in front of those of the image; None without tokens.
        class_token: whether the first of these is a class token.
    """

    kind: str
    prefix: int | None = None
    class_token: bool = False

    @classmethod
    def of(cls, model: nn.Module, chain: Sequence[Segment]) -> Layout:
        """Return the layout that most of a model's learned segments have."""
        kinds = Counter(
            _kind(segment.shape) for segment in chain if graph.has_parameters(model, segment.nodes)
        )
        kind = max(("CHW", "HWC", "TC"), key=lambda one: kinds[one])
        return (
            cls(kind, prefix_tokens(model), has_class_token(model)) if kind == "TC" else cls(kind)
        )

    def kind_of(self, shape: Sequence[int]) -> str:
        """Return `CHW`, `HWC` or `TC` for an activation, an empty string for what is none."""
        kind = _kind(shape)
        if kind == "TC":
            square = self.prefix is not None and math.isqrt(shape[1] - self.prefix) ** 2
            return kind if square and square == shape[1] - (self.prefix or 0) else ""
        fits = {"CHW": ("CHW",), "HWC": ("CHW", "HWC"), "TC": ()}[self.kind]
        return kind if kind in fits else ""

    def holds(self, shape: Sequence[int]) -> bool:
        """Return whether a shape is that of an activation."""
        return bool(self.kind_of(shape))

    def side(self, shape: Sequence[int]) -> int:
        """Return the side of the grid of an activation's positions."""
        if self.kind_of(shape) == "TC":
            return math.isqrt(shape[1] - (self.prefix or 0))
        return shape[1] if self.kind_of(shape) == "HWC" else shape[2]

    def channels(self, shape: Sequence[int]) -> int:
        """Return C of an activation."""
        return shape[1] if self.kind_of(shape) == "CHW" else shape[-1]


def _kind(shape: Sequence[int]) -> str:
    if len(shape) == 4 and shape[2] == shape[3] > 1:
        return "CHW"
    if len(shape) == 4 and shape[1] == shape[2] > 1:
        return "HWC"
    return "TC" if len(shape) == 3 and shape[1] > 1 else ""


def prefix_tokens(model: nn.Module) -> int:
    """Return how many tokens of a network stand in front of those of the image."""
    given: Any = getattr(model, "num_prefix_tokens", None)  # timm's
    if given is not None:
        return int(given)
    return 1 if hasattr(model, "class_token") else 0  # torchvision's


def has_class_token(model: nn.Module) -> bool:
    """Return whether a network puts a class token in front of all others."""
    return getattr(model, "cls_token", None) is not None or hasattr(model, "class_token")
