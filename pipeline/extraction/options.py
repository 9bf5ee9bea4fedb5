"""`ExtractOptions`: what `extract` is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import nearest
from pipeline.images.names import safe
from pipeline.options import (
    ENGINES,
    PRECISIONS,
    Options,
    batch_size_option,
    device_option,
    option,
    workers_option,
)
from pipeline.trunks import spec

DEFAULT_TRUNK = "efficientnet_lite0"


@dataclass(frozen=True, kw_only=True)
class ExtractOptions(Options):
    """The options of `extract`. Equal options over equal files give equal tables."""

    trunk: str = option(
        DEFAULT_TRUNK,
        "Pretrained network: built-in, torchvision's name, or timm/NAME.",
        metavar="NAME",
    )
    weights: str = option(
        "default",
        "default, a name of the library's, random, or a .pth, .pt, .safetensors file.",
        metavar="NAME|FILE",
    )
    keys: str = option(
        "name",
        "Match a file's tensors by name, or by order where all shapes agree.",
        choices=("name", "order"),
    )
    layer: str | None = option(
        None,
        "Pool the end of this stage, or of several, side by side.  [default: what enters the "
        "last Linear]",
        metavar="stem|layer1|…|layer4|neck[,…]",
    )
    pool: str | None = option(
        None, "How to pool the layer.  [default: as the trunk does]", choices=spec.POOLS
    )
    views: int = option(
        0,
        "Keep V random crops and flips of each training image besides, for `fit-head --views`.",
        metavar="V",
        least=0,
    )
    image_size: int | None = option(
        None, "Side of the input.  [default: the weights' own]", metavar="PX", least=1
    )
    precision: str = option(
        "auto",
        "auto: what the cache already holds, else what the hardware is fast in.",
        choices=PRECISIONS,
    )
    device: str = device_option()
    engine: str = option(
        "auto",
        "What runs the trunk. auto: OpenVINO on a CPU where it is installed.",
        choices=ENGINES,
        changes=False,
    )
    batch_size: int | None = batch_size_option()
    workers: int | None = workers_option()
    name: str | None = option(None, "The table's name.  [default: the data's]")
    val_fraction: float | None = option(
        None,
        "Share of val where the data have no splits.  [default: 0.15]",
        metavar="F",
        within="[0, 1)",
    )
    test_fraction: float | None = option(
        None,
        "Share of test where the data have no splits.  [default: 0.15]",
        metavar="F",
        within="[0, 1)",
    )
    seed: int = option(0, "Of the automatic splits.", least=0)
    max_bad: int | None = option(
        None,
        "Fail when more images than this cannot be decoded.  [default: no limit]",
        metavar="N",
        least=0,
        changes=False,
    )
    rehash: bool = option(
        False,
        "Read every file again, whatever its times say, and try bad images again.",
        changes=False,
    )

    def conflicts(self) -> list[str]:
        """Return a sentence for each layer that there is not, and for a name that no file can have.

        Whether the trunk has the layer is not known here.
        """
        found = []
        for name in [] if self.layer is None else spec.layer_names(self.layer):
            if name not in spec.LAYERS:
                hint = nearest(name, spec.LAYERS)
                found.append(f"--layer '{name}' is not one of {', '.join(spec.LAYERS)}.{hint}")
        if self.name is not None and self.name != safe(self.name):
            better = safe(self.name)
            found.append(f"--name '{self.name}' cannot be part of a file's name; try '{better}'.")
        return found
