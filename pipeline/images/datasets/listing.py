"""A list of images as a data set: columns `path,label` and optionally `split` and `group`.

A CSV or TSV file, or what Python callers have in memory, which is read as the file that it would
be. What is written otherwise than here is found all the same, and told.
"""

from __future__ import annotations

import csv
import io
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from pipeline.errors import PipelineError, nearest
from pipeline.images.datasets import encodings
from pipeline.images.datasets.columns import COLUMNS, columns_of
from pipeline.images.datasets.imageset import Entry, ImageSet, class_notes
from pipeline.images.datasets.labels import label_notes
from pipeline.images.datasets.located import Located, Locator, Rewrites, why_missing
from pipeline.images.decoding.formats import HEAD, PILLOW_NAMES, sniff
from pipeline.images.digest import NOT_REGULAR
from pipeline.images.names import SPLIT_NAMES, SPLITS, class_name, counted, listed, shown

MISSING = "missing"
WRONG = "If that is wrong, save it as UTF-8."

_SHOWN = 5  # faults of one kind that a message lists
_PATHS = 100  # that are looked for to tell an encoding


@dataclass(frozen=True)
class Given:
    """A list that Python callers have in memory. Equal where all of it is.

    Args:
        text: the CSV file that it would be.
        title: what it is, for sentences: `The DataFrame`.
    """

    text: str
    title: str

    def __str__(self) -> str:
        """Return what stands for it in a command line: a file that a person would write."""
        return "LIST.csv"


@dataclass(frozen=True, kw_only=True)
class _Row(Entry):
    """A line.

    Attributes:
        line: its number.
        written: its path, as it stands there.
        gone: why there is no such image; else empty.
    """

    line: int
    written: str
    gone: str = ""


@dataclass
class _Faults:
    """All that is wrong with a file, told in one message."""

    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, where: str) -> None:
        self.found.setdefault(kind, []).append(where)

    def check(self, title: str) -> None:
        sentences = []
        for kind, where in self.found.items():
            more = f" and {len(where) - _SHOWN:,} more" if len(where) > _SHOWN else ""
            fault = f"{kind}: {'; '.join(where[:_SHOWN])}{more}"
            sentences.append(fault if fault.endswith("?") else f"{fault}.")
        if sentences:
            raise PipelineError(f"{title} cannot be used. {' '.join(sentences)}")


def scan_listing(path: Path, name: str) -> ImageSet:
    """Return the data set that a CSV or TSV file lists.

    Args:
        path: the file; its folder is absolute and without symbolic links, and what paths in the
            file are relative to.
        name: what the person calls it.

    Raises:
        PipelineError: one message with everything that is wrong with the file.
    """
    notes: list[str] = []
    text = _text(path, notes)
    return _images(text, title=shown(path), root=path.parent, name=name, notes=notes)


def scan_given(given: Given) -> ImageSet:
    """Return the data set that a list in memory names; paths are relative to the current folder.

    Raises:
        PipelineError: as `scan_listing`.
    """
    root = Path(os.path.realpath("."))
    return _images(given.text, title=given.title, root=root, name="images", notes=[])


def _images(text: str, *, title: str, root: Path, name: str, notes: list[str]) -> ImageSet:
    rows = _located(_read(text, title, notes), title, root, notes)
    faults = _Faults()
    rows = _unique(rows, faults, notes)
    _check_splits(rows, faults)
    faults.check(title)
    kept = _there(rows, title, root, notes)
    left_out = [(row.path, row.gone) for row in rows if row.gone]
    images = ImageSet.of_entries(name, root, kept, left_out)
    notes += label_notes([row.label for row in kept])
    return replace(images, notes=(*notes, *class_notes(images)))


