"""Resizing by NumPy, to the pixels of torchvision's antialiased resize of uint8. Imports no torch.

For a picture or two: it takes several times as long, and importing torch a thousand times.
"""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from pipeline.images.preprocess import MAX_ASPECT, Preprocess

#: Taps on either side of the centre, at a scale of one.
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
_BICUBIC = -0.5  # Keys 1981, and Pillow


def alike(preprocess: Preprocess) -> bool:
    """Tell whether torchvision here resizes in whole numbers, and so to these very pixels.

    It does for bicubic. For bilinear it takes floating point where a CPU has no AVX2, older
    releases also where it has AVX512: then a pixel in some thousands is another by one level.
    """
    if preprocess.resize < preprocess.crop:  # what it adds at the edges
        return False
    return preprocess.interpolation == "bicubic" or _whole_numbers()


@cache
def _whole_numbers(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    try:
        release = tuple(map(int, version("torchvision").split("+")[0].split(".")[:2]))
        return release >= (0, 29) and "avx2" in cpuinfo.read_text().split()
    except (PackageNotFoundError, OSError, ValueError):
        return False


def evaluation_view(rgb: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Return what `Preprocess.apply` does, of arrays.

    Args:
        rgb: uint8 [H, W, 3].
        preprocess: for which `alike` holds.

    Returns:
        uint8 [crop, crop, 3].
    """
    height, width = rgb.shape[:2]
    size, crop = (preprocess.resize, preprocess.resize), preprocess.crop
    if not preprocess.squash:
        longest = MAX_ASPECT * min(height, width)
        rgb = rgb[_middle(height, longest), _middle(width, longest)]
        height, width = rgb.shape[:2]
        long = int(preprocess.resize * max(height, width) / min(height, width))
        size = (long, preprocess.resize) if width <= height else (preprocess.resize, long)
    parts = _middle(size[0], crop), _middle(size[1], crop)
    return _both_ways(rgb, size, parts, preprocess.interpolation)


def squashed(rgb: np.ndarray, side: int, how: str) -> np.ndarray:
    """Return a picture uint8 [H, W, 3] resized to side×side pixels, whatever its shape.

    Args:
        rgb: it.
        side: pixels.
        how: `bilinear` or `bicubic`, for which `alike` holds.
    """
    return _both_ways(rgb, (side, side), (slice(None), slice(None)), how)


def _both_ways(
    rgb: np.ndarray, size: tuple[int, int], parts: tuple[slice, slice], how: str
) -> np.ndarray:
    for axis in (1, 0):  # rows of pixels first, as there
        rgb = _resized(rgb, axis, size[axis], parts[axis], how)
    return np.ascontiguousarray(rgb)


def _middle(size: int, wanted: int) -> slice:
    """Return where a centre crop lies, as torchvision rounds it."""
    start = round((size - wanted) / 2) if size > wanted else 0
    return slice(start, start + min(size, wanted))


def _resized(rgb: np.ndarray, axis: int, size: int, part: slice, how: str) -> np.ndarray:
    """Return a part of a picture that is resized to `size` along one axis."""
    before = rgb.shape[axis]
    if before == size:
        return rgb[(slice(None),) * axis + (part,)]
    places, weights, shift = _taps(before, size, how)
    places, weights = places[part], weights[part]  # [n, T]
    along = np.moveaxis(rgb, axis, 0)
    total = np.full((len(places), *along.shape[1:]), 1 << (shift - 1), np.int32)
    for tap in range(places.shape[1]):
        total += along[places[:, tap]] * weights[:, tap, None, None]
    return np.moveaxis((total >> shift).clip(0, 255).astype(np.uint8), 0, axis)


@lru_cache(64)
def _taps(before: int, after: int, how: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Return which pixels make each one of a resized row, [n, T], their weights and the shift.

    As torch's `_compute_index_ranges_int16_weights` has it: the weights are whole numbers of as
    many bits as fit 16 with their sign, and a weighted sum is shifted right.
    """
    scale = before / after
    stretch = max(scale, 1.0)
    support = _SUPPORT[how] * stretch
    centres = scale * (np.arange(after) + 0.5)
    first = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    most = int(np.ceil(support)) * 2 + 1
    count = np.clip(np.minimum((centres + support + 0.5).astype(np.int64), before) - first, 0, most)
    places = first[:, None] + np.arange(most)
    weights = _FILTERS[how](np.abs((places - centres[:, None] + 0.5) * (1.0 / stretch)))
    weights[np.arange(most) >= count[:, None]] = 0.0
    weights /= np.cumsum(weights, 1)[:, -1:]  # one after the other, as a loop adds
    largest = weights.max()
    bits = 0
    while bits < 22 and int(0.5 + largest * (2 << bits)) < 1 << 15:
        bits += 1
    whole = np.trunc(weights * (1 << bits) + np.copysign(0.5, weights)).astype(np.int32)
    return np.minimum(places, before - 1), whole, bits


def _bilinear(x: np.ndarray) -> np.ndarray:
    return np.where(x < 1, 1 - x, 0.0)


def _bicubic(x: np.ndarray, a: float = _BICUBIC) -> np.ndarray:
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


_FILTERS = {"bilinear": _bilinear, "bicubic": _bicubic}
