"""ONNX: one file with the network, normalisation, class names and how to prepare images."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline.finetuning.model import Predictor
from pipeline.images.preprocess import MAX_ASPECT, Preprocess
from pipeline.inference.exporting.graph import example_of
from pipeline.inference.options import ExportOptions

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 20
FILE = "model.onnx"
#: torchvision's antialiased kernels, which are Pillow's: bicubic with a = −0.5, weights of pixels
#: outside the picture left out.
_MODES = {
    "bilinear": 'mode = "linear", antialias = 1, exclude_outside = 1',
    "bicubic": 'mode = "cubic", cubic_coeff_a = -0.5, antialias = 1, exclude_outside = 1',
}

_STRIP = """
    longest = Mul(short, most)
    kept = Min(size, longest)
    spare = Sub(size, kept)
    spare_f = Cast <to = 1> (spare)
    half = Mul(spare_f, a_half)
    first_f = Round(half)
    first = Cast <to = 7> (first_f)
    last = Add(first, kept)
    strip = Slice(images, first, last, hw)
    scaled = Mul(kept, resize)
    new = Div(scaled, short)
"""
_SQUASH = """
    strip = Identity(images)
    new = Concat <axis = 0> (resize, resize)
"""
_GRAPH = """
<ir_version: 10, opset_import: ["" : {opset}]>
preprocess (uint8[batch, height, width, 3] images) => (uint8[batch, {crop}, {crop}, 3] crops)
<int64[1] most = {{{aspect}}}, int64[1] resize = {{{resize}}}, int64[2] crop = {{{crop}, {crop}}},
 int64[2] hw = {{1, 2}}, float a_half = {{0.5}}, int64[1] three = {{3}}>
{{
    size = Shape <start = 1, end = 3> (images)
    count = Shape <start = 0, end = 1> (images)
    short = ReduceMin <keepdims = 1> (size)
    {fit}
    planes = Transpose <perm = [0, 3, 1, 2]> (strip)
    sizes = Concat <axis = 0> (count, three, new)
    resized = Resize <{mode}> (planes, , , sizes)
    over = Sub(new, crop)
    over_f = Cast <to = 1> (over)
    half_over = Mul(over_f, a_half)
    from_f = Round(half_over)
    begin = Cast <to = 7> (from_f)
    end = Add(begin, crop)
    back = Transpose <perm = [0, 2, 3, 1]> (resized)
    crops = Slice(back, begin, end, hw)
}}
"""


def _traced(module: torch.nn.Module, example: torch.Tensor, name: str) -> ModelProto:
    noisy = logging.getLogger("torch.onnx")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[name],
                output_names=["logits", "probabilities"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    finally:
        noisy.setLevel(level)
    assert program is not None
    model: ModelProto = program.model_proto
    for value in (*model.graph.input, *model.graph.output):  # torch 2.6 has a name of its own
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


def preprocess_model(preprocess: Preprocess) -> ModelProto:
    """Return the model from uint8 images [B, H, W, 3] to uint8 crops [B, S, S, 3].

    The same arithmetic as `Preprocess.apply`: a strip is cut to its middle, the short side resized,
    the middle cropped; positions are rounded to even halves as Python does.
    """
    import onnx.parser

    text = _GRAPH.format(
        opset=OPSET,
        aspect=MAX_ASPECT,
        resize=preprocess.resize,
        crop=preprocess.crop,
        mode=_MODES[preprocess.interpolation],
        fit=_SQUASH if preprocess.squash else _STRIP,
    )
    return onnx.parser.parse_model(text)


def save(predictor: Predictor, folder: Path, info: dict[str, Any], options: ExportOptions) -> None:
    """Write a head or model as ONNX, checked.

    Inputs: `images` uint8 [batch, S, S, 3], or [batch, H, W, 3] with the preprocessing; or
    `features` float32 [batch, D]. Outputs [batch, K]: `logits`, uncalibrated, and `probabilities`.

    Args:
        predictor: a head or model.
        folder: to write into.
        info: what a user must know, under `headstart` in the metadata.
        options: of `export`: whether resizing is inside, or only what goes on top of features.

    Raises:
        PipelineError: the head is not linear.
    """
    import onnx.compose

    model = _traced(*example_of(predictor, head_only=options.head_only))
    if options.with_preprocess:
        before = preprocess_model(predictor.preprocess)
        before.ir_version = model.ir_version
        model = onnx.compose.add_prefix(model, "net/", rename_outputs=False)
        model = onnx.compose.merge_models(before, model, io_map=[("crops", "net/images")])
    entry = model.metadata_props.add()
    entry.key, entry.value = "headstart", json.dumps(info, ensure_ascii=True)
    onnx.checker.check_model(model)
    onnx.save(model, folder / FILE)


def probabilities(folder: Path, inputs: list[np.ndarray]) -> np.ndarray:
    """Return what onnxruntime gives of a written file, [N, K].

    Args:
        folder: that `save` wrote into.
        inputs: N arrays, each one image or feature without the batch's axis.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        folder / FILE, options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(["probabilities"], {name: x[None]})[0] for x in inputs])
