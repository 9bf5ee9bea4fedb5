"""OpenVINO: the ONNX graph converted, as model.xml and model.bin in fp32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.exports import onnx_file

XML = "model.xml"


def save(onnx: Path, folder: Path, info: dict[str, Any]) -> None:
    """Convert an ONNX file and write the result, with what a user must know under `headstart`."""
    import openvino

    model = openvino.convert_model(onnx)
    _use_pillows_kernels(model)
    model.set_rt_info(json.dumps(info, ensure_ascii=True), ["headstart"])
    openvino.save_model(model, folder / XML, compress_to_fp16=False)


def _use_pillows_kernels(model: Any) -> None:
    """Resize as Pillow does, and torchvision with it.

    Converted from ONNX, OpenVINO's antialiasing was up to 84 grey levels away (2026.4).
    """
    from openvino import opset11 as ops

    for node in model.get_ordered_ops():
        if node.get_type_name() != "Interpolate":
            continue
        kind = "bicubic" if node.get_attributes()["mode"] == "cubic" else "bilinear"
        axes = ops.constant(np.array([2, 3]))
        sides = ops.gather(node.input_value(1), axes, ops.constant(np.array(0)))
        resized = ops.interpolate(
            node.input_value(0),
            sides,
            mode=f"{kind}_pillow",
            shape_calculation_mode="sizes",
            cube_coeff=-0.5,
            axes=axes.output(0),
        )
        node.output(0).replace(resized.output(0))


def require() -> None:
    """Refuse, with what to install, where a package is missing."""
    onnx_file.require("openvino", "onnx", "onnxscript", extra="openvino")


def probabilities(folder: Path, inputs: list[np.ndarray]) -> np.ndarray:
    """Return what OpenVINO gives of a written file in fp32, [N, K]."""
    import openvino

    model = openvino.Core().compile_model(folder / XML, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.concatenate([model(x[None])["probabilities"] for x in inputs])
