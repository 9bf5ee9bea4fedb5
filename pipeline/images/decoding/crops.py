"""From an image file's bytes to the crops of its views."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torchvision.transforms.v2  # noqa: F401  (once, and not by many threads at their first image)

from pipeline.images.decoding.decode import decode, reduction
from pipeline.images.preprocess import Preprocess
from pipeline.images.views import least_side, view

#: Decodes and crops, with the first four arguments of `crops` and its result; see there, and
#: `pipeline.images.decoding.nvjpeg` for a GPU.
Crops = Callable[[bytes, Preprocess, bytes, Sequence[int]], list[torch.Tensor]]


def crops(
    data: bytes,
    preprocess: Preprocess,
    digest: bytes,
    numbers: Sequence[int],
    decoder: Callable[..., torch.Tensor] | None = None,
) -> list[torch.Tensor]:
    """Return the crop of each view of an image, which is decoded once for each size that they need.

    Args:
        data: the whole file.
        preprocess: the trunk's.
        digest: sha256 of the file's bytes, 32 bytes.
        numbers: of the views.
        decoder: in place of `decode`.

    Returns:
        uint8 [3, crop, crop] of each, where the decoder left the picture.

    Raises:
        BadImage, MemoryError, OSError: as `decode`.
    """
    make = decoder or decode
    pictures: dict[int, torch.Tensor] = {}  # by how much it is reduced → picture
    found = []
    for number in numbers:
        least = least_side(preprocess, number)
        by = reduction(data, least)
        if by not in pictures:
            pictures[by] = make(data, least=least)
        found.append(view(pictures[by], preprocess, digest=digest, number=number))
    return found
