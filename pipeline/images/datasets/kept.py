"""Images that Python callers have in memory: kept in a tar of the cache, to have a place."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from pipeline.errors import PipelineError, UsageError
from pipeline.images.decoding import reading
from pipeline.images.decoding.formats import HEAD, sniff
from pipeline.images.names import shown

#: What follows the image in a row, as far as it is given.
_VALUES = ("label", "split", "group")


class Pictures:
    """Images that are given as bytes, taken one by one; once they are kept, as often as needed.

    Args:
        rows: the bytes of an image or its path, and perhaps a label, split and group.
    """

    def __init__(self, rows: Iterable[tuple[bytes | str, *tuple[str, ...]]]):
        self._rows = rows
        self._path: Path | None = None

    def __str__(self) -> str:
        """Return what stands for them in a command line."""
        return "PICTURES.tar"

    def keep(self, folder: Path) -> Path:
        """Return the tar that holds them, in WebDataset's layout, named after its content.

        Raises:
            PipelineError: it cannot be written, or a file cannot be read.
        """
        if self._path is None:
            try:
                self._path = self._kept(folder)
            except OSError as error:
                raise PipelineError(
                    f"Cannot keep the images in {shown(folder)}: {error.strerror}."
                ) from error
        return self._path

    def _kept(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        total = hashlib.sha256()
        with NamedTemporaryFile(dir=folder, prefix=".given-", suffix=".tar", delete=False) as file:
            try:
                with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                    for name, data in self._members():
                        info = tarfile.TarInfo(name)
                        info.size = len(data)
                        tar.addfile(info, io.BytesIO(data))
                        tar.members.clear()  # type: ignore[attr-defined]  # it keeps all
                        total.update(b"%s %d\0" % (name.encode(), len(data)))
                        total.update(data)
                file.flush()
                os.fsync(file.fileno())
                place = folder / f"given-{total.hexdigest()[:16]}.tar"
                if place.is_file():
                    os.unlink(file.name)  # noqa: PTH108
                else:
                    os.replace(file.name, place)  # noqa: PTH105
            except BaseException:
                os.unlink(file.name)  # noqa: PTH108
                raise
        return place

    def _members(self) -> Iterator[tuple[str, bytes]]:
        count = 0
        for count, (image, *values) in enumerate(self._rows, 1):
            data = image if isinstance(image, bytes) else reading.read_unknown(image)
            kind = sniff(data[:HEAD]) or "bin"
            yield f"{count - 1:09}.{kind if kind.isalnum() else 'bin'}", data
            said = {name: value for name, value in zip(_VALUES, values, strict=False) if value}
            if said:
                yield f"{count - 1:09}.json", json.dumps(said).encode()
        if not count:
            raise UsageError("DATA is an empty sequence: there are no images.")


def first_of(rows: Iterable[Any]) -> tuple[Any, Iterator[Any]]:
    """Return the first of some rows, None without any, and all of them."""
    given = iter(rows)
    try:
        first = next(given)
    except StopIteration:
        return None, iter(())

    def every() -> Iterator[Any]:
        yield first
        yield from given

    return first, every()
