"""What Python callers give for an image: a path, an array or a PIL image."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import PipelineError


def as_source(item: Any) -> str | bytes:
    """Return a path, or the bytes of a PNG of a picture.

    Args:
        item: a path, a uint8 array [H, W, 3], or a PIL image.

    Raises:
        PipelineError: it is anything else.
    """
    if isinstance(item, str | Path):
        return str(item)
    from PIL import Image

    if isinstance(item, np.ndarray):
        if item.dtype != np.uint8 or item.ndim != 3 or item.shape[2] != 3:
            raise PipelineError(
                f"A picture is uint8 [H, W, 3], not {item.dtype} {list(item.shape)}."
            )
        item = Image.fromarray(item)
    if not isinstance(item, Image.Image):
        raise PipelineError(
            "An image is a path, an array uint8 [H, W, 3] or a PIL image, not "
            f"{type(item).__name__}."
        )
    if item.mode not in ("1", "L", "LA", "I;16", "P", "RGB", "RGBA"):
        item = item.convert("RGB")  # PNG has no such kind
    buffer = io.BytesIO()
    item.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
