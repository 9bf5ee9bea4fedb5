"""What `predict`, `evaluate` and `export` are asked for."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.options import (
    ENGINES,
    PRECISIONS,
    Options,
    batch_size_option,
    data_option,
    device_option,
    option,
    workers_option,
)

FORMATS = ("onnx", "openvino", "safetensors")
SPLITS = ("train", "val", "test", "all")


@dataclass(frozen=True, kw_only=True)
class ComputeOptions(Options):
    """How to compute. Equal options give equal numbers on one machine."""

    precision: str = option("auto", "auto: that of the stored predictions.", choices=PRECISIONS)
    device: str = device_option()
    engine: str = option(
        "auto",
        "What runs the network. auto: what extract takes; PyTorch for a few images.",
        choices=ENGINES,
        changes=False,
    )
    batch_size: int | None = batch_size_option()
    workers: int | None = workers_option()


def _calibration() -> bool:
    field: bool = option(
        True,
        "Probabilities as in the stored predictions, without the fitted temperature.",
        flags=("--no-calibration",),
    )
    return field


@dataclass(frozen=True, kw_only=True)
class PredictOptions(ComputeOptions):
    """The options of `predict`. Equal options give equal predictions."""

    top: int | None = option(
        None, "Classes to give, likeliest first.  [default: 3]", metavar="K", least=1
    )
    min_confidence: float | None = option(
        None,
        "Abstain where the likeliest class is below P; the row is marked.",
        metavar="P",
        within="[0, 1]",
    )
    calibration: bool = _calibration()
    use_cache: bool = option(
        False, "Take a head's features from the cache, and keep those that it lacks."
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(ComputeOptions):
    """The options of `evaluate`. Equal options give equal figures."""

    split: str | None = option(
        None,
        "Whose images.  [default: val and test; all where there is neither]",
        choices=SPLITS,
    )
    calibration: bool = _calibration()
    data: str | None = data_option()


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Options):
    """The options of `export`. Equal options give equal folders."""

    format: str = option(
        "onnx",
        "onnx and openvino run without torch; safetensors is for the library's own model.",
        choices=FORMATS,
    )
    output: str | None = option(
        None,
        "The folder to write.  [default: TRUNK-ID-FORMAT, here]",
        metavar="DIR",
        flags=("-o", "--output"),
    )
    with_preprocess: bool = option(
        False, "Resizing and cropping inside the file, for images of any size."
    )
    head_only: bool = option(False, "Only what goes on top of cached features: a few kilobytes.")

    def conflicts(self) -> list[str]:
        """Return a sentence for each value that does not fit the others."""
        found = []
        if self.with_preprocess and self.head_only:
            found.append("--head-only starts from features: there is nothing to preprocess.")
        if self.with_preprocess and self.format == "safetensors":
            found.append("safetensors holds tensors and no graph: leave --with-preprocess out.")
        return found
