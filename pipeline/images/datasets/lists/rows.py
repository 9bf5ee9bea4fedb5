"""The text of a list, whatever its encoding, and its rows as they stand there."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

from pipeline.errors import PipelineError, nearest
from pipeline.images.datasets.imageset import Entry
from pipeline.images.datasets.lists import encodings
from pipeline.images.datasets.lists.columns import columns_of
from pipeline.images.datasets.lists.located import Locator
from pipeline.images.decoding.formats import HEAD, PILLOW_NAMES, sniff
from pipeline.images.names import SPLIT_NAMES, SPLITS, counted, shown

WRONG = "If that is wrong, save it as UTF-8."

_SHOWN = 5  # faults of one kind that a message lists
_PATHS = 100  # that are looked for to tell an encoding


@dataclass(frozen=True, kw_only=True)
class Row(Entry):
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
class Faults:
    """All that is wrong with a file, told in one message."""

    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, where: str) -> None:
        """Note one."""
        self.found.setdefault(kind, []).append(where)

    def check(self, title: str) -> None:
        """Refuse the file where there is any.

        Raises:
            PipelineError: with all of them.
        """
        sentences = []
        for kind, where in self.found.items():
            more = f" and {len(where) - _SHOWN:,} more" if len(where) > _SHOWN else ""
            fault = f"{kind}: {'; '.join(where[:_SHOWN])}{more}"
            sentences.append(fault if fault.endswith("?") else f"{fault}.")
        if sentences:
            raise PipelineError(f"{title} cannot be used. {' '.join(sentences)}")


def text_of(data: bytes, title: str, notes: list[str]) -> str:
    """Return the file's text; bytes that are not UTF-8 stay what they are, as in file names.

    An encoding of seven bits is told, and read before the lines are parted, since its letters may
    be commas.
    """
    if encoding := encodings.seven_bits(data):
        read = data.decode(encoding)
        first = next(cell for cell in re.split(r"[\s,;|\"]+", read) if not cell.isascii())
        notes.append(
            f"{title} is not UTF-8: read as {encoding}, with names such as '{shown(first)}'. "
            f"{WRONG}"
        )
        return read
    image = sniff(data[:HEAD]) in PILLOW_NAMES
    text = None if image else encodings.decoded(data)
    if text is None:
        kind = "an image" if image else "not a CSV or TSV file"
        raise PipelineError(
            f"{title} is {kind}. Give a folder of images, or a CSV file with the columns "
            "path,label."
        )
    return text


def first_line(text: str) -> str:
    """Return the line that names the columns."""
    return text.lstrip("\r\n").partition("\n")[0].rstrip("\r")


def rows_of(text: str, title: str, notes: list[str]) -> list[Row]:
    """Return the rows as they stand, their paths not looked for yet."""
    if "\n" not in text:
        text = text.replace("\r", "\n")  # as old Macs end lines
    text = re.sub(r"\A\s*sep=.(?=\r?\n)", "", text)  # as Excel wants its separator
    columns, faults = columns_of(first_line(text)), Faults()
    for kind, where in columns.faults:
        faults.add(kind, where)
    faults.check(title)
    notes += columns.notes
    rows: list[Row] = []
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
                Row(
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


def _lines(text: str, delimiter: str, faults: Faults) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, cells) of what comes after the first line and is not empty."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in islice(filter(None, reader), 1, None):
            yield reader.line_num, cells
    except csv.Error as error:
        faults.add("Quotes or lengths that make no sense", f"line {reader.line_num} ({error})")


def decoded(rows: list[Row], title: str, locator: Locator, notes: list[str]) -> list[Row]:
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


def _from_utf7(rows: list[Row], title: str, locator: Locator, notes: list[str]) -> list[Row]:
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
