"""What Python callers give for an image: a path, a file or its bytes, an array, a PIL image."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from pipeline.arguments import named
from pipeline.errors import PipelineError, UsageError

if TYPE_CHECKING:
    from PIL import Image

#: What `as_source` takes, tensors besides.
AnyImage: TypeAlias = "str | os.PathLike[str] | bytes | np.ndarray | Image.Image"
_LIKE = (
    "An image is a path, a file or its bytes, a PIL image, or an array: uint8 [H, W], [H, W, 3] or "
    "[H, W, 4], or uint16 [H, W]"
)
#: Modes that a PNG holds as they are.
_PNG = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")
#: Modes that a TIFF holds as they are, with the profile of their colours.
_TIFF = ("CMYK", "F", "I", "LAB")
#: Other modes → one of the above that holds the same picture.
_SAME = {"RGBa": "RGBA", "La": "LA", "PA": "RGBA"}


def check_source(item: Any) -> None:
    """Refuse what `as_source` takes for no image, without a look at its pixels.

    Raises:
        UsageError: what was given, what is allowed, what to do.
    """
    if isinstance(item, str | os.PathLike | bytes | bytearray | memoryview):
        return
    if _is_pil(item) or hasattr(item, "read"):
        return
    if not _is_array(item):
        raise UsageError(f"{_LIKE}; not {named(item)}.")
    kind, shape = str(item.dtype).removeprefix("torch."), tuple(item.shape)
    if kind == "uint8" and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))):
        fault = "" if min(shape) else " It has no pixels."
    elif kind == "uint16" and len(shape) == 2 and min(shape):
        fault = ""
    elif len(shape) == 3 and shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4):
        fault = " Its channels come first: put them last, as `permute(1, 2, 0)` does."
    elif kind.startswith(("float", "bfloat")):
        fault = (
            " Scale its values to 0 to 255 and convert them to uint8, as they would be in a file."
        )
    else:
        fault = " "
    if fault:
        raise UsageError(f"{_LIKE}; not {kind} {list(shape)}.{fault.rstrip()}")


def as_source(item: Any) -> str | bytes:
    """Return a path, or the bytes of an encoded picture.

    A PIL image decodes as a file that holds it would: so floating point samples must lie within 0
    to 1, and those of 32-bit integers are refused when it is decoded. What is told of its colours
    and EXIF is told of it as well.

    Args:
        item: as a path: text or a `Path`; a file that is open for bytes, or its bytes; an array or
            tensor, uint8 [H, W] (grey), [H, W, 3] (RGB) or [H, W, 4] (with transparency), or uint16
            [H, W]; or a PIL image, which is brought upright as its file would be.

    Raises:
        UsageError: it is anything else.
        PipelineError: a PIL image whose file is damaged.
    """
    check_source(item)
    if isinstance(item, str | os.PathLike):
        return os.fsdecode(item)
    if isinstance(item, bytes | bytearray | memoryview):
        return bytes(item)
    if hasattr(item, "read"):
        data = item.read()
        if not isinstance(data, bytes):
            raise UsageError(f"{_LIKE}; not a file that is open for text.")
        return data
    from PIL import Image

    if not _is_pil(item):
        array = np.asarray(item.numpy(force=True) if hasattr(item, "detach") else item)
        item = Image.fromarray(
            np.ascontiguousarray(array[..., 0] if array.shape[2:] == (1,) else array)
        )
    try:
        return _file_of(item)
    except (OSError, SyntaxError, ValueError) as error:
        raise PipelineError(f"A PIL image cannot be read: {error}.") from error


def _file_of(image: Image.Image) -> bytes:
    """Return a PIL image as the bytes of a PNG or TIFF that decodes as its own file would."""
    from PIL import Image

    from pipeline.images.decoding import headers, modes, pillow

    kind = image.format  # lost by what follows
    xmp = image.info.pop("xmp", None)  # Pillow would turn a TIFF by it
    try:
        image.load()
    finally:
        image.info.update({} if xmp is None else {"xmp": xmp})
    if modes.is_negative(image):
        whole: np.ndarray = np.array(image)
        info = image.info
        image = Image.fromarray((1 if image.mode == "F" else 65535) - whole)
        image.info = info
    exif = b"" if kind == "TIFF" else pillow.exif_of(image)  # Pillow has turned a TIFF
    turn = headers.exif_orientation(exif)
    upright = pillow.UPRIGHT.get(turn or 1)
    image = image if upright is None else image.transpose(upright)
    profile = image.info.get("icc_profile") or _colours(image, kind, exif)
    if image.mode.startswith("I;16") and image.mode != "I;16":  # in another byte order
        samples: np.ndarray = np.array(image)
        image = Image.fromarray(samples.astype(np.uint16))
    elif image.mode not in (*_PNG, *_TIFF):
        image = image.convert(_SAME.get(image.mode, "RGB"))
    buffer = io.BytesIO()
    if image.mode in _TIFF:
        # not as the file was compressed that it came from, perhaps with loss
        image.save(buffer, "TIFF", icc_profile=profile, compression="raw")
    else:
        # what cannot be read is passed on: decoding tells of it
        junk = {"exif": exif} if turn is None else {}
        image.save(buffer, "PNG", compress_level=1, icc_profile=profile, **junk)
    return buffer.getvalue()


def _colours(image: Image.Image, kind: str | None, exif: bytes) -> bytes | None:
    """Return a profile for what a loaded image says of its colours without one; None for sRGB."""
    from pipeline.images.decoding import colour

    said = colour.Colours()
    if kind in ("JPEG", "MPO", None):  # None: what was made of one, perhaps
        said = colour.of_exif(exif)
    if points := image.info.get("nclx_profile"):  # as pillow-heif opens HEIC
        said = colour.of_code_points(points["color_primaries"], points["transfer_characteristics"])
    if said == colour.Colours() and "srgb" not in image.info:
        said = colour.of_png(image.info.get("gamma"), image.info.get("chromaticity"))
    return colour.as_profile(said)


def _is_pil(item: Any) -> bool:
    return hasattr(item, "getbands") and hasattr(item, "tobytes")


def _is_array(item: Any) -> bool:
    return hasattr(item, "dtype") and hasattr(item, "shape") and hasattr(item, "__array__")
