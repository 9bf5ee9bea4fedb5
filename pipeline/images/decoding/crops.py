"""From an image file's bytes to the crops of its views.

View 0 is the evaluation transform, the others are numbered random crops that never change: a
view's geometry comes from a hash of the image's content and the view's number, so that an
augmented view is computed once, kept, and found again: a seed, a schedule or a learning rate
changes none.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from pipeline.images.decoding.decode import Decoded, jpeg_header_of, picture, reduction
from pipeline.images.preprocess import Preprocess

#: Share of the picture that a random crop covers, drawn evenly.
SCALE = (0.25, 1.0)
#: Width by height of a random crop, drawn evenly on a logarithmic scale.
RATIO = (3 / 4, 4 / 3)
_TRIES = 10
#: A large JPEG is decoded at a part of its size while the resize still has to shrink it by this:
#: features then differ less than bfloat16 makes them differ (docs/performance.md).
REDUCED = 2.5


class Cut(NamedTuple):
    """The crops of an image's views.

    Attributes:
        crops: uint8 [3, crop, crop] of each.
        remarks: on its decoding, as in `Decoded`.
    """

    crops: list[torch.Tensor]
    remarks: tuple[str, ...] = ()


#: Decodes and crops, with the first four arguments of `crops` and its result; see there, and
#: `pipeline.images.decoding.nvjpeg` for a GPU.
Crops = Callable[[bytes, Preprocess, bytes, Sequence[int]], Cut]


def crops(
    data: bytes,
    preprocess: Preprocess,
    digest: bytes,
    numbers: Sequence[int],
    decoder: Callable[..., Decoded] | None = None,
) -> Cut:
    """Return the crop of each view of an image, which is decoded once for each size that they need.

    Args:
        data: the whole file.
        preprocess: the trunk's.
        digest: sha256 of the file's bytes, 32 bytes.
        numbers: of the views.
        decoder: in place of `decode.picture`.

    Raises:
        BadImage, MemoryError, OSError: as `decode`.
    """
    make, header = decoder or picture, jpeg_header_of(data)
    pictures: dict[int, Decoded] = {}  # by how much it is reduced → picture
    found = []
    for number in numbers:
        least = least_side(preprocess, number)
        by = reduction(header, least)
        if by not in pictures:
            pictures[by] = make(data, least=least, header=header)
        found.append(view(pictures[by].pixels, preprocess, digest=digest, number=number))
    remarks = (remark for one in pictures.values() for remark in one.remarks)
    return Cut(found, tuple(dict.fromkeys(remarks)))


def view(
    image: torch.Tensor, preprocess: Preprocess, *, digest: bytes, number: int
) -> torch.Tensor:
    """Return a view of an image, not yet normalised.

    View 0 is the evaluation transform. Another one is a random crop of a share of the picture,
    resized to the input's size, and a horizontal flip of every other one (Szegedy et al. 2015,
    section 6; torchvision's `RandomResizedCrop` with its fallback to a centre crop).

    Args:
        image: uint8 [3, H, W], RGB.
        preprocess: the trunk's.
        digest: sha256 of the image's file, 32 bytes.
        number: of the view, 0 or above.

    Returns:
        uint8 [3, crop, crop].
    """
    if number == 0:
        return preprocess.apply(image)
    draws = _draws(digest, number)
    top, left, height, width = _box(image.shape[-2], image.shape[-1], draws)
    crop: torch.Tensor = F.resized_crop(
        image, top, left, height, width, [preprocess.crop, preprocess.crop],
        interpolation=InterpolationMode(preprocess.interpolation), antialias=True,
    )  # fmt: skip
    return crop.flip(-1) if next(draws) < 0.5 else crop


def least_side(preprocess: Preprocess, number: int) -> int:
    """Return the short side, in pixels, below which a picture must not be reduced for a view.

    `REDUCED` times what the resize leaves of it; the smallest random crop is two fifths of the
    picture's short side.
    """
    return round(REDUCED * (preprocess.resize if number == 0 else 2.5 * preprocess.crop))


def _draws(digest: bytes, number: int) -> Iterator[float]:
    """Yield numbers in [0, 1), the same ones for the same image and view, without end."""
    block = 0
    while True:
        words = hashlib.sha256(b"view %d %d\0" % (number, block) + digest).digest()
        for start in range(0, 32, 8):
            yield (int.from_bytes(words[start : start + 8], "big") >> 11) / (1 << 53)
        block += 1


def _box(height: int, width: int, draws: Iterator[float]) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a random crop, in pixels."""
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    for _ in range(_TRIES):
        area = height * width * (SCALE[0] + (SCALE[1] - SCALE[0]) * next(draws))
        ratio = math.exp(low + (high - low) * next(draws))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int((height - h + 1) * next(draws)), int((width - w + 1) * next(draws)), h, w
    # a strip: the largest crop of an allowed shape, in the middle
    h = max(1, min(height, round(width / RATIO[0])))
    w = max(1, min(width, round(height * RATIO[1])))
    return (height - h) // 2, (width - w) // 2, h, w
