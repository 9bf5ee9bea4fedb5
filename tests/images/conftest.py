"""Small data sets made in the test, and the real ones beside the repository."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """Return the folder of a data set beside the repository, or skip."""

    def folder(name: str) -> Path:
        if not (SHARED / name).is_dir():
            pytest.skip(f"needs ../shared/data/{name}, which is not here")
        return SHARED / name

    return folder


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes files beneath a folder: names, or names with contents."""

    def files(*names: str, root: str = "data", **contents: bytes) -> Path:
        top = tmp_path / root
        top.mkdir(exist_ok=True)
        for name in names:
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents.get("content", name.encode("utf-8", "surrogateescape")))
        return top

    return files


@pytest.fixture
def picture() -> np.ndarray:
    """Return uint8 [48, 64, 3]: blocks of colour with a little noise, not symmetric."""
    random = np.random.default_rng(0)
    blocks = np.kron(random.integers(20, 220, (6, 8, 3)), np.ones((8, 8, 1), int))
    return (blocks + random.integers(0, 20, (48, 64, 3))).astype(np.uint8)


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """Return a function from a picture (an array or Pillow's) to a file's bytes."""

    def bytes_of(image: Any, kind: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return bytes_of