def _text(path: Path, notes: list[str]) -> str:
    """Return the file's text; bytes that are not UTF-8 stay what they are, as in file names.

    An encoding of seven bits is told, and read before the lines are parted, since its letters may
    be commas.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PipelineError(f"Cannot read {shown(path)}: {error.strerror}.") from error
    if encoding := encodings.seven_bits(data):
        letters = data.decode(encoding)
        first = next(cell for cell in re.split(r"[\s,;|\"]+", letters) if not cell.isascii())
        notes.append(
            f"{shown(path)} is not UTF-8: read as {encoding}, with names such as '{shown(first)}'. "
            f"{WRONG}"
        )
        return letters
    image = sniff(data[:HEAD]) in PILLOW_NAMES
    text = None if image else encodings.decoded(data)
    if text is None:
        kind = "an image" if image else "not a CSV or TSV file"
        raise PipelineError(
            f"{shown(path)} is {kind}. Give a folder of images, or a CSV file with the columns "
            "path,label."
        )
    return text


def _read(text: str, title: str, notes: list[str]) -> list[_Row]:
    """Return the rows as they stand, their paths not looked for yet."""
    if "\n" not in text:
        text = text.replace("\r", "\n")  # as old Macs end lines
    text = re.sub(r"\A\s*sep=.(?=\r?\n)", "", text)  # as Excel wants its separator
    first = text.lstrip("\r\n").partition("\n")[0].rstrip("\r")
    columns, faults = columns_of(first), _Faults()
    for kind, where in columns.faults:
        faults.add(kind, where)
    faults.check(title)
    notes += columns.notes
    rows: list[_Row] = []
    blank: list[str] = []
    for line, cells in _lines(text, columns.delimiter, faults):
        values = dict(zip(columns.names, cells, strict=False))
        split = values.get("split", "").strip()
        if not any(cell.strip() for cell in cells):
            blank.append(f"line {line}")
        elif len(cells) != len(columns.names):
            faults.add(
                f"Lines that do not have {counted(len(columns.names), 'value')}",
                f"line {line} has {len(cells)}",
            )
        elif not values["path"].strip():
            faults.add("Lines without a path", f"line {line}")
        elif split and split.casefold() not in SPLIT_NAMES:
            near = nearest(split, SPLIT_NAMES)
            faults.add(
                f"Splits other than {', '.join(SPLITS)}",
                f"line {line} says '{shown(split)}'{near and f'.{near}'}",
            )
        else:
            rows.append(
                _Row(
                    line=line,
                    path=values["path"],
                    written=values["path"],
                    label=values.get("label", "").strip(),
                    split=SPLIT_NAMES[split.casefold()] if split else "",
                    group=values.get("group", "").strip(),
                )
            )
    faults.check(title)
    if not rows:
        raise PipelineError(f"{title} names no images: there is only the line of columns.")
    if blank:
        notes.append(f"Passed over, having no value: {counted(len(blank), 'line')} ({blank[0]}).")
    return rows


def _decoded(rows: list[_Row], title: str, locator: Locator, notes: list[str]) -> list[_Row]:
    """Return the rows as text, where the list is not UTF-8; names that are so on disk stay."""
    raw = {row.path for row in rows if not encodings.is_utf8(row.path) and locator.find(row.path)}
    texts = {text for row in rows for text in (row.path, row.label, row.group)} - raw
    odd = sorted(text for text in texts if not encodings.is_utf8(text))
    if not odd:
        return _from_utf7(rows, title, locator, notes)
    words = {text for text in texts if not text.isascii()}
    paths = sorted({row.path for row in rows} & words)[:_PATHS]

    def fits(encoding: str) -> int:
        return sum(bool(locator.find(encodings.read_as(path, encoding))) for path in paths)

    encoding, other = encodings.encoding_of(words, fits)
    differ = [text for text in odd if other and _reads(text, other) != _reads(text, encoding)]
    doubt = f" (in {other} it would be '{_reads(differ[0], other)}')" if differ else ""
    notes.append(
        f"{title} is not UTF-8: read as {encoding}, {counted(len(odd), 'name')}, such as "
        f"'{_reads((differ or odd)[0], encoding)}'{doubt}. {WRONG}"
    )
    return [
        replace(
            row,
            path=row.path if row.path in raw else encodings.read_as(row.path, encoding),
            label=encodings.read_as(row.label, encoding),
            group=encodings.read_as(row.group, encoding),
        )
        for row in rows
    ]


def _reads(text: str, encoding: str) -> str:
    return shown(encodings.read_as(text, encoding))


def _from_utf7(rows: list[_Row], title: str, locator: Locator, notes: list[str]) -> list[_Row]:
    """Return the rows read as UTF-7 where a file of such a name is there; else tell what may be."""
    texts = sorted({text for row in rows for text in (row.path, row.label, row.group)})
    seven = {text: read for text in texts if (read := encodings.from_utf7(text)) != text}
    if not seven:
        return rows
    paths = [row.path for row in rows if row.path in seven and not locator.find(row.path)]
    sure = any(locator.find(seven[path]) for path in paths[:_PATHS])
    first = next((path for path in paths if locator.find(seven[path])), next(iter(seven)))
    if not sure:
        notes.append(
            f"'{shown(first)}' is taken as it stands; in UTF-7 it would be '{shown(seven[first])}'."
            f" {WRONG.replace('it', title, 1)}"
        )
        return rows
    notes.append(
        f"{title} is not UTF-8: read as UTF-7, {counted(len(seven), 'name')}, such as "
        f"'{shown(seven[first])}'. {WRONG}"
    )
    return [
        replace(row, path=seven.get(row.path, row.path), label=seven.get(row.label, row.label),
                group=seven.get(row.group, row.group))
        for row in rows
    ]  # fmt: skip


def _located(rows: list[_Row], title: str, root: Path, notes: list[str]) -> list[_Row]:
    """Return the rows with the path of each file as it is here, or why there is none."""
    locator, faults, located = Locator(root), _Faults(), list[_Row]()
    rewrites = Rewrites()
    for row in _decoded(rows, title, locator, notes):
        try:
            found = locator.find(row.path)
        except OSError as error:
            faults.add("Files that cannot be reached", f"'{shown(row.path)}' ({error.strerror})")
            continue
        found, gone = found or Located(row.path, (), 0), MISSING
        if found.mode:
            gone = "" if stat.S_ISREG(found.mode) else NOT_REGULAR
        path, label = _relative(found.path, root), class_name(row.label)
        rewrites.add(found.ways, row.written, path)
        located.append(replace(row, path=path, label=label, gone=gone))
    faults.check(title)
    notes += [one.note for one in rewrites.found]
    return located


def _lines(text: str, delimiter: str, faults: _Faults) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, cells) of what comes after the first line and is not empty."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in islice(filter(None, reader), 1, None):
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


def _there(rows: Sequence[_Row], title: str, root: Path, notes: list[str]) -> list[_Row]:
    """Return the rows whose file is there; note the others, or refuse where most are not there."""
    kept = [row for row in rows if not row.gone]
    lost = {
        reason: [row.written for row in rows if row.gone == reason]
        for reason in (MISSING, NOT_REGULAR)
    }
    told = "; ".join(f"{reason}: {listed(paths, 3)}" for reason, paths in lost.items() if paths)
    why = f" {why_missing(lost[MISSING], root)}" if lost[MISSING] else ""
    files = f"the {counted(len(rows), 'file')} that {title} names"
    if 2 * len(kept) < len(rows):
        many = f"Only {len(kept):,}" if kept else "None"
        raise PipelineError(
            f"{many} of {files} {'are' if len(kept) > 1 else 'is'} there ({told}).{why}"
        )
    if told:
        notes.append(f"Left out: {len(rows) - len(kept):,} of {files} ({told}).{why}")
    return kept
