"""OpenVINO: one graph as model.xml and model.bin in fp32, straight from PyTorch."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.finetuning.model import Predictor
from pipeline.images.preprocess import MAX_ASPECT, Preprocess
from pipeline.inference.exporting.graph import example_of
from pipeline.inference.options import ExportOptions
from pipeline.trunks.engines import openvino_import

XML = "model.xml"


def _converted(module: torch.nn.Module, example: torch.Tensor, name: str) -> Any:
    openvino = openvino_import.openvino()
    shape = openvino.PartialShape([-1, *example.shape[1:]])
    kind = openvino.Type(np.dtype(str(example.dtype).removeprefix("torch.")))
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            lambda x: module(x), example, check_trace=False
        )
        model = openvino.convert_model(traced, input=[(shape, kind)])
    model.input(0).set_names({name})
    for output, what in zip(model.outputs, ("logits", "probabilities"), strict=True):
        output.set_names({what})
    return model


def _prepared(preprocess: Preprocess) -> tuple[Any, Any]:
    """Return the parameter uint8 images [B, H, W, 3], and uint8 crops [B, S, S, 3] of it.

    The same arithmetic as `Preprocess.apply`, with Pillow's kernels, which are torchvision's.
    """
    openvino = openvino_import.openvino()
    ops = openvino.opset11

    def whole(*values: int) -> Any:
        return ops.constant(np.array(values, np.int64))

    def middle(size: Any, part: Any) -> tuple[Any, Any]:
        """Return where the middle part begins and ends; halves go to even as in Python."""
        spare = ops.convert(ops.subtract(size, part), "f32")
        half = ops.round(ops.multiply(spare, ops.constant(np.float32(0.5))), "half_to_even")
        begin = ops.convert(half, "i64")
        return begin, ops.add(begin, part)

    sides, crop = whole(1, 2), whole(preprocess.crop, preprocess.crop)
    shape = openvino.PartialShape([-1, -1, -1, 3])
    images = ops.parameter(shape, openvino.Type.u8, name="images")
    images.output(0).set_names({"images"})
    strip, new = images, whole(preprocess.resize, preprocess.resize)
    if not preprocess.squash:
        size = ops.gather(ops.shape_of(images), sides, ops.constant(np.int64(0)))
        short = ops.reduce_min(size, whole(0), keep_dims=True)
        kept = ops.minimum(size, ops.multiply(short, whole(MAX_ASPECT)))
        strip = ops.slice(images, *middle(size, kept), whole(1, 1), sides)
        new = ops.divide(ops.multiply(kept, whole(preprocess.resize)), short)
    resized = ops.interpolate(
        ops.transpose(strip, whole(0, 3, 1, 2)),
        new,
        mode=f"{preprocess.interpolation}_pillow",
        shape_calculation_mode="sizes",
        cube_coeff=-0.5,
        axes=whole(2, 3).output(0),
    )
    back = ops.transpose(resized, whole(0, 2, 3, 1))
    crops = ops.slice(back, *middle(new, crop), whole(1, 1), sides)
    # so that what follows knows its sizes, whatever the image's
    fixed = ops.reshape(crops, whole(-1, preprocess.crop, preprocess.crop, 3), False)
    return images, fixed.output(0)


def save(predictor: Predictor, folder: Path, info: dict[str, Any], options: ExportOptions) -> None:
    """Write a head or model as OpenVINO's graph; arguments, inputs and outputs as in `onnx_file`.

    What a user must know stands under `headstart` in its `rt_info`.

    Raises:
        PipelineError: the head is not linear.
    """
    openvino = openvino_import.openvino()
    model = _converted(*example_of(predictor, head_only=options.head_only))
    if options.with_preprocess:
        images, crops = _prepared(predictor.preprocess)
        model.input(0).replace(crops)
        model = openvino.Model(model.get_results(), [images])
    model.set_rt_info(json.dumps(info, ensure_ascii=True), ["headstart"])
    openvino.save_model(model, folder / XML, compress_to_fp16=False)


def probabilities(folder: Path, inputs: list[np.ndarray]) -> np.ndarray:
    """Return what OpenVINO gives of a written file in fp32, [N, K]."""
    openvino = openvino_import.openvino()
    model = openvino.Core().compile_model(folder / XML, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.concatenate([model(x[None])["probabilities"] for x in inputs])
