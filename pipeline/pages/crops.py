"""An image as the trunk sees it: the evaluation transform, and augmented views."""

from __future__ import annotations

import hashlib

from pipeline.errors import BadImage, PipelineError
from pipeline.images.names import shown
from pipeline.images.preprocess import Preprocess
from pipeline.images.thumbnails import CHANGED, thumbnail

#: Views that are shown; 0 is the evaluation transform.
VIEWS = (0, 1, 2, 3, 4)


def crops(path: str, digest: bytes, preprocess: Preprocess, *, side: int) -> list[bytes]:
    """Return the views of an image as WebP files of side×side pixels.

    Cuts and flips are those of extraction and fine-tuning; resizing goes to `side` at once.

    Args:
        path: of the image.
        digest: sha256 that it must have; the views depend on it.
        preprocess: the trunk's.
        side: pixels.

    Raises:
        BadImage: there is no such picture (any more), with the reason.
        PipelineError: the machine is to blame.
    """
    from pipeline.images.decode import decode
    from pipeline.images.stream import read
    from pipeline.images.views import least_side, view

    small = preprocess.with_size(side)
    try:
        data = read(path)
        if hashlib.sha256(data).digest() != digest:
            raise BadImage(CHANGED)
        whole = decode(data, least=least_side(preprocess, 0))
        views = [view(whole, small, digest=digest, number=number) for number in VIEWS]
    except (MemoryError, OSError) as error:
        reason = getattr(error, "strerror", None) or "no memory left"
        raise PipelineError(f"Cannot show {shown(path)}: {reason}.") from error
    return [thumbnail(crop.permute(1, 2, 0).numpy(), side) for crop in views]
