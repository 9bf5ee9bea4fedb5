"""Which column of a list is which: by the names that people give them."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import nearest
from pipeline.images.decoding.formats import SUFFIXES
from pipeline.images.names import joined, listed, shown

COLUMNS = ("path", "label", "split", "group")
#: Column → what else it may be called, in any case and with blanks or dashes for `_`.
NAMES: Mapping[str, tuple[str, ...]] = {
    "path": (
        "paths", "filepath", "file_path", "filepaths", "filename", "file_name", "filenames",
        "file", "files", "image", "images", "image_path", "imagepath", "image_file", "image_name",
        "image_filename", "img", "img_path", "img_name",
    ),
    "label": (
        "labels", "class", "classes", "class_name", "classname", "category", "categories",
        "category_name", "target", "targets", "label_name", "image_label",
    ),
}  # fmt: skip
_MARKS = ",\t;|"


@dataclass(frozen=True)
class Columns:
    """What the first line of a list says.

    Attributes:
        delimiter: between its cells.
        names: of each cell: one of `COLUMNS`, or as it was written.
        notes: sentences for the person.
        faults: kind of fault to where it is.
    """

    delimiter: str
    names: tuple[str, ...]
    notes: tuple[str, ...]
    faults: tuple[tuple[str, str], ...]


def columns_of(first: str) -> Columns:
    """Return the columns that the first line of a list names.

    Args:
        first: the line.
    """
    delimiter = max(_MARKS, key=lambda mark: len({*map(meaning, _cells(first, mark))} - {None}))
    cells = _cells(first, delimiter)
    meanings = {column: [c for c in cells if meaning(c) == column] for column in COLUMNS}
    taken: dict[str, str] = {}
    notes, faults = list[str](), list[tuple[str, str]]()
    for column, found in meanings.items():
        exact = [cell for cell in found if cell.casefold() == column]
        one = exact or found
        if len(one) > 1:
            same = len({*one}) == 1 or len(exact) > 1
            kind = "Columns that come twice" if same else f"Several columns may be the {column}"
            what = f"'{column}'" if same else f"{listed(found)}: rename the right one to '{column}'"
            faults.append((kind, what))
        elif one:
            taken[one[0]] = column
    other = {cell: column for cell, column in taken.items() if cell.casefold() != column}
    if other:
        pairs = [f"'{shown(cell)}' as the {column}" for cell, column in other.items()]
        notes.append(f"Columns taken by their names: {joined(pairs)}.")
    unknown = [cell for cell in cells if cell not in taken]
    if any(cell.strip() for cell in unknown) and not faults:
        notes.append(f"Columns not used: {listed(unknown)}.")
    if not faults:
        faults += _missing(first, [*taken.values()], unknown)
    return Columns(
        delimiter, tuple(taken.get(cell, cell) for cell in cells), tuple(notes), tuple(faults)
    )


def meaning(cell: str) -> str | None:
    """Return which of `COLUMNS` a name stands for, None where it is another."""
    name = re.sub(r"[\s-]+", "_", cell.casefold())
    if name in COLUMNS:
        return name
    return next((column for column, names in NAMES.items() if name in names), None)


def _missing(first: str, taken: Sequence[str], unknown: Sequence[str]) -> list[tuple[str, str]]:
    """Return what is wrong where there is no column of paths, or none of labels beside others."""
    lacking = [column for column in COLUMNS[:2] if column not in taken]
    if lacking == ["label"] and not unknown:
        return []  # images without labels
    if lacking and _names_an_image(first):
        return [(
            "The first line must name the columns",
            f"'{shown(first[:80])}' is an image already: put the line 'path,label' above it",
        )]  # fmt: skip
    kind = "The first line must name the columns path,label and optionally split,group"
    faults = []
    for column in lacking:
        near = nearest(column, unknown) and [c for c in unknown if nearest(column, [c])][:1]
        hint = f": rename '{shown(near[0])}', if it is meant" if near else ""
        faults.append((kind, f"there is no '{column}' in '{shown(first[:80])}'{hint}"))
    return faults


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []


def _names_an_image(line: str) -> bool:
    cells = [cell for mark in f"{_MARKS} " for cell in _cells(line, mark)]
    return any(Path(cell).suffix.lower() in SUFFIXES for cell in cells)
