"""The README beside an export: what it is, and lines of Python that run without this package."""

from __future__ import annotations

from typing import Any

from pipeline.images.preprocess import MAX_ASPECT

#: From a file to RGB as `decode` does it, or a refusal.
OPEN = """\
head, image = open(sys.argv[1], "rb").read(1 << 16), Image.open(sys.argv[1])
has, profile, tags = image.info, image.info.get("icc_profile"), getattr(image, "tag_v2", {})
key = image.mode != "P" and "transparency" in has  # one colour that means nothing is there
# colours that are said otherwise than by a profile: PNG, AVIF and HEIC, a camera's EXIF
at = head.find(b"colrnclx") + 9
says = at > 8 and (head[at] in (9, 12) or head[at + 2] in (4, 5, 8))
says |= "srgb" not in has and ("gamma" in has or "chromaticity" in has)
says |= b"R03" in has.get("exif", b"")
says = b"cICP" in head or (not profile and says)
deep = {*tags.get(258, [8])} - {1, 8} or {*tags.get(339, [1])} - {1} or tags.get(284) == 2
deep = deep or (b"sBIT" in head and head[24] == 16)  # above: depth, format and planes of a TIFF
if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK") or key or says or deep:
    what = " with a transparent colour" * key + " with colours of its own" * says
    sys.exit(f"{image.mode}{what} is not read: save it as 8-bit RGB in sRGB")
image.load()
image = ImageOps.exif_transpose(image)
seen, grey = image.convert("RGB"), image.mode in ("1", "L", "LA")
own = {b"GRAY": "L", b"CMYK": "CMYK", b"RGB ": "RGB"}.get((profile or b"")[16:20])
if own == ("L" if grey else "CMYK" if image.mode == "CMYK" else "RGB") or (grey and own == "RGB"):
    try:
        given, to = image.convert(own), ImageCms.createProfile("sRGB")
        made = ImageCms.profileToProfile(given, io.BytesIO(profile), to, outputMode="RGB")
        if max(high for _, high in ImageChops.difference(made, seen).getextrema()) > 2:
            seen = made
    except ImageCms.PyCMSError:
        pass  # a broken profile
if image.has_transparency_data:
    alpha, white = image.convert("RGBA").getchannel("A"), Image.new("RGB", image.size, "white")
    white.paste(seen, mask=alpha)
    seen = white
image = seen
"""
_FIT = """

def middle(image, size):
    left, top = (round((side - wanted) / 2) for side, wanted in zip(image.size, size))
    return image.crop((left, top, left + size[0], top + size[1]))


fit = info["preprocess"]
{size}
image = middle(image.resize(size, Image.Resampling.{kernel}), [fit["crop"]] * 2)
"""
_ASPECT = f"""\
image = middle(image, [min(side, {MAX_ASPECT} * min(image.size)) for side in image.size])
size = [int(fit["resize"] * side / min(image.size)) for side in image.size]"""
_SQUASHED = 'size = [fit["resize"], fit["resize"]]'
_SHOW = """\
for p, name in sorted(zip(found.tolist(), info["classes"]), reverse=True)[:3]:
    print(f"{p:.6f} {name}")
"""
_ONNX = """\
session = onnxruntime.InferenceSession("model.onnx")
info = json.loads(session.get_modelmeta().custom_metadata_map["headstart"])
"""
_OPENVINO = """\
core, info = openvino.Core(), json.load(open("headstart.json"))
model = core.compile_model("model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
"""
_LIBRARY = """\
info = json.load(open("headstart.json"))
model = {make}("{name}", num_classes=len(info["classes"])).eval()
model.load_state_dict(load_file("model.safetensors"))
"""
_RUN_LIBRARY = """\
x = torch.tensor(np.asarray(image) / 255.0 - fit["mean"]) / torch.tensor(fit["std"])
logits = model(x.permute(2, 0, 1)[None].float())[0].detach()
found = torch.softmax(logits / info["temperature"], 0)
"""
_FEATURES = 'features = np.load(sys.argv[1]).astype("float32")  # one image, [D]\n'
_HEAD = 'info, head = json.load(open("headstart.json")), load_file("model.safetensors")\n'
_UNIT_LENGTH = "features /= max(np.linalg.norm(features), 1e-12)\n"
_RUN_HEAD = """\
logits = (head["weight"] @ features + head["bias"]) / info["temperature"]
found = np.exp(logits - logits.max())
found /= found.sum()
"""
_TENSORS = """\
from safetensors.torch import load_file

tensors = load_file("model.safetensors")  # trunk.<the library's name>, head.weight, head.bias
"""


