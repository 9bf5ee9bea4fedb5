"""Stages: the rule that cuts a trunk, and the trunk once it is cut."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from pipeline.errors import UsageError, nearest

#: The names of a trunk's pieces, from the pixels up. A trunk has the first, the last, and of
#: those between them the last few.
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")


@dataclass(frozen=True)
class Piece:
    """One native module, or a few that cannot be parted, between two single C×H×W tensors.

    Args:
        reduction: resolution before divided by resolution after, rounded to a whole number.
        has_parameters: whether anything in it is learned.
    """

    reduction: int
    has_parameters: bool


def cut(pieces: Sequence[Piece]) -> dict[str, slice]:
    """Cut a trunk wherever its resolution drops, and name the stages from the end.

    A piece with parameters that lowers the resolution opens a stage; one without closes the
    stage that it ends, so that the next piece with parameters opens another; what neither has
    parameters nor lowers anything stays with what is before it. The last stage is `layer4`,
    whatever its stride; what is in front of `layer1` is `stem`. A trunk of one resolution
    (ConvMixer) is cut behind the piece that lowers it.

    Args:
        pieces: all pieces before the pooling, in order.

    Returns:
        Stage name → slice of `pieces`, in order; the first is `stem`, the last is `layer4`, and
        every stage from the second on has parameters. Empty where nothing can be cut.
    """
    opens = _openings(pieces)
    if len(opens) == 1:
        lowered = next((i for i, piece in enumerate(pieces) if piece.reduction > 1), 0)
        opens += [i for i, p in enumerate(pieces) if i > lowered and p.has_parameters][:1]
    if len(opens) < 2:
        return {}
    opens = [0, *opens[1:][-(len(STAGES) - 1) :]]
    ends = [*opens[1:], len(pieces)]
    names = ["stem", *STAGES[len(STAGES) - len(opens) + 1 :]]
    return {name: slice(a, b) for name, a, b in zip(names, opens, ends, strict=True)}


def quarters(blocks: Sequence[int], pieces: int) -> dict[str, slice]:
    """Cut a trunk of one resolution into quarters of its blocks; 12 blocks: three each.

    Args:
        blocks: places of its blocks among its pieces, in order; with fewer than four, each is a
            stage of its own.
        pieces: how many there are.

    Returns:
        As `cut`: what is in front of the first block is `stem`, what is behind the last is in
        `layer4`.
    """
    count = min(len(blocks), len(STAGES) - 1)
    opens = [0, *(blocks[stage * len(blocks) // count] for stage in range(count))]
    names = ["stem", *STAGES[len(STAGES) - count :]]
    return dict(zip(names, map(slice, opens, [*opens[1:], pieces]), strict=True))


def _openings(pieces: Sequence[Piece]) -> list[int]:
    """Return where stages open, the first at 0."""
    opens, learned, closed = [0], False, False
    for i, piece in enumerate(pieces):
        lowers = piece.reduction > 1
        if not piece.has_parameters:
            closed = learned and (closed or lowers)
            continue
        if learned and (lowers or closed):
            opens.append(i)
        learned, closed = True, False
    return opens


class StagedTrunk(nn.Module):
    """A pretrained network without its classifier, cut into stages.

    It holds the library's own modules, under `stages.<stage>.<native name>`, `pool.<native name>`
    and `neck.<native name>`.

    Args:
        stages: stage name → module, in order, `stem` first and `layer4` last.
        pool: [B, C, H, W] or [B, T, C] → [B, D'], as the library does it; nothing where the neck
            does, by attention.
        neck: [B, D'] → [B, D], what lies between pooling and the last Linear; part of the feature.
        native: native module name → name of its stage, `pool` or `neck`.
        channels: stage name → C of its activation.
        strides: stage name → input side divided by the side of its activation, nominally.
        dim: D.
        prefix: class and register tokens in front of those of the image; None where activations
            are maps.
        class_token: whether the first of these is one.
        blocks: native names of the blocks of a transformer of one resolution, in order.
        side: of the input that it is built for.
    """

    def __init__(
        self,
        *,
        stages: Mapping[str, nn.Module],
        pool: nn.Module,
        neck: nn.Module | None,
        native: Mapping[str, str],
        channels: Mapping[str, int],
        strides: Mapping[str, int],
        dim: int,
        prefix: int | None = None,
        class_token: bool = False,
        blocks: Sequence[str] = (),
        side: int = 0,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleDict(stages)
        self.pool = pool
        self.neck = neck
        self.native = dict(native)
        self.channels = dict(channels)
        self.strides = dict(strides)
        self.dim = dim
        self.prefix = prefix
        self.class_token = class_token
        self.blocks = tuple(blocks)
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        """Return the feature [B, D] of normalised images [B, 3, S, S]."""
        for stage in self.stages.values():
            x = stage(x)
        return self.forward_head(x)

    def forward_head(self, activation: Tensor) -> Tensor:
        """Return the feature [B, D] of the activation at the end of `layer4`.

        Args:
            activation: [B, C, H, W] or [B, T, C].
        """
        feature: Tensor = self.pool(activation)  # [B, D']; tokens where the neck pools
        if self.neck is not None:
            feature = self.neck(feature)  # [B, D]
        return feature

    def stage_of(self, name: str) -> str:
        """Return the stage (or `neck`) that a stage or native module name means.

        Args:
            name: `layer4`, `block12`, or a native module such as `features.7` or
                `blocks.5.0.conv_pw`.

        Raises:
            UsageError: there is no such name, or it spans several stages.
        """
        known = [*self.stages, *(["neck"] if self.neck is not None else [])]
        if name in known:
            return name
        name = self.native_name(name)
        pairs = [place_and_name(key) for key, _ in self.named_modules()]
        owners = {place for place, native in pairs if native and _within(native, name)}
        if owners == {"pool"}:
            raise UsageError(f"{name!r} belongs to the pooling, which stays as it is.")
        if len(owners) == 1:
            return owners.pop()
        if owners:
            spanned = [place for place in known if place in owners]
            raise UsageError(
                f"{name!r} spans {', '.join(spanned[:-1])} and {spanned[-1]}; name one of them, "
                f"or a module within one: {_listed(self.native)}."
            )
        modules = [native for _, native in pairs if native]
        blocks = f", the blocks block1 to block{len(self.blocks)}" if self.blocks else ""
        native = "" if self.blocks or not re.fullmatch(r"block\d+", name) else (
            " Its blocks are not of one resolution, so they have native names alone, such as "
            "layers.2.blocks.3 in Swin."
        )  # fmt: skip
        raise UsageError(
            f"This trunk has no stage or module {name!r}. It has the stages {', '.join(known)}"
            f"{blocks} and the modules {_listed(self.native)}.{native}"
            f"{nearest(name, dict.fromkeys([*known, *self.native, *modules]))}"
        )

    def native_name(self, name: str) -> str:
        """Return the native name of `block1`, `block2`, …, from the pixels up; others as given.

        Trunks of several resolutions have no such names.
        """
        number = name.removeprefix("block")
        if name.startswith("block") and number.isdigit() and 0 < int(number) <= len(self.blocks):
            return self.blocks[int(number) - 1]
        return name

    def parameters_of(self, name: str) -> dict[str, nn.Parameter]:
        """Return the parameters of a stage, the neck or a native module, by state-dict name.

        Raises:
            UsageError: as `stage_of`.
        """
        place = self.stage_of(name)
        root = f"stages.{place}" if place in self.stages else place
        prefix = root if name == place else f"{root}.{self.native_name(name)}"
        return {key: value for key, value in self.named_parameters() if _within(key, prefix)}

    def native_state(self) -> dict[str, Tensor]:
        """Return the tensors of the trunk under the library's own names."""
        return {place_and_name(key)[1]: value for key, value in self.state_dict().items()}


def place_and_name(key: str) -> tuple[str, str]:
    """Return where a staged trunk's module or tensor stands, and its name in the library.

    The place is a stage, `pool` or `neck`; the name is empty for the place itself.
    """
    place, _, name = key.removeprefix("stages.").partition(".")
    return place, name


def _within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def _listed(names: Iterable[str], most: int = 40) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" … ({len(names)} in all)" if len(names) > most else "")
