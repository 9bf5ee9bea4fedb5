"""`Preprocess` as an ONNX graph: resize and crop inside the file, for images of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.images.preprocess import MAX_ASPECT, Preprocess

if TYPE_CHECKING:
    from onnx import ModelProto

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


def preprocess_model(preprocess: Preprocess, *, opset: int) -> ModelProto:
    """Return the model from uint8 images [B, H, W, 3] to uint8 crops [B, S, S, 3].

    The same arithmetic as `Preprocess.apply`: a strip is cut to its middle, the short side resized,
    the middle cropped; positions are rounded to even halves as Python does.
    """
    import onnx.parser

    text = _GRAPH.format(
        opset=opset,
        aspect=MAX_ASPECT,
        resize=preprocess.resize,
        crop=preprocess.crop,
        mode=_MODES[preprocess.interpolation],
        fit=_SQUASH if preprocess.squash else _STRIP,
    )
    return onnx.parser.parse_model(text)