def readme(info: dict[str, Any]) -> str:
    """Return the text for `headstart.json` as `pipeline.inference.exporting.export` writes it."""
    lines = [
        f"# {info['title']}",
        "",
        f"{len(info['classes'])} classes: {', '.join(info['classes'][:20])}"
        f"{', …' if len(info['classes']) > 20 else ''}. Arithmetic in fp32.",
        f"Probabilities are calibrated (temperature {info['temperature']:.4g}).",
        *_inputs(info),
        "",
        _promise(info),
        "",
        "```python",
        code_of(info).rstrip(),
        "```",
        "",
    ]
    if info["input"] != "features":
        lines += [_prepared(info), ""]
    return "\n".join(lines)


def _prepared(info: dict[str, Any]) -> str:
    """Return how an image becomes a crop, and what is known of the ways to get there."""
    fit = info["preprocess"]
    size = f"{fit['resize']} × {fit['resize']} px" if fit["squash"] else f"{fit['resize']} px"
    how = f"resized to {size} ({fit['interpolation']}, antialiased)"
    whole = how if fit["squash"] else f"whose short side is {how}"
    where = "The file resizes and crops" if info["input"] == "images" else "Pillow resizes above"
    text = (
        f"Images are RGB, in sRGB, upright, with transparency on white, {whole}, of which the "
        f"middle {fit['crop']} × {fit['crop']} px are taken. {where}; Headstart's own resizing "
        "differs from it by at most two of 255 grey levels, as was seen on photos."
    )
    if done := info["checked"].get("pictures"):
        text += (
            f" The lines above were run on pictures of these kinds and do what Headstart does: "
            f"{', '.join(done['same'])}. They refuse {', '.join(done['refused'])}."
        )
    return text


def _inputs(info: dict[str, Any]) -> list[str]:
    if info["format"] == "safetensors":
        return []
    shapes = {
        "crops": "`images`, uint8 [batch, {0}, {0}, 3]: crops, RGB, 0 to 255; normalised inside.",
        "images": "`images`, uint8 [batch, height, width, 3], RGB; resized, cropped and normalised "
        "inside.",
        "features": "`features`, float32 [batch, {1}], as `pipeline extract` caches them.",
    }
    shape = shapes[info["input"]].format(info["preprocess"]["crop"], info["dim"])
    return [f"Input: {shape}", "Outputs: `logits` and `probabilities`, float32 [batch, classes]."]


def _promise(info: dict[str, Any]) -> str:
    checked = info["checked"]
    what = {"features": "features", "crops": "images, cropped alike,"}.get(info["input"], "images")
    return (
        f"On {checked['images']} {what} its probabilities differ from those of Headstart by at "
        f"most {checked['difference']:.2g} ({checked['tolerance']:g} is allowed)."
    )


def reads_pictures(info: dict[str, Any]) -> bool:
    """Tell whether the lines of an export open a picture and print its classes."""
    tensors = info["format"] == "safetensors" and "library" not in info
    return info["input"] != "features" and not tensors


def code_of(info: dict[str, Any]) -> str:
    """Return the lines of Python that run an export."""
    form, of_features, library = info["format"], info["input"] == "features", info.get("library")
    if of_features:
        name, value, imports, given = "features", "features", "", _FEATURES
    else:
        name, value, imports = (
            "images",
            "np.asarray(image)",
            "from PIL import Image, ImageChops, ImageCms, ImageOps\n",
        )
        given = OPEN + ("" if info["input"] == "images" else fit_lines(info["preprocess"]))
    if form == "onnx":
        package, load = ", onnxruntime", _ONNX
        run = f'found = session.run(["probabilities"], {{"{name}": {value}[None]}})[0][0]\n'
    elif form == "openvino":
        package, load = ", openvino", _OPENVINO
        run = f'found = model({value}[None])["probabilities"][0]\n'
    elif of_features:
        package, load, run = "", _HEAD, (_UNIT_LENGTH if info["l2"] else "") + _RUN_HEAD
        imports += "from safetensors.numpy import load_file\n"
    elif library is not None:
        package, load = f", torch, {library['package']}", _LIBRARY.format(**library)
        imports, run = f"{imports}from safetensors.torch import load_file\n", _RUN_LIBRARY
    else:
        return _TENSORS
    return f"import io, json, sys, numpy as np{package}\n{imports}\n{load}{given}{run}{_SHOW}"


def fit_lines(fit: dict[str, Any]) -> str:
    """Return the lines that resize and crop a picture as `Preprocess.apply` does."""
    size = _SQUASHED if fit["squash"] else _ASPECT
    return _FIT.format(size=size, kernel=fit["interpolation"].upper())
