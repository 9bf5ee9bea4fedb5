"""`Network`: from the boundary's activation to logits; what of it learns, and what stays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase

from pipeline.errors import UsageError, nearest
from pipeline.images.preprocess import Preprocess
from pipeline.trunks.feature_net import FeatureNet
from pipeline.trunks.staging.stages import StagedTrunk


@dataclass(frozen=True)
class Cut:
    """Where a trunk is parted into what is frozen and what is run in every step.

    Attributes:
        after: the boundary: the last frozen stage, `pixels` where nothing is frozen in front, or
            `feature` where the whole trunk is.
        learns: state-dict names of the trunk's parameters that learn.
        places: the stages, and perhaps `neck`, that hold them, in order.
        roots: state-dict names of the modules that were named: what has a training mode.
    """

    after: str
    learns: tuple[str, ...]
    places: tuple[str, ...]
    roots: tuple[str, ...] = ()


def cut(trunk: StagedTrunk, asked: str, *, layer: str) -> Cut:
    """Return what `--unfreeze` means for a trunk.

    Args:
        trunk: cut into stages.
        asked: `all`, `none`, a number of last stages, or names with commas: stages, `neck`, or
            native modules (`layer4.1`, `features.7`), or `blockN` of a transformer.
        layer: where the features end: a stage, `feature`, or several joined by `+`.

    Raises:
        UsageError: a name that there is not (with those that there are), one behind the layer,
            or one that has nothing to learn.
    """
    places, pooled = places_of(trunk, layer), layer.split("+")
    stages = [place for place in places if place != "neck"]
    names = _names(asked, stages, places)
    learns: list[str] = []
    held: set[str] = set()
    roots = []
    for name in names:
        place = _place(trunk, name)
        if place not in places:
            raise UsageError(
                f"'{name}' comes behind {layer}, where the features of this table end; it has "
                f"{', '.join(places)}."
            )
        own = trunk.parameters_of(name)
        if own:
            held.add(place)
        elif asked not in ("all",) and not asked.isdigit():
            raise UsageError(f"'{name}' has no parameters: there is nothing to unfreeze in it.")
        learns += own
        root = place if place == "neck" else f"stages.{place}"
        roots.append(root if name == place else f"{root}.{trunk.native_name(name)}")
    order = [place for place in places if place in held]
    if not order:
        return Cut("feature", (), ())
    first = order[0]
    before = places.index(first) - 1
    if pooled[0] in places:  # what is pooled in front of the unfrozen stages runs in every step
        before = min(before, places.index(pooled[0]))
    after = places[before] if before >= 0 else "pixels"
    return Cut(after, tuple(dict.fromkeys(learns)), tuple(order), tuple(roots))


def places_of(trunk: StagedTrunk, layer: str) -> list[str]:
    """Return the stages up to where the features end, and perhaps `neck`, in order."""
    stages, last = list(trunk.stages), layer.split("+")[-1]
    if last != "feature":
        return stages[: stages.index(last) + 1]
    return [*stages, *(["neck"] if trunk.neck is not None else [])]


def _names(asked: str, stages: list[str], places: list[str]) -> list[str]:
    if asked == "none":
        return []
    if asked == "all":
        return places
    if asked.isdigit():
        count = int(asked)
        if not 0 < count <= len(stages):
            raise UsageError(
                f"--unfreeze {asked}: these features come from {len(stages)} stages "
                f"({', '.join(stages)}); give 1 to {len(stages)}, names, all or none."
            )
        return stages[-count:]
    names = [name.strip() for name in asked.split(",")]
    if not all(names):
        raise UsageError(f"--unfreeze '{asked}' has an empty name; give {', '.join(places)}.")
    return names


def _place(trunk: StagedTrunk, name: str) -> str:
    try:
        return trunk.stage_of(name)
    except UsageError as error:
        hint = "" if "mean" in str(error) else nearest(name, ("all", "none"))
        raise UsageError(f"--unfreeze: {error}{hint}") from error


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
        self.body = FeatureNet(trunk, preprocess, layer, pool, after=cut.after)
        wide, classes = head.in_features, head.out_features
        self.head = nn.Linear(wide, classes, device="meta").to_empty(device=head.weight.device)
        self.cut, self.l2, self.train_bn = cut, l2, train_bn
        self.start_from(head)
        trunk.requires_grad_(False)
        learns = set(cut.learns)
        for name, parameter in trunk.named_parameters():
            parameter.requires_grad_(name in learns)
        self.head.requires_grad_(True)
        self.train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, K], float32.

        Args:
            x: uint8 crops [B, 3, S, S], activations [B, C, H, W] or [B, T, C], or features
                [B, D], as the cut's boundary has it.
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
                if isinstance(module, _NormBase):
                    module.training = self.train_bn and any(
                        parameter.requires_grad for parameter in module.parameters(recurse=False)
                    )
        return self

    @torch.no_grad()
    def take_statistics(self, batches: Iterable[Tensor]) -> None:
        """Give BatchNorms that learn the mean of the batches' statistics, where `train_bn`."""
        self.train()
        norms = [one for one in self.modules() if isinstance(one, _NormBase) and one.training]
        momenta = [norm.momentum for norm in norms]
        self.train(False)  # no dropout
        for norm in norms:
            norm.reset_running_stats()
            norm.training, norm.momentum = True, None  # the mean, not the moving one
        for x in batches:
            self(x)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        self.train(False)

    def learned(self) -> dict[str, Tensor]:
        """Return every tensor that training may change, by name (`head.weight`, `trunk.…`)."""
        found: dict[str, Tensor] = {}
        for name, parameter in self.body.trunk.named_parameters():
            if parameter.requires_grad:
                found[f"trunk.{name}"] = parameter
        prefixes = {name.rpartition(".")[0] for name in self.cut.learns}
        for name, buffer in self.body.trunk.named_buffers():  # BatchNorm's statistics
            if name.rpartition(".")[0] in prefixes:
                found[f"trunk.{name}"] = buffer
        found.update({f"head.{name}": value for name, value in self.head.named_parameters()})
        return found

    def plain_head(self) -> dict[str, Tensor]:
        """Return weight [K, D] and bias [K] of the head on features that are not centred."""
        weight, bias = self.head.weight.detach(), self.head.bias.detach()
        return {"weight": weight, "bias": bias - weight @ self.centre}

    def groups(self) -> tuple[list[list[nn.Parameter]], list[nn.Parameter]]:
        """Return the trunk's parameters that learn, by place, the last first; and the head's."""
        named = [(n, p) for n, p in self.body.trunk.named_parameters() if p.requires_grad]
        roots = [p if p == "neck" else f"stages.{p}" for p in reversed(self.cut.places)]
        places = [[p for name, p in named if name.startswith(f"{root}.")] for root in roots]
        return places, list(self.head.parameters())

    def start_from(self, head: nn.Linear) -> None:
        """Take the weights of a head on features that are not centred."""
        with torch.no_grad():
            self.head.weight.copy_(head.weight)
            self.head.bias.copy_(head.bias.to(self.centre) + self.head.weight @ self.centre)

    def copy(self) -> dict[str, Tensor]:
        """Return copies of the tensors that learn."""
        return {name: value.detach().clone() for name, value in self.learned().items()}

    @torch.no_grad()
    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the tensors that `copy` returned."""
        for name, value in self.learned().items():
            value.copy_(tensors[name])

    def suffix(self) -> dict[str, Tensor]:
        """Return every tensor behind the boundary but the head's, by the trunk's own names."""
        roots = [f"stages.{stage}." for stage in self.body.run]
        if self.cut.after != "feature":
            roots += ["pool.", "neck."]
        state = self.body.trunk.state_dict()
        return {name: value for name, value in state.items() if name.startswith(tuple(roots))}


def between(
    start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    """Return the tensors at a share of the way from the start to the end; counts are the end's."""
    if share == 1:
        return dict(end)
    return {
        name: torch.lerp(start[name], value, share) if value.is_floating_point() else value
        for name, value in end.items()
    }


def mixed(x: Tensor, labels: Tensor, alpha: float, classes: int) -> tuple[Tensor, Tensor]:
    """Return images mixed with others of their batch, and shares of classes [B, K] (mixup).

    Args:
        x: [B, …].
        labels: int64 [B].
        alpha: of the Beta distribution of each image's share; 0 returns both as they are.
        classes: how many there are.
    """
    if not alpha:
        return x, labels
    share = torch.distributions.Beta(alpha, alpha).sample((len(x),)).to(x.device)
    other = torch.randperm(len(x)).to(x.device)
    shares = F.one_hot(labels, classes).float()
    both = torch.lerp(x[other].float(), x.float(), share.reshape(-1, *(1,) * (x.ndim - 1)))
    return both.to(x.dtype), torch.lerp(shares[other], shares, share[:, None])
