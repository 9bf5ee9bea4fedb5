"""JPEGs decoded and resized on a GPU, by nvJPEG, where torchvision's build can and does it right.

nvJPEG rounds otherwise than libjpeg-turbo, and enlarges the colour channels more simply. That is
more than fp32's own rounding (by how much features change was not measured): so it is for the half
precisions alone, and its rows have fingerprints of their own. Only plain JPEGs go there: one scan,
whole, grey or YCbCr, in sRGB, not very large. All others, and those that it refuses, are decoded as
everywhere (see `decode`), which has the last word on what is a bad image.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.images.decoding import decode as cpu
from pipeline.images.decoding.crops import Cut, crops
from pipeline.images.decoding.headers import JpegHeader
from pipeline.images.decoding.quiet import quiet
from pipeline.images.preprocess import Preprocess

#: Mean difference between both decoders' pixels, in levels of 255, up to which nvJPEG is taken to
#: be right: the tolerance of torchvision's own tests.
ALIKE = 2.0
#: What brings a picture [3, H, W] upright: flips by EXIF orientation, 1 to 4; from 5 on the same
#: after the sides are swapped (Exif 2.32, table 4.6.4 A).
_FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-1, -2), (-2,))
_threads = threading.local()


def crops_on_gpu(data: bytes, preprocess: Preprocess, digest: bytes, numbers: Sequence[int]) -> Cut:
    """Return what `crops` returns, on the CPU, computed on a GPU where that is possible.

    The thread works in a CUDA stream of its own, beside the trunk.
    """
    header = cpu.jpeg_header_of(data)
    orientation = None if header is None else _orientation(data, header)
    if header is not None and orientation is not None:
        remark = cpu.jpeg_conversion(header).remark
        try:
            with torch.cuda.stream(_stream()):
                stored = _nvjpeg(data)
                sides = stored.mT if orientation > 4 else stored
                pixels = sides.flip(_FLIPS[(orientation - 1) % 4])
                picture = cpu.Decoded(pixels, tuple(filter(None, [remark])))
                found = crops(data, preprocess, digest, numbers, lambda *_, **__: picture)
                return found._replace(crops=[crop.cpu() for crop in found.crops])
        except RuntimeError:  # a variant that it does not read, or no memory for it
            pass
    return crops(data, preprocess, digest, numbers)


def _nvjpeg(data: bytes) -> torch.Tensor:
    """Return a JPEG's picture as it is stored, on the GPU: uint8 [3, H, W], RGB."""
    buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    picture: torch.Tensor = cpu.decode_jpeg(buffer, mode=cpu.ImageReadMode.RGB, device="cuda")
    return picture


def _orientation(data: bytes, header: JpegHeader) -> int | None:
    """Return a plain JPEG's EXIF orientation, 1 to 8; None where it is no plain JPEG."""
    fits = 0 < header.width * header.height <= cpu.LARGE
    if header.scans != 1 or not fits or not data.endswith(b"\xff\xd9"):
        return None
    if cpu.jpeg_conversion(header).apply is not None:  # LittleCMS works on the CPU
        return None
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            stored: Any = getattr(image, "layer", [])  # (identifier, …) of each channel
            rgb = image.info.get("adobe_transform") == 0 or [c[0] for c in stored] == [*b"RGB"]
            if image.mode not in ("L", "RGB") or (rgb and image.mode == "RGB"):
                return None
            return cpu.orientation(image)
    except MemoryError:
        raise
    except Exception:  # hostile headers raise nearly anything; the CPU's decoder sees to them
        return None


def _stream() -> Any:
    """Return this thread's CUDA stream."""
    if not hasattr(_threads, "stream"):
        _threads.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    return _threads.stream


@cache
def is_right() -> bool:
    """Say whether nvJPEG is there and gives the pixels of a picture that libjpeg-turbo gives."""
    if cpu.decode_jpeg is None:
        return False
    rows, columns = np.mgrid[0:96, 0:128] / 128
    waves = [np.sin(9 * rows + 5 * columns), np.cos(7 * columns), np.sin(6 * rows - 8 * columns)]
    pixels = (127.5 + 127.5 * np.stack(waves, axis=-1)).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    with quiet():
        try:
            found = _nvjpeg(file.getvalue()).cpu()
        except RuntimeError:  # a build without nvJPEG, or a GPU that it does not run on
            return False
        expected = cpu.decode(file.getvalue())
    if found.shape != expected.shape:
        return False
    return float((found.float() - expected.float()).abs().mean()) <= ALIKE
