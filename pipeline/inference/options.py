"""`Means`: how `predict` and `evaluate` compute; their recipes have these options too."""

from __future__ import annotations

from dataclasses import dataclass

LEAST = {"batch_size": 1, "workers": 1}
ALLOWED = {
    "engine": ("auto", "torch", "openvino"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "device": ("auto", "cpu", "cuda", "mps"),
}


@dataclass(frozen=True, kw_only=True)
class Means:
    """How to compute. Equal means give equal numbers on one machine.

    Args:
        device: `auto`, `cpu`, `cuda` or `mps`.
        engine: `torch`, `openvino`, or `auto` for OpenVINO on a CPU where it is installed and
            pays; see `pipeline.trunks.engines.choice`.
        precision: `fp32`, `bf16`, `fp16`, or `auto` for that of the stored predictions.
        batch_size: images at once; None for the device's default.
        workers: decoding threads; None for the cores that the process may use.
    """

    device: str = "auto"
    engine: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
