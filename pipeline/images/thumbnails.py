"""Small pictures of image files, for people to look at: read, checked and shrunk in threads.

What cannot be shown is told: a file that is gone, is no image, or no longer holds what it did when
its features were computed has a reason in place of its picture.
"""

from __future__ import annotations

import io
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from pipeline.errors import BadImage
from pipeline.images.decoding import reading
from pipeline.images.decoding.quiet import decoding_threads
from pipeline.images.decoding.reading import Guard, unguarded
from pipeline.images.names import shown
from pipeline.images.opening import machine_error
from pipeline.images.preprocess import MAX_ASPECT, Preprocess
from pipeline.images.resizing import alike

CHANGED = "the file has changed"
#: Of WebP: at 96 pixels a photo takes about 2 kB and shows no blocks. Method 4 takes nearly twice
#: as long to code and saves a twentieth.
QUALITY, METHOD = 75, 2
#: Pictures of at most this side are kept to the bit: lossy coding of a few pixels shows.
TINY = 32
#: Files on their way for each thread, so that memory does not grow with their number.
AHEAD = 4


@dataclass(frozen=True, eq=False)
class Picture:
    """A small picture, or why there is none. Equal only when identical.

    Attributes:
        rgb: uint8 [h, w, 3], upright; None where there is a reason.
        reason: why there is no picture, short; else empty.
    """

    rgb: np.ndarray | None
    reason: str = ""


def shrink(rgb: np.ndarray, side: int) -> np.ndarray:
    """Return a picture that fits into side×side pixels, its proportions kept; never enlarged.

    Of a strip, longer than `MAX_ASPECT` times its short side, the middle is taken, as the trunk
    sees it.

    Args:
        rgb: uint8 [H, W, 3].
        side: pixels, above 0.

    Returns:
        uint8 [h, w, 3], h and w from 1 to `side`.
    """
    from PIL import Image

    height, width = rgb.shape[:2]
    longest = MAX_ASPECT * min(height, width)
    if max(height, width) > longest:
        top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
        rgb = rgb[top : top + longest, left : left + longest]
        height, width = rgb.shape[:2]
    if max(height, width) <= side:
        return np.ascontiguousarray(rgb)
    by = side / max(height, width)
    size = max(1, round(width * by)), max(1, round(height * by))
    small = Image.fromarray(np.ascontiguousarray(rgb)).resize(size, Image.Resampling.LANCZOS)
    return np.asarray(small)


def thumbnail(rgb: np.ndarray, side: int) -> bytes:
    """Return a picture as the bytes of a WebP file of at most side×side pixels.

    Args:
        rgb: uint8 [H, W, 3].
        side: pixels, above 0.
    """
    from PIL import Image

    small = shrink(rgb, side)
    buffer = io.BytesIO()
    Image.fromarray(small).save(
        buffer, "WEBP", quality=QUALITY, lossless=max(small.shape) <= TINY, method=METHOD
    )
    return buffer.getvalue()


def pictures(
    files: Iterable[tuple[str, bytes | None]],
    *,
    side: int,
    workers: int,
    guard: Guard = unguarded,
) -> Generator[Picture]:
    """Yield a picture of each file, in order.

    Args:
        files: path, and the sha256 (32 bytes) that the file must have; None for any.
        side: pixels that a picture must fit into.
        workers: threads.
        guard: asked before each image is decoded.

    Raises:
        PipelineError: the machine is to blame (no memory, an input or output error).
    """
    from pipeline.images.decoding import decode

    def small(data: bytes, _digest: bytes) -> np.ndarray:
        return shrink(decode.raster(data, least=side).rgb, side)

    return _each(((path, digest, small) for path, digest in files), workers, guard)


def views(
    files: Iterable[tuple[str, bytes, int]],
    preprocess: Preprocess,
    *,
    workers: int,
    guard: Guard = unguarded,
) -> Generator[Picture]:
    """Yield the crop of each view, as the trunk sees it before normalisation, in order.

    Args:
        files: path, sha256 that the file must have, and number of the view.
        preprocess: the trunk's.
        workers: threads.
        guard: asked before each image is decoded.

    Raises:
        PipelineError: the machine is to blame.
    """
    from pipeline.images.decoding.crops import crops, crops_by_numpy

    light = "torch" not in sys.modules and alike(preprocess)

    def crop(number: int, data: bytes, digest: bytes) -> np.ndarray:
        if light:
            return np.asarray(crops_by_numpy(data, preprocess, digest, [number]).crops[0])
        return _channels_last(crops(data, preprocess, digest, [number]).crops[0])

    jobs = ((path, digest, partial(crop, number)) for path, digest, number in files)
    return _each(jobs, workers, guard)


def _channels_last(picture: Any) -> np.ndarray:
    return np.asarray(picture.permute(1, 2, 0).numpy())  # [3, H, W] → [H, W, 3]


#: Path, digest or None, and what makes a small picture of a file's bytes and their digest.
_Job = tuple[str, bytes | None, Callable[[bytes, bytes], np.ndarray]]


def _each(jobs: Iterable[_Job], workers: int, guard: Guard) -> Generator[Picture]:
    rest = iter(jobs)
    pending: deque[Future[Picture]] = deque()
    with decoding_threads(workers) as pool:
        while True:
            for job in islice(rest, workers * AHEAD - len(pending)):
                pending.append(pool.submit(_picture, *job, guard))
            if not pending:
                return
            yield pending.popleft().result()


def _picture(
    path: str, expected: bytes | None, make: Callable[[bytes, bytes], np.ndarray], guard: Guard
) -> Picture:
    name = shown(path)
    try:
        data = reading.read_unknown(path)
        digest = reading.admit(data, expected, name, guard=guard, changed=BadImage(CHANGED))
        return Picture(make(data, digest))
    except BadImage as error:
        return Picture(None, str(error))
    except (MemoryError, OSError) as error:
        raise machine_error("show", name, error) from error
