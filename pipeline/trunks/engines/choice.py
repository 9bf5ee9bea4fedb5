"""Which engine runs a network here, and how crops are put together for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline.cores import usable_cores
from pipeline.errors import UsageError
from pipeline.trunks.spec import HALF, LIBJPEG, NVJPEG, FeatureKey

if TYPE_CHECKING:
    from pipeline.images.decoding.crops import Crops
    from pipeline.trunks.engines.engine import Engine
    from pipeline.trunks.feature_net import FeatureNet

#: Engines that are asked for by name and run in PyTorch.
PYTORCH = ("torch", "compiled")
BATCH_SIZE = {"cpu": 32, "cuda": 128, "mps": 64}
#: Parts of a plan that may be on their way to the disk while the next one is computed.
BEHIND = {"cpu": 0, "cuda": 1, "mps": 1}


class Batches(NamedTuple):
    """How crops are put together.

    Attributes:
        size: images in one.
        pinned: whether they lie in page-locked memory, from which a GPU copies while it computes.
        cut: decodes and crops the images.
        behind: parts that may be committed while the next one is computed: on a CPU, which has the
            same cores for both, none, so that what is committed is known at once.
    """

    size: int
    pinned: bool
    cut: Crops
    behind: int

    def names(self, engine: Engine) -> str:
        """Return what to record of an engine that computes from these batches."""
        from pipeline.images.decoding.crops import crops

        return engine.name if self.cut is crops else f"{engine.name} with nvJPEG"


def batches_on(device: str, decoder: str, size: int | None) -> Batches:
    """Return the batches for a device.

    Args:
        device: `cpu`, `cuda` or `mps`.
        decoder: of plain JPEGs, from `decoder_on`.
        size: images in one; None for the device's default.
    """
    from pipeline.images.decoding.crops import crops

    cut: Crops = crops
    if decoder == NVJPEG:  # what a CPU never needs is not imported there
        from pipeline.images.decoding.nvjpeg import crops_on_gpu

        cut = crops_on_gpu
    return Batches(size or BATCH_SIZE[device], device == "cuda", cut, BEHIND[device])


def decoder_on(device: str, precision: str) -> str:
    """Return what decodes plain JPEGs fastest here, without more error than the trunk makes.

    Args:
        device: `cpu`, `cuda` or `mps`.
        precision: of the trunk: `fp32`, `tf32`, `bf16` or `fp16`.
    """
    if device != "cuda" or precision not in HALF:
        return LIBJPEG
    from pipeline.images.decoding.nvjpeg import is_right

    return NVJPEG if is_right() else LIBJPEG


def settled(precision: str, *, device: str, asked: str) -> str:
    """Return the precision that an engine computes in here, where one is asked for.

    A CPU without bfloat16 has OpenVINO compute in float32; PyTorch rounds as it was told.

    Args:
        precision: from `choose_precision`; likewise `device`.
        asked: as in `engine_for`.
    """
    from pipeline.trunks.engines import openvino_engine

    if precision != "bf16" or device != "cpu" or asked in PYTORCH:
        return precision
    return openvino_engine.computes(precision) if openvino_engine.available() else precision


def engine_for(
    net: Callable[[], FeatureNet],
    key: FeatureKey,
    *,
    compiled: Path,
    device: str,
    asked: str,
    precision: str,
    cores: int | None = None,
) -> Engine:
    """Return what runs a network.

    Args:
        net: returns it; called once at most, and not where a converted one is kept.
        key: what its features depend on.
        compiled: the folder of converted networks.
        device: `cpu`, `cuda` or `mps`.
        asked: `torch`, `compiled` for what `torch.compile` makes of it, `openvino`, or `auto` for
            OpenVINO on a CPU where it is installed and can run the network, else PyTorch.
        precision: `fp32`, `tf32`, `bf16` or `fp16`.
        cores: that OpenVINO takes; None for those that the process may use. PyTorch takes those
            that it was started with.

    Raises:
        UsageError: OpenVINO or `torch.compile` is asked for, and is not there or cannot run it.
    """
    from pipeline.trunks.engines import openvino_engine

    installed = openvino_engine.available()
    if asked == "openvino" and not installed:
        raise UsageError(
            "OpenVINO is not installed: `pip install 'headstart[openvino]'`, or give "
            "--engine torch."
        )
    if asked == "openvino" and device != "cpu":
        raise UsageError(f"OpenVINO runs on a CPU here, not on {device}; give --engine torch.")
    notes: list[str] = []
    if asked not in PYTORCH and installed and device == "cpu":
        try:
            model = openvino_engine.converted(net, key, folder=compiled)
            taken = cores or usable_cores()
            return openvino_engine.OpenVINOEngine(model, precision=precision, cores=taken)
        except openvino_engine.ConversionError as error:
            if asked == "openvino":
                raise UsageError(f"{error} Give --engine torch, or leave --engine out.") from error
            notes.append(f"{error} Going on with PyTorch.")
    from pipeline.trunks.engines.torch_engine import TorchEngine

    engine = TorchEngine(
        net(), device=device, precision=precision, size=key.preprocess.crop,
        compiled=asked == "compiled",
    )  # fmt: skip
    engine.notes += notes
    return engine
