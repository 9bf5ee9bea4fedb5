"""JPEGs decoded and resized on a GPU, by nvJPEG, where torchvision's build can and does it right.

torchvision lets one thread at a time call nvJPEG, which decodes many pictures faster than one by
one: what the threads have read while a call runs goes into the next one together.

nvJPEG rounds otherwise than libjpeg-turbo, and enlarges the colour channels more simply. That is
more than fp32's own rounding (by how much features change was not measured): so it is for the half
precisions alone, and its rows have fingerprints of their own. Only plain JPEGs go there: one scan,
whole, grey or YCbCr, in sRGB, not very large. All others, and those that it refuses, are decoded as
everywhere (see `decode`), which has the last word on what is a bad image.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.images.decoding import decode as cpu
from pipeline.images.decoding.crops import Cut, crops
from pipeline.images.decoding.decode import Decoded
from pipeline.images.decoding.headers import JpegHeader, exif_orientation
from pipeline.images.decoding.pillow import LARGE, orientation_remark
from pipeline.images.decoding.quiet import quiet
from pipeline.images.preprocess import Preprocess

#: Mean difference between both decoders' pixels, in levels of 255, up to which nvJPEG is taken to
#: be right: the tolerance of torchvision's own tests.
ALIKE = 2.0
_threads = threading.local()


class Together:
    """Decodes in one call what several threads ask for at once.

    Args:
        decode: returns the picture of each of some files, in order, which any thread may use.
    """

    def __init__(self, decode: Callable[[list[bytes]], list[torch.Tensor]]):
        self.decode = decode
        self.waiting: list[tuple[bytes, Future[torch.Tensor]]] = []
        self.lists, self.turn = threading.Lock(), threading.Lock()

    def __call__(self, data: bytes) -> torch.Tensor:
        """Return a file's picture; raises what `decode` does of this file alone."""
        own: Future[torch.Tensor] = Future()
        with self.lists:
            self.waiting.append((data, own))
        with self.turn:
            if not own.done():  # else the thread before decoded it
                with self.lists:
                    taken, self.waiting = self.waiting, []
                self._serve(taken)
        return own.result()

    def _serve(self, taken: list[tuple[bytes, Future[torch.Tensor]]]) -> None:
        try:
            found = self.decode([data for data, _ in taken])
        except BaseException as error:
            if len(taken) == 1:
                taken[0][1].set_exception(error)
                return
            for one in taken:  # whose fault it is shows then
                self._serve([one])
        else:
            for (_, future), picture in zip(taken, found, strict=True):
                future.set_result(picture)


def crops_on_gpu(data: bytes, preprocess: Preprocess, digest: bytes, numbers: Sequence[int]) -> Cut:
    """Return what `crops` returns, on the CPU, computed on a GPU where that is possible.

    The thread works in a CUDA stream of its own, beside the trunk.
    """
    header = cpu.jpeg_header_of(data)
    if header is not None and _is_plain(data, header):
        turn = exif_orientation(header.exif)
        convert = cpu.jpeg_conversion(header)
        remarks = convert.remark, header.remark, orientation_remark(turn)
        try:
            with torch.cuda.stream(_stream()):
                pixels = cpu.upright(_together(data), turn or 1)
                picture = Decoded(pixels, tuple(filter(None, remarks)))
                found = crops(data, preprocess, digest, numbers, lambda *_, **__: picture)
                # a copy waits for this stream, so that no work is left when the pixels are given up
                return found._replace(crops=[crop.cpu() for crop in found.crops])
        except RuntimeError:  # a variant that it does not read, or no memory for it
            pass
    return crops(data, preprocess, digest, numbers)


def _nvjpeg(files: list[bytes]) -> list[torch.Tensor]:
    """Return JPEGs' pictures as they are stored, on the GPU: uint8 [3, H, W] each, RGB.

    It waits for them, since a thread's stream knows nothing of another's.
    """
    buffers = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]
    found = cpu.decode_jpeg(buffers, device="cuda")
    torch.cuda.current_stream().synchronize()
    return list(found)


_together = Together(_nvjpeg)


def _is_plain(data: bytes, header: JpegHeader) -> bool:
    """Tell whether a JPEG is one that nvJPEG reads as libjpeg-turbo does, in sRGB."""
    fits = 0 < header.width * header.height <= LARGE
    if header.scans != 1 or not fits or not data.endswith(b"\xff\xd9"):
        return False
    if cpu.jpeg_conversion(header).apply is not None:  # LittleCMS works on the CPU
        return False
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            stored: Any = getattr(image, "layer", [])  # (identifier, …) of each channel
            rgb = image.info.get("adobe_transform") == 0 or [c[0] for c in stored] == [*b"RGB"]
            return image.mode == "L" or (image.mode == "RGB" and not rgb)
    except MemoryError:
        raise
    except Exception:  # hostile headers raise nearly anything; the CPU's decoder sees to them
        return False


def _stream() -> Any:
    """Return this thread's CUDA stream."""
    if not hasattr(_threads, "stream"):
        _threads.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    return _threads.stream


@cache
def is_right() -> bool:
    """Say whether nvJPEG is there and gives the pixels of a picture that libjpeg-turbo gives."""
    rows, columns = np.mgrid[0:96, 0:128] / 128
    waves = [np.sin(9 * rows + 5 * columns), np.cos(7 * columns), np.sin(6 * rows - 8 * columns)]
    pixels = (127.5 + 127.5 * np.stack(waves, axis=-1)).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    with quiet():
        try:
            found = _nvjpeg([file.getvalue()])[0].cpu()
        except (RuntimeError, ImportError):  # a build without nvJPEG, or a GPU that it cannot use
            return False
        expected = cpu.decode(file.getvalue())
    if found.shape != expected.shape:
        return False
    return float((found.float() - expected.float()).abs().mean()) <= ALIKE
