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
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.compiler import import_library
from pipeline.images import resizing
from pipeline.images.decoding.decode import (
    Decoded,
    jpeg_header_of,
    picture,
    raster,
    reduction,
)
from pipeline.images.decoding.pillow import Raster
from pipeline.images.preprocess import Preprocess
from pipeline.images.views import ViewPolicy, policy_of

if TYPE_CHECKING:
    import torch

_TRIES = 10
#: A large JPEG is decoded at a part of its size while the resize still has to shrink it by this:
#: features then differ less than bfloat16 makes them differ (docs/performance.md).
REDUCED = 2.5


class Cut(NamedTuple):
    """The crops of an image's views.

    Attributes:
        crops: uint8 [3, crop, crop] of each; of `crops_by_numpy` arrays [crop, crop, 3].
        remarks: on its decoding, as in `Decoded`.
        side: the image's short side as its file has it, pixels.
    """

    crops: list[Any]
    remarks: tuple[str, ...]
    side: int


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
    by, pictures = 1, dict[int, Decoded]()  # by how much it is reduced → picture
    found = []
    for number in numbers:
        least = least_side(preprocess, number)
        by = reduction(header, least)
        if by not in pictures:
            pictures[by] = make(data, least=least, header=header)
        found.append(view(pictures[by].pixels, preprocess, digest=digest, number=number))
    remarks = (remark for one in pictures.values() for remark in one.remarks)
    # only a JPEG is reduced, and its header has the whole size
    size = pictures[by].pixels.shape[-2:] if header is None else (header.width, header.height)
    return Cut(found, tuple(dict.fromkeys(remarks)), min(size))


def crops_by_numpy(
    data: bytes, preprocess: Preprocess, digest: bytes, numbers: Sequence[int]
) -> Cut:
    """Return what `crops` does, to the same pixels, as arrays; imports no torch.

    For a few pictures in a process that needs no torch for anything else: Pillow decodes and NumPy
    resizes, which takes several times as long.

    Args:
        data, digest, numbers: as for `crops`, which also says what is raised.
        preprocess: for which `resizing.alike` holds.
    """
    header = jpeg_header_of(data)
    made, found, picture = dict[int, Any](), dict[int, Raster](), None
    for number in numbers:
        least = least_side(preprocess, number)
        by = reduction(header, least)
        if by not in found:
            found[by] = raster(data, least=least, header=header)
        picture = found[by]
        if number not in made:
            made[number] = _view_by_numpy(picture.rgb, preprocess, digest, number)
    assert picture is not None
    remarks = (remark for one in found.values() for remark in one.remarks)
    size = picture.rgb.shape[:2] if header is None else (header.width, header.height)
    return Cut([made[n] for n in numbers], tuple(dict.fromkeys(remarks)), min(size))


def _view_by_numpy(
    rgb: np.ndarray, preprocess: Preprocess, digest: bytes, number: int
) -> np.ndarray:
    """Return what `view` does, of an array uint8 [H, W, 3]."""
    if number == 0:
        return resizing.evaluation_view(rgb, preprocess)
    policy, draws = policy_of(number), _draws(digest, number)
    if policy.scale is None:
        crop = resizing.evaluation_view(rgb, preprocess)
    else:
        top, left, height, width = _box(rgb.shape[0], rgb.shape[1], policy, draws)
        part = rgb[top : top + height, left : left + width]
        crop = resizing.squashed(part, preprocess.crop, preprocess.interpolation)
    return np.ascontiguousarray(crop[:, ::-1]) if next(draws) < policy.mirror else crop


def view(
    image: torch.Tensor, preprocess: Preprocess, *, digest: bytes, number: int
) -> torch.Tensor:
    """Return a view of an image, not yet normalised.

    View 0 is the evaluation transform. Another one is what its policy says: a random crop resized
    to the input's size (torchvision's `RandomResizedCrop` with its fallback to a centre crop), or
    the evaluation transform; some are flipped from left to right.

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
    policy, draws = policy_of(number), _draws(digest, number)
    if policy.scale is None:
        crop = preprocess.apply(image)
    else:
        top, left, height, width = _box(image.shape[-2], image.shape[-1], policy, draws)
        v2 = import_library("torchvision.transforms.v2")
        crop = v2.functional.resized_crop(
            image, top, left, height, width, [preprocess.crop, preprocess.crop],
            interpolation=v2.InterpolationMode(preprocess.interpolation), antialias=True,
        )  # fmt: skip
    flipped: torch.Tensor = crop.flip(-1) if next(draws) < policy.mirror else crop
    return flipped


def least_side(preprocess: Preprocess, number: int) -> int:
    """Return the short side, in pixels, below which a picture must not be reduced for a view.

    `REDUCED` times what the resize leaves of it; the smallest random crop of the classic policy is
    two fifths of the picture's short side.
    """
    scale = policy_of(number).scale if number else None
    if scale is None:
        return round(REDUCED * preprocess.resize)
    return round(REDUCED * 1.25 * preprocess.crop / math.sqrt(scale[0]))


def _draws(digest: bytes, number: int) -> Iterator[float]:
    """Yield numbers in [0, 1), the same ones for the same image and view, without end."""
    block = 0
    while True:
        words = hashlib.sha256(b"view %d %d\0" % (number, block) + digest).digest()
        for start in range(0, 32, 8):
            yield (int.from_bytes(words[start : start + 8], "big") >> 11) / (1 << 53)
        block += 1


def _box(
    height: int, width: int, policy: ViewPolicy, draws: Iterator[float]
) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a random crop, in pixels."""
    assert policy.scale is not None
    (least, most), (low, high) = policy.scale, (math.log(end) for end in policy.ratio)
    for _ in range(_TRIES):
        area = height * width * (least + (most - least) * next(draws))
        ratio = math.exp(low + (high - low) * next(draws))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int((height - h + 1) * next(draws)), int((width - w + 1) * next(draws)), h, w
    # a strip: the largest crop of an allowed shape, in the middle
    h = max(1, min(height, round(width / policy.ratio[0])))
    w = max(1, min(width, round(height * policy.ratio[1])))
    return (height - h) // 2, (width - w) // 2, h, w
