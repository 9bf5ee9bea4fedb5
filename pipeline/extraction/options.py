"""`Recipe`: what `extract` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError, nearest
from pipeline.images.names import safe
from pipeline.options import command_line, faults
from pipeline.trunks import spec

DEFAULT_TRUNK = "efficientnet_lite0"
_LEAST = {"image_size": 1, "batch_size": 1, "workers": 1, "max_bad": 0, "views": 0}
_ALLOWED = {
    "keys": ("name", "order"),
    "precision": ("auto", *spec.PRECISIONS),
    "device": ("auto", "cpu", "cuda", "mps"),
    "engine": ("auto", "torch", "openvino"),
    "pool": (None, *spec.POOLS),
}
#: Options that change how fast a table is made, or whether, but not what is in it.
_MEANS = ("device", "engine", "batch_size", "workers", "max_bad", "rehash")


@dataclass(frozen=True)
class Recipe:
    """The options of `extract`. Equal recipes over equal files give equal tables.

    Args:
        trunk: name of the trunk: built-in, torchvision's, or `timm/NAME`.
        weights: `default`, a name of the library's, `random`, or a file.
        keys: match a weights file's tensors by `name` or by `order`.
        layer: `stem`, `layer1` … `layer4` or `neck`, or several with commas, side by side; None
            for the trunk's own feature.
        pool: `avg`, `max`, `gem` or `flat`, of the layers' activations.
        views: random crops and flips of each training image that are kept besides.
        image_size: side of the input in pixels; None for the weights' own.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        device: `auto`, `cpu`, `cuda` or `mps`.
        engine: `auto`, `torch` or `openvino`: what runs the trunk.
        batch_size: images at once; None for the device's default.
        workers: decoding threads; None for the cores that the process may use.
        name: the table's name; None for the data's.
        val_fraction: share of val, in [0, 1), where the data have no splits; None for 0.15.
        test_fraction: share of test, likewise.
        seed: of the automatic splits.
        max_bad: most images that may be undecodable; None for no limit.
        rehash: read every file again, and try bad images again.
    """

    trunk: str = DEFAULT_TRUNK
    weights: str = "default"
    keys: str = "name"
    layer: str | None = None
    pool: str | None = None
    views: int = 0
    image_size: int | None = None
    precision: str = "auto"
    device: str = "auto"
    engine: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
    name: str | None = None
    val_fraction: float | None = None
    test_fraction: float | None = None
    seed: int = 0
    max_bad: int | None = None
    rehash: bool = False

    def check(self) -> None:
        """Refuse values that cannot be right, all in one message.

        Raises:
            UsageError: what was given, what is allowed, the nearest name.
        """
        found = faults(self, least=_LEAST, allowed=_ALLOWED)
        for name in [] if self.layer is None else spec.layer_names(self.layer):
            if name not in spec.LAYERS:
                hint = nearest(name, spec.LAYERS)
                found.append(f"--layer '{name}' is not one of {', '.join(spec.LAYERS)}.{hint}")
        if self.name is not None and self.name != safe(self.name):
            better = safe(self.name)
            found.append(f"--name '{self.name}' cannot be part of a file's name; try '{better}'.")
        if found:
            raise UsageError(" ".join(found))

    def command(self, data: str | Path | None) -> str:
        """Return the command line that makes the same table."""
        words = [] if data is None else [str(data)]
        return command_line("extract", words, self, without=_MEANS)
