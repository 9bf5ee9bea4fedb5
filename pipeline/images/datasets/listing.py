"""A CSV or TSV file as a data set: columns `path,label` and optionally `split` and `group`."""

from __future__ import annotations

import csv
import io
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from pipeline.errors import PipelineError, nearest
from pipeline.images.datasets.imageset import Entry, ImageSet, class_notes
from pipeline.images.decoding.formats import HEAD, PILLOW_NAMES, sniff
from pipeline.images.digest import NOT_REGULAR
from pipeline.images.names import SPLIT_NAMES, SPLITS, class_name, counted, listed, shown

REQUIRED = ("path", "label")
COLUMNS = (*REQUIRED, "split", "group")
MISSING = "missing"

_SHOWN = 5  # faults of one kind that a message lists


@dataclass(frozen=True, kw_only=True)
class _Row(Entry):
    line: int


@dataclass
class _Faults:
    """All that is wrong with a file, told in one message."""

    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, where: str) -> None:
        self.found.setdefault(kind, []).append(where)

    def check(self, path: Path) -> None:
        sentences = []
        for kind, where in self.found.items():
            more = f" and {len(where) - _SHOWN:,} more" if len(where) > _SHOWN else ""
            fault = f"{kind}: {'; '.join(where[:_SHOWN])}{more}"
            sentences.append(fault if fault.endswith("?") else f"{fault}.")
        if sentences:
            raise PipelineError(f"{shown(path)} cannot be used. {' '.join(sentences)}")


def scan_listing(path: Path, name: str) -> ImageSet:
    """Return the data set that a CSV or TSV file lists.

    Args:
        path: the file; its folder is absolute and without symbolic links, and what paths in the
            file are relative to.
        name: what the person calls it.

    Raises:
        PipelineError: one message with everything that is wrong with the file.
    """
    rows, notes = _read(path)
    faults = _Faults()
    rows = _unique(rows, faults, notes)
    _check_splits(rows, faults)
    faults.check(path)
    kept, left_out = _existing(path, rows)
    images = ImageSet.of_entries(name, path.parent, kept, left_out)
    return replace(images, notes=(*notes, *class_notes(images)))


def _text(path: Path) -> str:
    """Return the file's text; bytes that are not UTF-8 stay what they are, as in file names."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PipelineError(f"Cannot read {shown(path)}: {error.strerror}.") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    is_image = sniff(data[:HEAD]) in PILLOW_NAMES
    if is_image or b"\0" in data[: 1 << 16]:
        kind = "an image" if is_image else "not a CSV or TSV file"
        raise PipelineError(
            f"{shown(path)} is {kind}. Give a folder of images, or a CSV file with the columns "
            "path,label."
        )
    text = data.decode("utf-8-sig", "surrogateescape")
    return text if "\n" in text else text.replace("\r", "\n")  # as old Macs end lines


def _read(path: Path) -> tuple[list[_Row], list[str]]:
    """Return the file's rows as they stand, and notes."""
    text = _text(path)
    first = text.lstrip("\r\n").partition("\n")[0].rstrip("\r")
    delimiter = max(",\t;", key=lambda mark: len(set(_header(first, mark)) & set(COLUMNS)))
    header = _header(first, delimiter)
    faults = _Faults()
    for column in REQUIRED:
        if column not in header:
            hint = _hint(column, [name for name in header if name not in COLUMNS])
            faults.add(
                "The first line must name the columns path,label and optionally split,group",
                f"there is no '{column}' in '{shown(first[:80])}'{hint}",
            )
    for column in sorted({name for name in header if header.count(name) > 1 and name}):
        faults.add("Columns that come twice", f"'{column}'")
    faults.check(path)
    rows: list[_Row] = []
    for line, cells in _lines(text, delimiter, faults):
        values = dict(zip(header, cells, strict=False))
        split = values.get("split", "").strip()
        if len(cells) != len(header):
            faults.add(
                f"Lines that do not have {counted(len(header), 'value')}",
                f"line {line} has {len(cells)}",
            )
        elif not values["path"].strip():
            faults.add("Lines without a path", f"line {line}")
        elif split and split.casefold() not in SPLIT_NAMES:
            hint = _hint(split, SPLIT_NAMES)
            faults.add(
                f"Splits other than {', '.join(SPLITS)}", f"line {line} says '{split}'{hint}"
            )
        else:
            rows.append(
                _Row(
                    line=line,
                    path=_relative(values["path"], path.parent),
                    label=class_name(values["label"].strip()),
                    split=SPLIT_NAMES[split.casefold()] if split else "",
                    group=values.get("group", "").strip(),
                )
            )
    faults.check(path)
    if not rows:
        raise PipelineError(f"{shown(path)} names no images: there is only the line of columns.")
    unknown = [name for name in header if name not in COLUMNS]
    notes = [f"Columns not used: {listed(unknown)}."] if unknown else []
    return rows, notes


