"""`Network`: from the boundary's activation to logits; what of it learns, and what stays."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.finetuning.network.unfreeze import Cut
from pipeline.images.preprocess import Preprocess
from pipeline.trunks.feature_net import FeatureNet
from pipeline.trunks.staging.stages import StagedTrunk


class Network(nn.Module):
    """The part of a trunk behind the boundary, pooling, and a linear head.

    What does not learn is frozen: parameters, BatchNorm's buffers, and eval mode whatever
    `train()` says. The unfrozen places keep BatchNorm's statistics too, unless `train_bn`.

    Args:
        trunk: whole; its parameters are used in place.
        preprocess: applied to crops where the boundary is `pixels`.
        layer: where the feature is taken.
        pool: how, as in `FeatureNet`.
        cut: what learns.
        head: D → K.
        l2: divide the feature by its length in front of the head.
        centre: [D], about the features' mean, which the head sees subtracted; the logits stay as
            they are. Features are positive (ReLU): without it a step of every weight in one
            direction shifts all logits together, and the first steps throw the head away.
        train_bn: let BatchNorms that learn use and update the statistics of their batches.
    """

    centre: Tensor

    def __init__(
        self,
        trunk: StagedTrunk,
        preprocess: Preprocess,
        *,
        layer: str,
        pool: str,
        cut: Cut,
        head: nn.Linear,
        l2: bool = False,
        centre: Tensor | None = None,
        train_bn: bool = False,
    ):
        super().__init__()
        centre = head.weight.new_zeros(head.in_features) if centre is None else centre
        self.register_buffer("centre", centre, persistent=False)
        with torch.no_grad():
            head.bias.add_(head.weight @ centre)
        self.body = FeatureNet(trunk, preprocess, layer, pool, after=cut.after)
        self.head, self.cut, self.l2, self.train_bn = head, cut, l2, train_bn
        trunk.requires_grad_(False)
        learns = set(cut.learns)
        for name, parameter in trunk.named_parameters():
            parameter.requires_grad_(name in learns)
        self.head.requires_grad_(True)
        self.train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, K], float32.

        Args:
            x: uint8 crops [B, 3, S, S], activations [B, C, H, W] or features [B, D], as the
                cut's boundary has it.
        """
        return self.classify(self.body(x))

    def classify(self, features: Tensor) -> Tensor:
        """Return logits [B, K] of features [B, D]."""
        with torch.autocast(features.device.type, enabled=False):  # it costs nothing in float32
            features = features.float()
            if self.l2:
                features = F.normalize(features, dim=1)
            logits: Tensor = self.head(features - self.centre)
        return logits

    def train(self, mode: bool = True) -> Network:
        """Put what learns into training mode (dropout), and nothing else."""
        super().train(False)
        if not mode:
            return self
        self.training = True
        for root in self.cut.roots:
            part = self.body.trunk.get_submodule(root)
            part.train()
            for module in part.modules():
                if isinstance(module, nn.modules.batchnorm._NormBase):
                    module.training = self.train_bn and any(
                        parameter.requires_grad for parameter in module.parameters(recurse=False)
                    )
        return self

    def learned(self) -> dict[str, Tensor]:
        """Return every tensor that training changes, by name (`head.weight`, `trunk.…`)."""
        found: dict[str, Tensor] = {}
        for name, parameter in self.body.trunk.named_parameters():
            if parameter.requires_grad:
                found[f"trunk.{name}"] = parameter
        if self.train_bn:
            prefixes = {name.rpartition(".")[0] for name in self.cut.learns}
            for name, buffer in self.body.trunk.named_buffers():
                if name.rpartition(".")[0] in prefixes:
                    found[f"trunk.{name}"] = buffer
        found.update({f"head.{name}": value for name, value in self.head.named_parameters()})
        return found

    def plain_head(self) -> dict[str, Tensor]:
        """Return weight [K, D] and bias [K] of the head on features that are not centred."""
        weight, bias = self.head.weight.detach(), self.head.bias.detach()
        return {"weight": weight, "bias": bias - weight @ self.centre}

    def groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the parameters of the trunk that learn, and those of the head."""
        trunk = [p for p in self.body.trunk.parameters() if p.requires_grad]
        return trunk, list(self.head.parameters())

    def suffix(self) -> dict[str, Tensor]:
        """Return every tensor behind the boundary but the head's, by the trunk's own names."""
        roots = [f"stages.{stage}." for stage in self.body.run]
        if self.cut.after != "feature":
            roots += ["pool.", "neck."]
        state = self.body.trunk.state_dict()
        return {name: value for name, value in state.items() if name.startswith(tuple(roots))}
