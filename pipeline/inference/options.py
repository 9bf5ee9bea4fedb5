"""What `predict`, `evaluate` and `export` are asked for."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.options import Options, option, output_option, shared

FORMATS = ("onnx", "openvino", "safetensors")
SPLITS = ("train", "val", "test", "all")


@dataclass(frozen=True, kw_only=True)
class ComputeOptions(Options):
    """How to compute. Equal options give equal numbers on one machine.

    Args:
        precision: auto: that of the stored predictions.
        engine: What runs the network. auto: what extract takes; PyTorch for a few images.
        batch_size: Images at once. [default: 32 on a CPU, 128 on CUDA, 64 on MPS]
        workers: Decoding threads. [default: the cores that the process may use]
    """

    precision: str = shared("precision")
    device: str = shared("device")
    engine: str = shared("engine")
    batch_size: int | None = shared("batch_size")
    workers: int | None = shared("workers")


@dataclass(frozen=True, kw_only=True)
class PredictOptions(ComputeOptions):
    """The options of `predict`. Equal options give equal predictions.

    Args:
        top: Classes to give, likeliest first. [default: 3]
        min_confidence: Abstain where the likeliest class is below P; the row is marked.
        calibration: Probabilities as in the stored predictions, without the fitted temperature.
        use_cache: Take a head's features from the cache, and keep those that it lacks.
    """

    top: int | None = option(None, metavar="K", least=1)
    min_confidence: float | None = option(None, metavar="P", within="[0, 1]")
    calibration: bool = shared("calibration")
    use_cache: bool = option(False)


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(ComputeOptions):
    """The options of `evaluate`. Equal options give equal figures.

    Args:
        split: Whose images. [default: val and test; all where there is neither]
        calibration: Probabilities as in the stored predictions, without the fitted temperature.
        data: Where the images of a table lie now.
    """

    split: str | None = option(None, choices=SPLITS)
    calibration: bool = shared("calibration")
    data: str | None = shared("data")


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Options):
    """The options of `export`. Equal options give equal folders.

    Args:
        format: onnx and openvino run without torch; safetensors is for the library's own model.
        output: The folder to write. [default: TRUNK-ID-FORMAT, here]
        with_preprocess: Resizing and cropping inside the file, for images of any size.
        head_only: Only what goes on top of cached features: a few kilobytes.
    """

    format: str = option("onnx", choices=FORMATS)
    output: str | None = output_option("DIR")
    with_preprocess: bool = option(False)
    head_only: bool = option(False)

    def conflicts(self) -> list[str]:
        """Return a sentence for each value that does not fit the others."""
        faults = []
        if self.with_preprocess and self.head_only:
            faults.append("--head-only starts from features: there is nothing to preprocess.")
        if self.with_preprocess and self.format == "safetensors":
            faults.append("safetensors holds tensors and no graph: leave --with-preprocess out.")
        return faults
