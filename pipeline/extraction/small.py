"""Whether images are much smaller than the trunk's input, and what a smaller input would save."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from pipeline.images.preprocess import Preprocess

#: Share of the side after resizing up to which the median short side is called small.
SMALL = 2 / 3
#: Sides that are proposed are multiples of a CNN's stride, and no smaller than three of them.
_STRIDE, _LEAST = 32, 96


def small_notes(sides: Sequence[int], preprocess: Preprocess) -> tuple[str, ...]:
    """Return a sentence where images are enlarged by half or more.

    The cost of a forward pass grows with the number of pixels.

    Args:
        sides: short side of each image that was decoded, pixels; nothing is said of none.
        preprocess: the trunk's.
    """
    if not sides:
        return ()
    side = sorted(sides)[len(sides) // 2]
    wanted = side * preprocess.crop / preprocess.resize
    size = max(_LEAST, _STRIDE * ceil(wanted / _STRIDE))
    if side > SMALL * preprocess.resize or size >= preprocess.crop:
        return ()
    share = (size / preprocess.crop) ** 2
    return (
        f"Small images: their median short side is {side} pixels, enlarged to {preprocess.resize}. "
        f"With --image-size {size} the trunk would take about {share:.0%} of its time in every "
        "stage; whether it does as well, a head on both tables tells.",
    )
