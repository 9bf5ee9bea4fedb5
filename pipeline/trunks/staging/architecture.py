"""`Architecture`: what the registry needs to know of a network before any weights are read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from pipeline.errors import UsageError, nearest
from pipeline.images.preprocess import Preprocess


@dataclass(frozen=True)
class Pretrained:
    """Weights that the library offers.

    Args:
        preprocess: how they want their input.
        fetch: gives their tensors, or a file that holds them; downloads where it must.
        at_hand: whether `fetch` would download nothing.
        keys: how they match the model's own: by `name`, or by `order`.
    """

    preprocess: Preprocess
    fetch: Callable[[], Mapping[str, Tensor] | Path]
    at_hand: Callable[[], bool]
    keys: str = "name"


@dataclass(frozen=True)
class Architecture:
    """A network of a library, under this project's name for it.

    Args:
        name: canonical.
        family: for people.
        build: gives the library's own model, freshly initialised.
        trace: gives the graph of a model up to its feature.
        weights: names of the pretrained weights there are, as the library orders them.
        default: the name that `default` means; None where there are no weights.
        pretrained: describes the weights of a name.
        preprocess: for weights that do not say: a file's, or random ones.
        tag: of weights that its name was given with, as which others are prepared, too.
        rename: from tensor names in the library's own old files to present ones.
        convert: gives tensors of a file as the library's own loader has them for a model: those of
            a paper's own code under the library's names, position embeddings for its input. What
            it cannot convert may raise anything.
        resize: gives a model, with its weights, for an input of another side; None where the model
            takes any. It says in a `ValueError` what side is allowed.
        built_for: gives the architecture as weights of another name than the default want it, where
            they have an input of another size; None: it is the same for all.
        licence: of the default weights, where the library tells it.
        structure: what besides the tensors tells two networks of one name apart.
        feature: gives a sentence on what was taken for the feature, where that was a guess, from
            the names of the tensors that the trunk kept; else an empty string.
    """

    name: str
    family: str
    build: Callable[[], nn.Module]
    trace: Callable[[nn.Module], fx.Graph]
    weights: tuple[str, ...]
    default: str | None
    pretrained: Callable[[str], Pretrained]
    preprocess: Preprocess
    tag: str = ""
    rename: Callable[[str], str] = str
    convert: Callable[[Mapping[str, Tensor], nn.Module], Mapping[str, Tensor]] | None = None
    resize: Callable[[nn.Module, int], nn.Module | None] = lambda model, side: None
    built_for: Callable[[str], Architecture] | None = None
    licence: str = ""
    structure: str = ""
    feature: Callable[[Collection[str]], str] = lambda kept: ""

    def label(self, weights: str) -> str:
        """Return the canonical name of pretrained weights.

        Raises:
            UsageError: there are none, or none of that name.
        """
        instead = "--weights FILE (.pth, .pt, .safetensors) or --weights random"
        if weights == "default":
            if self.default is None:
                raise UsageError(f"There are no pretrained weights of {self.name}; pass {instead}.")
            return self.default
        if weights not in self.weights:
            known = ", ".join(self.weights) or "none"
            raise UsageError(
                f"There are no weights {weights!r} of {self.name}. There are: {known}; or pass "
                f"{instead}.{nearest(weights, [*self.weights, 'default', 'random'])}"
            )
        return weights


class Weightless(TorchFunctionMode):
    """Makes parameters without memory, and leaves the arithmetic of builders alone.

    `torch.device("meta")` would also take the small tensors that RegNet's widths are computed of.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Send what allocates to the meta device."""
        kwargs = dict(kwargs or {})
        if func in (torch.empty, torch.zeros, torch.ones) and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)
