"""What is exported: from uint8 images to logits and probabilities, as one module in fp32."""

from __future__ import annotations

from importlib import util

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import PipelineError
from pipeline.finetuning.model import Predictor
from pipeline.heads.linear import LinearHead
from pipeline.trunks.engines.fuse import fuse

#: Packages beyond those of every installation.
NEEDS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",)}


class Exported(nn.Module):
    """From crops or features to logits and calibrated probabilities; normalisation is inside.

    Args:
        head: W, b, and whether features are divided by their length first.
        temperature: of the calibration.
        net: from uint8 crops [B, 3, S, S] to features; None where these are the input.
    """

    def __init__(self, head: LinearHead, temperature: float, net: nn.Module | None):
        super().__init__()
        self.layer, self.l2, self.temperature = head.to_linear(), head.l2, temperature
        self.net = net

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [B, K], not calibrated, and probabilities [B, K].

        Args:
            x: uint8 images [B, S, S, 3], or features [B, D].
        """
        features = x if self.net is None else self.net(x.permute(0, 3, 1, 2))
        if self.l2:
            features = F.normalize(features, dim=1)
        logits = self.layer(features)
        return logits, torch.softmax(logits / self.temperature, dim=1)


def require(form: str) -> None:
    """Refuse, with what to install, where a package is missing that a format needs."""
    missing = [name for name in NEEDS.get(form, ()) if util.find_spec(name) is None]
    if missing:
        raise PipelineError(
            f"This export needs {' and '.join(missing)}: `pip install 'headstart[{form}]'`."
        )


def linear_of(predictor: Predictor) -> LinearHead:
    """Return the last layer of what is exported.

    Raises:
        PipelineError: the head is not linear.
    """
    if predictor.linear is None:
        from pipeline.heads.registry import HEADS

        file = f"{predictor.info.folder}/head.skops"
        usable = ", ".join(name for name, kind in HEADS.items() if kind.linear or not kind.make)
        raise PipelineError(
            f"The {predictor.title} is not linear and cannot be exported; kinds that can: "
            f"{usable}. It is kept as scikit-learn's estimator in {file}, which skops opens."
        )
    return predictor.linear


def example_of(predictor: Predictor, *, head_only: bool) -> tuple[Exported, Tensor, str]:
    """Return what is exported, in eval mode, with an example of its input and the input's name.

    BatchNorms are folded into the convolutions before them.

    Args:
        predictor: a head or model.
        head_only: only what goes on top of features.

    Raises:
        PipelineError: the head is not linear.
    """
    head, side = linear_of(predictor), predictor.preprocess.crop
    net: nn.Module | None = None
    example, name = torch.zeros(2, head.weight.shape[1]), "features"
    if not head_only:
        generator = torch.Generator().manual_seed(0)
        crops = torch.randint(0, 256, (2, 3, side, side), generator=generator).to(torch.uint8)
        net = fuse(predictor.net.to("cpu").float().eval(), crops)
        example, name = torch.zeros(2, side, side, 3, dtype=torch.uint8), "images"
    module = Exported(head, predictor.temperature, net).eval()
    return module.requires_grad_(False), example, name  # to be traced as constants
