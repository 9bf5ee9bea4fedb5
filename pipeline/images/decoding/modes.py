"""A loaded Pillow picture of any mode as eight bits a sample, and as RGB without transparency."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from pipeline.errors import BadImage

NO_RANGE = "signed or 32-bit integer samples, which have no agreed range"
BEYOND_ONE = "floating point samples outside 0 to 1"
#: By how much a floating point sample may be outside 0 to 1: rounding, of 16 bits too.
_ROUNDING = 1e-3
#: A picture of 16-bit samples of which none reaches this is told: no camera exposes so.
_DARK = 1 << 14

_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF 6.0, section 8


def eight_bits(
    image: Image.Image,
    *,
    bits: int = 8,
    declared: int = 0,
    low: Callable[[], Image.Image | None] = lambda: None,
) -> tuple[Image.Image, str]:
    """Return the picture with eight bits a sample, and a remark.

    Of 16-bit samples the high byte counts; where the file declares fewer bits and no sample needs
    more, the highest eight of these.

    Args:
        image: loaded, in any mode that Pillow opens.
        bits: of a sample in the file. Pillow scales samples to the mode's range but not the
            colour that a PNG declares transparent, so that is done here.
        declared: bits that the file says its samples have; 0 where it says nothing.
        low: gives the low bytes of 16-bit colours, of which Pillow keeps the high ones; None
            where it cannot.

    Raises:
        BadImage: where the samples have no agreed range (`I`, and `F` outside 0 to 1).
    """
    if image.mode == "I":
        raise BadImage(NO_RANGE)
    key = image.info.get("transparency")
    remark = ""
    if image.mode == "F" or image.mode.startswith("I;16"):
        samples: np.ndarray = np.array(image)
        if image.mode == "F":
            grey = of_floats(samples)
        else:
            tags: Any = getattr(image, "tag_v2", {})
            twelve = tuple(tags.get(_BITS_PER_SAMPLE, ())) == (12,)
            shift, remark = (4, "") if twelve else shift_of(int(samples.max()), declared)
            grey = (samples >> shift).astype(np.uint8)
        return _like(
            image, 255 - grey if is_negative(image) else grey, _clear(samples, key)
        ), remark
    if bits == 16:
        image, remark = _of_colours(image, declared, low)
        if isinstance(key, tuple):
            image.info["transparency"] = tuple(value >> 8 for value in key)
    elif bits in (2, 4) and image.mode == "L" and isinstance(key, int):
        image.info["transparency"] = key * 255 // (2**bits - 1)
    return image, remark


def is_negative(image: Image.Image) -> bool:
    """Tell whether white is zero in a TIFF that Pillow has opened: it inverts 8 bits alone."""
    tags: Any = getattr(image, "tag_v2", {})
    deep = image.mode == "F" or image.mode.startswith("I;16")
    return deep and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def shift_of(largest: int, declared: int) -> tuple[int, str]:
    """Return by how many bits to shift 16-bit samples, and a remark where they stay dark."""
    if 8 <= declared < 16 and largest < 1 << declared:
        return declared - 8, ""
    dark = 0 < largest < _DARK
    found = f"Dark 16-bit samples, taken as they are (largest {largest:,} of 65,535)"
    return 8, found if dark else ""


def _of_colours(
    image: Image.Image, declared: int, low: Callable[[], Image.Image | None]
) -> tuple[Image.Image, str]:
    """Return 16-bit colours, of which Pillow kept the high bytes, scaled if declared."""
    colours = len(image.getbands()) - (image.mode in ("RGBA", "RGBa", "LA", "La", "RGBX"))
    high = np.asarray(image)
    high = (high if high.ndim == 3 else high[..., None])[..., :colours]
    if int(high.max()) >= _DARK >> 8 or (rest := low()) is None or rest.mode != image.mode:
        return image, ""
    lower = np.asarray(rest)
    lower = (lower if lower.ndim == 3 else lower[..., None])[..., :colours]
    samples = high.astype(np.uint16) << 8 | lower
    shift, remark = shift_of(int(samples.max()), declared)
    if shift == 8:
        return image, remark
    scaled = np.array(image)
    scaled.reshape(*high.shape[:2], -1)[..., :colours] = samples >> shift
    return _like(image, scaled), remark


def of_floats(samples: np.ndarray) -> np.ndarray:
    """Return uint8 of samples from 0 to 1, of any shape."""
    # NaN fails both comparisons.
    if not (samples.min() >= -_ROUNDING and samples.max() <= 1 + _ROUNDING):
        raise BadImage(BEYOND_ONE)
    whole: np.ndarray = np.rint(samples.clip(0, 1) * 255).astype(np.uint8)
    return whole


def _clear(samples: np.ndarray, key: object) -> np.ndarray | None:
    """Return where a grey picture is transparent, bool [H, W]."""
    return samples == key if isinstance(key, int) else None


def _like(image: Image.Image, pixels: np.ndarray, clear: np.ndarray | None = None) -> Image.Image:
    """Return pixels as an image with what `image` says of itself."""
    made = Image.fromarray(pixels)
    made.info = {**image.info}
    if clear is not None:
        del made.info["transparency"]
        made.putalpha(Image.fromarray((~clear).astype(np.uint8) * 255))
    return made


def is_clear(image: Image.Image) -> bool:
    """Tell whether a picture has transparency."""
    palette = getattr(image.palette, "mode", "") if image.mode == "P" else ""
    alpha = image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    return alpha or palette == "RGBA" or image.info.get("transparency") is not None


def on_white(image: Image.Image) -> Image.Image:
    """Return a picture of eight bits a sample in mode RGB, transparency composited on white.

    Raises:
        ValueError: where Pillow has no conversion.
    """
    if not is_clear(image):
        return image if image.mode == "RGB" else image.convert("RGB")
    seen = with_alpha(image)
    white = Image.new("RGB", seen.size, "white")
    white.paste(seen, mask=seen)
    return white


def with_alpha(image: Image.Image) -> Image.Image:
    """Return a picture in mode RGBA."""
    if image.mode == "La":  # premultiplied: Pillow converts it to LA alone
        image = image.convert("LA")
    return image.convert("RGBA")
