"""A loaded Pillow picture of any mode as RGB, without clipping and without transparency."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from pipeline.errors import BadImage

NO_RANGE = "signed or 32-bit integer samples, which have no agreed range"
BEYOND_ONE = "floating point samples outside 0 to 1"

_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF 6.0, section 8


def to_rgb(image: Image.Image, *, bits: int = 8) -> Image.Image:
    """Return the picture in mode RGB, transparency composited on white.

    Args:
        image: loaded, in any mode that Pillow opens.
        bits: of a sample in the file. Pillow scales samples to the mode's range but not the
            colour that a PNG declares transparent, so that is done here.

    Raises:
        BadImage: where the samples have no agreed range (`I`, and `F` outside 0 to 1).
        ValueError: where Pillow has no conversion.
    """
    if image.mode == "I":
        raise BadImage(NO_RANGE)
    if image.mode == "F" or image.mode.startswith("I;16"):
        return Image.fromarray(_grey(image)).convert("RGB")
    key = image.info.get("transparency")
    if bits == 16 and isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in key)
    elif bits in (2, 4) and image.mode == "L" and isinstance(key, int):
        image.info["transparency"] = key * 255 // (2**bits - 1)
    if image.mode == "La":  # premultiplied: Pillow converts it to LA alone
        image = image.convert("LA")
    palette = getattr(image.palette, "mode", "") if image.mode == "P" else ""
    if key is None and palette != "RGBA" and image.mode not in ("LA", "PA", "RGBA", "RGBa"):
        return image if image.mode == "RGB" else image.convert("RGB")
    seen = image.convert("RGBA")
    white = Image.new("RGB", seen.size, "white")
    white.paste(seen, mask=seen)
    return white


def _grey(image: Image.Image) -> np.ndarray:
    """Return uint8 [H, W] of a picture with one 16-bit or floating point channel."""
    tags: Any = getattr(image, "tag_v2", {})
    samples: np.ndarray = np.array(image)
    if image.mode == "F":
        # NaN fails both comparisons.
        if not (samples.min() >= 0 and samples.max() <= 1):
            raise BadImage(BEYOND_ONE)
        grey: np.ndarray = np.rint(samples * 255).astype(np.uint8)
    else:
        bits = 12 if tuple(tags.get(_BITS_PER_SAMPLE, ())) == (12,) else 16
        grey = (samples >> (bits - 8)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts this up to 8 bits alone
        grey = 255 - grey
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey[samples == key] = 255
    return grey
