"""ONNX: one file with the network, normalisation, class names and how to prepare images."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline.finetuning.predictor import Predictor
from pipeline.inference.exporting.graph import example_of, require
from pipeline.inference.exporting.preprocess_graph import preprocess_model

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 20
FILE = "model.onnx"
NEEDS = ("onnx", "onnxscript", "onnxruntime")


def build(predictor: Predictor, *, with_preprocess: bool, head_only: bool) -> ModelProto:
    """Return a head or model as ONNX.

    Inputs: `images` uint8 [batch, S, S, 3], or [batch, H, W, 3] with the preprocessing; or
    `features` float32 [batch, D]. Outputs [batch, K]: `logits`, uncalibrated, and `probabilities`.

    Raises:
        PipelineError: the head is not linear, or onnx is not installed.
    """
    require(*NEEDS, extra="onnx")
    import onnx.compose

    model = _traced(*example_of(predictor, head_only=head_only))
    if not with_preprocess:
        return model
    before = preprocess_model(predictor.preprocess, opset=OPSET)
    before.ir_version = model.ir_version
    model = onnx.compose.add_prefix(model, "net/", rename_outputs=False)
    return onnx.compose.merge_models(before, model, io_map=[("crops", "net/images")])


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
    return model


def save(model: ModelProto, folder: Path, info: dict[str, Any]) -> None:
    """Write a checked model, with what a user must know under `headstart` in its metadata."""
    import onnx

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
