"""DATA as Python callers have it: a path, a data frame, or paths with their labels."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

from pipeline.arguments import named, path_of, plain
from pipeline.errors import UsageError
from pipeline.images.datasets.kept import Pictures, first_of
from pipeline.images.datasets.lists.columns import COLUMNS, meaning
from pipeline.images.datasets.lists.listing import Given
from pipeline.images.names import listed
from pipeline.images.sources.address import is_remote

#: What `as_data` takes; a data frame is an iterable too.
AnyData: TypeAlias = str | os.PathLike[str] | Iterable[Any] | None
#: What it gives, and a command line.
Data: TypeAlias = str | Path | Given | Pictures | None
#: Iterables that are one image.
_ONE = (str, os.PathLike, bytes, bytearray, memoryview)
_LIKE = (
    "a folder, a CSV or TSV file, the name of a built-in set, a data frame with the columns path "
    "and label, or a sequence of paths or of (path, label) pairs"
)


def as_data(data: Any) -> str | Given | Pictures | None:
    """Return DATA as every command takes it: a path or name as text, or a list in memory.

    A list is read as the CSV file that it would be, with paths relative to the current folder: so
    it gives the same table. Images in memory are taken one by one when they are needed.

    Args:
        data: a path or name; a data frame of pandas or polars; or N paths, or N tuples of a path,
            a label, and perhaps a split and a group, from any iterable. A label may be a text or a
            number, and None or NaN where it is unknown. In place of a path, the bytes of a file;
            then all of them are kept in the cache.

    Raises:
        UsageError: it is anything else.
    """
    data = plain(data, str)
    if data is None or isinstance(data, Given | Pictures):
        return data
    if isinstance(data, str):
        if is_remote(data):
            return data
        path_of(data, "DATA", like=_LIKE)
        return data
    if hasattr(data, "columns"):
        if hasattr(data, "to_csv"):  # of pandas, which need not be imported
            index = any(name is not None for name in data.index.names)
            return Given(data.to_csv(index=index, lineterminator="\n"), "The data frame as CSV")
        if hasattr(data, "write_csv"):
            return Given(data.write_csv(), "The data frame as CSV")
    unordered = isinstance(data, bytes | dict | set | frozenset | type)
    if isinstance(data, Iterable) and not unordered and not _is_picture(data):
        first, rows = first_of(data)
        if _is_bytes(first):
            return Pictures(_row(item, bytes) for item in rows)
        return _listing([_row(item) for item in rows])
    raise UsageError(f"DATA must be {_LIKE}, not {named(data)}.{_pictures(data)}")


def images_in(given: Any) -> Iterable[Any] | None:
    """Return what images stand in, in memory: a sequence of paths or pictures; None of one alone.

    Args:
        given: any iterable; or a data frame: its column of paths, or its only one.

    Raises:
        UsageError: it is a data frame with several columns of which none is named as paths are.
    """
    if hasattr(given, "columns"):
        columns = list(given.columns)
        paths = [name for name in columns if meaning(str(name)) == "path"] or columns
        if len(paths) != 1:
            raise UsageError(
                "Images are a sequence of paths or pictures, or a data frame with a column 'path'; "
                f"not one with the columns {listed([str(name) for name in columns])}."
            )
        return cast(Iterable[Any], given[paths[0]])
    shape: tuple[int, ...] = getattr(given, "shape", ())
    if len(shape) == 2 and shape[1] == 1 and not _is_picture(given):
        return cast(Iterable[Any], given[:, 0])  # as scikit-learn passes a column on
    one = isinstance(given, _ONE) or hasattr(given, "read") or not isinstance(given, Iterable)
    return None if one or (_is_picture(given) and len(shape) < 4) else given


def _is_picture(item: Any) -> bool:
    """Tell whether something is a PIL image, or an array or tensor of numbers."""
    kind = str(getattr(item, "dtype", ""))
    return hasattr(item, "getbands") or (bool(kind) and not re.match(r"<U|<S|\|S|object|str", kind))


def _pictures(item: Any) -> str:
    return " Pictures in memory go to TrunkFeatures and predict." if _is_picture(item) else ""


def _is_bytes(row: Any) -> bool:
    """Tell whether the first cell of an image is the bytes of its file."""
    return isinstance(row[0] if isinstance(row, tuple | list) and row else row, bytes)


def _row(item: Any, also: type = str) -> tuple[Any, ...]:
    """Return the cells of one image: a path, or what `also` is, and texts."""
    if hasattr(item, "tolist") and getattr(item, "ndim", 0) == 1:
        item = item.tolist()
    cells: Any = item if isinstance(item, tuple | list) else (item,)
    if not 1 <= len(cells) <= len(COLUMNS) or not isinstance(cells[0], (str, os.PathLike, also)):
        raise UsageError(f"DATA must be {_LIKE}; there is {named(item)} in it.{_pictures(item)}")
    image: Any = cells[0]
    first = image if isinstance(image, bytes) else os.fsdecode(image)
    return first, *map(_cell, cells[1:])


def _cell(value: Any) -> str:
    value = plain(value, str)
    nothing = type(value).__name__ in ("NoneType", "NAType", "NaTType")
    return "" if nothing or (isinstance(value, float) and math.isnan(value)) else str(value)


def _listing(rows: Sequence[tuple[str, ...]]) -> Given:
    widths = sorted({len(row) for row in rows})
    if not rows:
        raise UsageError("DATA is an empty sequence: there are no images.")
    if len(widths) > 1:
        raise UsageError(
            f"DATA must have as many values for each image; some have {widths[0]}, others "
            f"{widths[-1]}. Give None for a label that is unknown."
        )
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS[: widths[0]])
    writer.writerows(rows)
    return Given(buffer.getvalue(), "The list as CSV")