def _hint(given: str, allowed: Iterable[str]) -> str:
    hint = nearest(given, allowed)
    return f".{hint}" if hint else ""


def _header(first: str, delimiter: str) -> list[str]:
    try:
        cells = next(csv.reader([first], delimiter=delimiter), [])
    except csv.Error:
        return []
    return [cell.strip().casefold() for cell in cells]


def _lines(text: str, delimiter: str, faults: _Faults) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, cells) of what comes after the header and is not empty."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in islice(filter(None, reader), 1, None):
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        faults.add("Quotes or lengths that make no sense", f"line {reader.line_num} ({error})")


def _relative(path: str, root: Path) -> str:
    """Return a path relative to `root`, without following or collapsing anything in it."""
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    if not path.startswith("/"):
        return path
    inside = f"{str(root).rstrip('/')}/"
    if path.startswith(inside):
        return path[len(inside) :].lstrip("/")
    return f"{os.path.relpath('/', root)}{path}"


def _unique(rows: list[_Row], faults: _Faults, notes: list[str]) -> list[_Row]:
    """Return each path once; the same path with other values is a fault."""
    first: dict[str, _Row] = {}
    again = []
    for row in rows:
        seen = first.setdefault(os.path.normpath(row.path), row)
        if seen is row:
            continue
        differ = [name for name in COLUMNS[1:] if getattr(seen, name) != getattr(row, name)]
        if differ:
            name = differ[0]
            one, other = shown(getattr(seen, name)), shown(getattr(row, name))
            faults.add(
                "Paths that are listed twice with different values",
                f"'{shown(row.path)}' with the {name} '{one}' in line {seen.line} and '{other}' "
                f"in line {row.line}",
            )
        else:
            again.append(row.path)
    if again:
        notes.append(f"Listed more than once and taken once: {listed(list(dict.fromkeys(again)))}.")
    return list(first.values())


def _check_splits(rows: list[_Row], faults: _Faults) -> None:
    """Add groups that cross splits, and labelled images without a split where others have one."""
    groups: dict[str, set[str]] = {}
    given = any(row.split for row in rows)
    for row in rows:
        if row.group and row.split:
            groups.setdefault(row.group, set()).add(row.split)
        if given and row.label and not row.split:
            faults.add("Labelled images without a split, while others have one", f"line {row.line}")
    for group, splits in groups.items():
        if len(splits) > 1:
            names = " and ".join(split for split in SPLITS if split in splits)
            faults.add("Groups that cross splits", f"'{shown(group)}' is in {names}")


def _existing(path: Path, rows: list[_Row]) -> tuple[list[_Row], list[tuple[str, str]]]:
    """Return the rows whose file is there, and the others with the reason."""
    kept, left_out, faults = [], [], _Faults()
    for row in rows:
        try:
            mode = Path(path.parent, row.path).stat().st_mode
        except (FileNotFoundError, NotADirectoryError, ValueError):
            left_out.append((row.path, MISSING))
        except OSError as error:
            faults.add("Files that cannot be reached", f"'{shown(row.path)}' ({error.strerror})")
        else:
            if stat.S_ISREG(mode):
                kept.append(row)
            else:
                left_out.append((row.path, NOT_REGULAR))
    faults.check(path)
    if not kept:
        raise PipelineError(
            f"None of the {counted(len(rows), 'file')} that {shown(path)} names is there "
            f"({listed([row.path for row in rows], 3)}). Paths are relative to "
            f"{shown(path.parent)}."
        )
    return kept, left_out
