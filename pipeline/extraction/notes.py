"""What a person should know of a table of features that was just made."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from pipeline.images.decoding.reading import PASSING
from pipeline.images.names import counted, listed
from pipeline.images.preprocess import Preprocess
from pipeline.trunks import spec
from pipeline.trunks.engines import finite
from pipeline.trunks.spec import TrunkFacts

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


_POOLINGS = {
    "cls": "the class token behind the final norm",
    "avg": "the mean of the image's tokens",
    "attention": "what an attention pool, the neck, makes of all tokens",
}


def pooling_notes(facts: TrunkFacts, pool: str) -> list[str]:
    """Return what the feature of a trunk of tokens is, where the trunk's own was asked for.

    Args:
        facts: of the trunk.
        pool: that was asked for, `own` for the trunk's.
    """
    if pool != "own" or not facts.own_pool:
        return []
    what = _POOLINGS.get(facts.own_pool, facts.own_pool)
    others = [name for name in spec.POOLS if facts.class_token or "cls" not in name]
    return [
        f"The feature of {facts.name} is {what}, as its library has it; --pool takes another of "
        f"{', '.join(others)}."
    ]


def unread_notes(unread: Sequence[tuple[str, str]], precision: str) -> list[str]:
    """Return what to do about images that another run, or another precision, may read.

    Args:
        unread: path and reason of each image without a row.
        precision: of the trunk.
    """
    lost = [path for path, reason in unread if reason in PASSING]
    endless = [path for path, reason in unread if reason == finite.reason(precision)]
    notes = []
    if lost:
        notes.append(
            f"Left out, since they vanished or changed while the run read them: "
            f"{counted(len(lost), 'image')} ({listed(lost, 3)}). Run the same command again to "
            "take in what is there now."
        )
    if endless:
        way = "" if precision == "fp32" else ": --precision fp32 may give finite ones"
        notes.append(
            f"Left out, since their features are not finite in {precision}: "
            f"{counted(len(endless), 'image')} ({listed(endless, 3)}){way}."
        )
    return notes
