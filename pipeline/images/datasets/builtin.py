"""Data sets that come with an installed library, written out as folders of PNG files."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pipeline.errors import PipelineError, UsageError, nearest
from pipeline.images.names import shown

#: Yields (class, picture: uint8 [H, W]) in an order that never changes.
Source = Callable[[], Iterator[tuple[str, np.ndarray]]]


def digits() -> Iterator[tuple[str, np.ndarray]]:
    """Yield scikit-learn's 1,797 handwritten digits, 8×8, ink dark on white."""
    from sklearn.datasets import load_digits

    found = load_digits()
    for label, ink in zip(found.target, found.images, strict=True):
        yield str(label), 255 - np.rint(ink * (255 / 16)).astype(np.uint8)  # ink: 0 to 16


def builtin(name: str, home: Path) -> Path:
    """Return the folder of a built-in set, made where it is not there whole.

    Args:
        name: a key of `BUILTIN`.
        home: folder of the built-in sets, ours to write in.

    Raises:
        UsageError: there is no such set.
        PipelineError: it cannot be written.
    """
    if name not in BUILTIN:
        raise UsageError(
            f"There is no built-in set '{name}'.{nearest(name, BUILTIN)} Built in: "
            f"{', '.join(BUILTIN)}."
        )
    folder, mark = home / name, home / f"{name}.complete"
    try:
        there = mark.is_file() and folder.is_dir()
        if not (there and mark.read_text() == _weigh(folder)):
            _write(BUILTIN[name](), folder, mark)
    except OSError as error:
        raise PipelineError(
            f"Cannot write the built-in set '{name}' to {shown(folder)}: {error.strerror}."
        ) from error
    return folder


def _write(pictures: Iterator[tuple[str, np.ndarray]], folder: Path, mark: Path) -> None:
    """Write beside the place, then rename: what has the name is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(
        prefix=f".{folder.name}.", dir=folder.parent, ignore_cleanup_errors=True
    ) as home:
        new = Path(home, "new")
        for number, (label, picture) in enumerate(pictures):
            place = new / label / f"{number:04d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(png(picture))
        if folder.exists():
            folder.rename(Path(home, "old"))
        try:
            new.rename(folder)
        except OSError:
            if folder.is_dir():
                return  # another process was first
            raise
        mark.write_text(_weigh(folder))


def _weigh(folder: Path) -> str:
    """Return how many files and bytes a folder of class folders holds."""
    sizes = [
        file.stat().st_size
        for label in os.scandir(folder)
        if label.is_dir()
        for file in os.scandir(label.path)
    ]
    return f"{len(sizes)} files, {sum(sizes)} bytes\n"


def png(picture: np.ndarray) -> bytes:
    """Return a grey picture as PNG, the same bytes with every version of every library.

    Args:
        picture: uint8 [H, W].
    """
    height, width = picture.shape
    rows = b"".join(b"\0" + row.tobytes() for row in picture)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))]
    parts += [(b"IDAT", zlib.compress(rows, 0)), (b"IEND", b"")]  # 0: stored, not compressed
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


BUILTIN: dict[str, Source] = {
    "digits": digits,
}
