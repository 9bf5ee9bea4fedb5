"""Uncompressed TIFFs that Pillow reads wrongly, or not at all.

Separate planes, grey with transparency, floating point other than grey of 32 bits, inverted grey of
16 bits, and big-endian BigTIFFs.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from pipeline.errors import BadImage
from pipeline.images.decoding import tiffs
from pipeline.images.decoding.modes import of_floats, shift_of
from pipeline.images.decoding.tiffs import Page

_WHITE_IS_ZERO = 0
_LOWEST_FIRST = 2  # value of FillOrder
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_MULTIPLIED, _SEPARATE = 1, 2  # values of ExtraSamples: alpha


def needed(page: Page) -> bool:
    """Tell whether Pillow reads an uncompressed page wrongly, or not at all, and `image` does."""
    if page.value(tiffs.COMPRESSION, 1) != 1 or _dtype(page) is None:
        return False
    number, bits = page.value(tiffs.SAMPLES, 1), page.value(tiffs.BITS, 1)
    if page.value(tiffs.FORMAT, tiffs.UNSIGNED) == tiffs.FLOAT:
        return number > 1 or bits != 32
    if number > 1 and page.value(tiffs.PHOTOMETRIC) in tiffs.GREY:
        return number == 2 and _has_alpha(page)
    if tiffs.is_planar(page):
        return True
    inverted = bits == 16 and page.value(tiffs.PHOTOMETRIC) == _WHITE_IS_ZERO
    return inverted or (page.big and page.order == ">")


def _has_alpha(page: Page) -> bool:
    return page.value(tiffs.EXTRA) in (_MULTIPLIED, _SEPARATE)


def _dtype(page: Page) -> np.dtype[np.generic] | None:
    """Return what an uncompressed page's samples are; None for what `samples` does not read."""
    bits, forms = set(page.values(tiffs.BITS)), set(page.values(tiffs.FORMAT)) or {tiffs.UNSIGNED}
    if len(bits) != 1 or len(forms) != 1 or page.value(tiffs.PHOTOMETRIC) not in tiffs.COLOURS:
        return None
    kinds = {(size, tiffs.FLOAT): f"f{size // 8}" for size in (16, 32, 64)}
    kinds |= {(size, tiffs.UNSIGNED): f"u{size // 8}" for size in (8, 16)}
    name = kinds.get((bits.pop(), forms.pop()))
    return None if name is None else np.dtype(page.order + name)


def image(page: Page) -> tuple[Image.Image, str]:
    """Return the picture of a page for which `needed` holds, with eight bits a sample, as
    it is stored; a remark.

    Raises:
        BadImage: floating point samples outside 0 to 1.
        ValueError: it is damaged.
    """
    pixels = _samples(page)
    photometric = page.value(tiffs.PHOTOMETRIC)
    colours = tiffs.COLOURS[photometric]
    if pixels.dtype.kind == "f":
        found, remark = of_floats(pixels), ""
    elif pixels.dtype == np.uint8:
        found, remark = pixels, ""
    else:
        shift, remark = shift_of(int(pixels[..., :colours].max()), tiffs.declared_bits(page))
        found = (pixels >> 8).astype(np.uint8)  # alpha uses all bits
        found[..., :colours] = pixels[..., :colours] >> shift
    if photometric == _WHITE_IS_ZERO:
        found[..., 0] = 255 - found[..., 0]
    names = {1: "L", 2: "LA", 3: "RGB", 4: "CMYK" if colours == 4 else "RGBA"}
    mode = names.get(found.shape[2])
    if mode is None:
        raise BadImage(tiffs.variant(page))
    if mode in ("LA", "RGBA") and page.value(tiffs.EXTRA) == _MULTIPLIED:
        mode = {"LA": "La", "RGBA": "RGBa"}[mode]
    height, width = found.shape[:2]
    made = Image.frombytes(mode, (width, height), np.ascontiguousarray(found).tobytes())
    if mode == "RGBa":
        made = made.convert("RGBA")
    return made, remark


def _samples(page: Page) -> np.ndarray:
    """Return [H, W, S] of an uncompressed page: its colours, and alpha where it has that."""
    width, height, number = (
        page.value(tiffs.WIDTH),
        page.value(tiffs.HEIGHT),
        page.value(tiffs.SAMPLES, 1),
    )
    kept = tiffs.COLOURS[page.value(tiffs.PHOTOMETRIC)] + _has_alpha(page)
    dtype = _dtype(page)
    separate = tiffs.is_planar(page)
    tiled = bool(page.values(tiffs.TILE_OFFSETS))
    offsets = page.values(tiffs.TILE_OFFSETS if tiled else tiffs.OFFSETS)
    wide = page.value(tiffs.TILE_WIDTH) if tiled else width
    tall = page.value(tiffs.TILE_HEIGHT) if tiled else min(page.value(tiffs.ROWS, height), height)
    if dtype is None or min(wide, tall, width, height) <= 0 or number < kept:
        raise ValueError("no picture")
    across, down = -(-width // wide), -(-height // tall)
    planes, depth = (number, 1) if separate else (1, number)
    if len(offsets) < planes * across * down:
        raise ValueError("truncated")
    mirrored = page.value(tiffs.FILL, 1) == _LOWEST_FIRST
    data = page.data.translate(_MIRRORED) if mirrored else page.data
    out = np.empty((height, width, kept), dtype.newbyteorder("="))
    for place, offset in enumerate(offsets[: planes * across * down]):
        plane, at = divmod(place, across * down)
        if separate and plane >= kept:
            break
        top, left = at // across * tall, at % across * wide
        rows, columns = min(tall, height - top), min(wide, width - left)
        stored = tall if tiled else rows
        if offset + stored * wide * depth * dtype.itemsize > len(page.data):
            raise ValueError("truncated")
        block = np.frombuffer(data, dtype, stored * wide * depth, offset)
        block = block.reshape(stored, wide, depth)[:rows, :columns]
        where = slice(plane, plane + 1) if separate else slice(None)
        out[top : top + rows, left : left + columns, where] = block[..., : out[..., where].shape[2]]
    return out
