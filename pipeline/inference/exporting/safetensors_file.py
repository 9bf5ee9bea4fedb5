"""safetensors: every tensor, under the library's own names wherever its own model takes them."""

from __future__ import annotations

from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.finetuning.model import Predictor
from pipeline.inference.exporting.graph import linear_of
from pipeline.trunks import permitted
from pipeline.trunks.sources import builtin

FILE = "model.safetensors"


def save(predictor: Predictor, folder: Path, *, head_only: bool) -> dict[str, str] | None:
    """Write the tensors; return how the library makes the model that takes them, or None.

    With a library's model the file holds what its `load_state_dict` takes. Where there is none
    (features of an inner layer, features divided by their length, a classifier that is no Linear)
    names are `trunk.<the library's>` and `head.weight`, `head.bias`. With `head_only`: `weight`
    [K, D] and `bias` [K].
    """
    from safetensors.torch import save as packed

    layer = linear_of(predictor).to_linear()
    tensors: dict[str, Tensor] = {"weight": layer.weight, "bias": layer.bias}
    library = None
    if not head_only:
        own = predictor.net.trunk.native_state()
        library = None if predictor.net.pool != "own" or linear_of(predictor).l2 else _library(
            predictor, own, layer
        )  # fmt: skip
        if library is not None:
            name = library["classifier"]
            tensors = {**own, f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
        else:
            tensors = {f"head.{name}": value for name, value in tensors.items()}
            tensors |= {f"trunk.{name}": value for name, value in own.items()}
    whole = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    (folder / FILE).write_bytes(packed(whole))
    return library


def maker(trunk: str) -> dict[str, str]:
    """Return what makes a trunk's network in its library: `package`, `make` and `name`."""
    if trunk.startswith("timm/"):
        return {"package": "timm", "make": "timm.create_model", "name": trunk.removeprefix("timm/")}
    if trunk in builtin.names():
        return {"package": "timm", "make": "timm.create_model", "name": f"tf_{trunk}"}
    return {"package": "torchvision", "make": "torchvision.models.get_model", "name": trunk}


def made(library: dict[str, str], classes: int) -> nn.Module:
    """Return the library's network for so many classes, in eval mode."""
    package, _, make = library["make"].partition(".")
    model: nn.Module = attrgetter(make)(import_module(package))(
        library["name"], num_classes=classes
    )
    return model.eval()


def _library(predictor: Predictor, own: dict[str, Tensor], layer: nn.Linear) -> Any:
    """Return what takes these tensors exactly, its classifier's name with it; else None."""
    if permitted.is_own(predictor.info.trunk):
        return None
    library = maker(predictor.info.trunk)
    model = made(library, len(predictor.classes))
    theirs = model.state_dict()
    names = {name.rpartition(".")[0] for name in set(theirs) - set(own)}
    if len(names) != 1 or set(own) - set(theirs):
        return None
    if any(theirs[name].shape != tensor.shape for name, tensor in own.items()):
        return None  # position embeddings for another size of input
    name = names.pop()
    last = model.get_submodule(name)
    if not isinstance(last, nn.Linear) or last.weight.shape != layer.weight.shape:
        return None
    return {**library, "classifier": name}


@torch.no_grad()
def probabilities(
    predictor: Predictor, folder: Path, library: dict[str, str] | None, inputs: list[np.ndarray]
) -> np.ndarray:
    """Return what the written tensors give, [N, K], through the library's own model where it can.

    Args:
        predictor: for its preprocessing and temperature.
        folder: that `save` wrote into.
        library: from `save`.
        inputs: N crops [S, S, 3] uint8, or N features [D].
    """
    from safetensors.torch import load_file

    tensors = load_file(folder / FILE)
    x = torch.from_numpy(np.stack(inputs))
    if library is not None:
        model = made(library, len(predictor.classes))
        model.load_state_dict(tensors)
        mean, std = (torch.tensor(v) for v in (predictor.preprocess.mean, predictor.preprocess.std))
        logits = model((((x / 255) - mean) / std).permute(0, 3, 1, 2))
    else:
        prefix = "" if "weight" in tensors else "head."
        if prefix:
            same = predictor.net.trunk.native_state()
            assert all(torch.equal(tensors[f"trunk.{k}"], value) for k, value in same.items())
            x = predictor.net(x.permute(0, 3, 1, 2))
        x = nn.functional.normalize(x, dim=1) if linear_of(predictor).l2 else x
        logits = x @ tensors[f"{prefix}weight"].T + tensors[f"{prefix}bias"]
    return np.asarray(torch.softmax(logits / predictor.temperature, 1))
