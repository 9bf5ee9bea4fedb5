"""A list of images as a data set: columns `path,label` and optionally `split` and `group`.

A CSV or TSV file, or what Python callers have in memory, which is read as the file that it would
be. What is written otherwise than here is found all the same, and told.
"""

from __future__ import annotations

import csv
import io
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.images.datasets.imageset import ImageSet, class_notes
from pipeline.images.datasets.labels import label_notes
from pipeline.images.datasets.layout import Layout, NameTree
from pipeline.images.datasets.lists.columns import COLUMNS, columns_of
from pipeline.images.datasets.lists.located import Located, Locator, Rewrites, why_missing
from pipeline.images.datasets.lists.rows import Faults, Row, decoded, first_line, rows_of, text_of
from pipeline.images.names import SPLITS, class_name, counted, listed, shown
from pipeline.images.opening import NOT_REGULAR
from pipeline.images.sources.address import common, is_remote

MISSING = "missing"
#: Names of lists that need no line of columns end so.
_NAMES = (".txt", ".lst")


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


def scan_listing(path: Path, name: str) -> ImageSet:
    """Return the data set that a CSV or TSV file lists, or a text file with a path in each line.

    Args:
        path: the file; its folder is absolute and without symbolic links, and what paths in the
            file are relative to.
        name: what the person calls it.

    Raises:
        PipelineError: one message with everything that is wrong with the file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PipelineError(f"Cannot read {shown(path)}: {error.strerror}.") from error
    return scan_bytes(data, title=shown(path), root=path.parent, name=name)


def scan_bytes(data: bytes, *, title: str, root: str | Path, name: str) -> ImageSet:
    """Return the data set that a file lists.

    Args:
        data: its bytes.
        title: its name, for sentences.
        root: what paths are relative to.
        name: what the person calls it.

    Raises:
        PipelineError: as `scan_listing`.
    """
    notes: list[str] = []
    text = text_of(data, title, notes)
    bare = title.lower().endswith(_NAMES) and columns_of(first_line(text)).faults
    return (_scan_names if bare else scan_text)(
        text, title=title, root=root, name=name, notes=notes
    )


def _scan_names(
    text: str, *, title: str, root: str | Path, name: str, notes: Sequence[str]
) -> ImageSet:
    """Return the set of paths in lines: their folders are classes and splits, as those on disk."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows([("path",), *((line,) for line in lines)])
    images = scan_text(buffer.getvalue(), title=title, root=root, name=name, notes=notes)
    folders = [path.split("/")[:-1] for path in images.paths]
    shared = common(folders)
    layout = Layout.of(NameTree(images.paths, top="/".join(shared)))
    top = f"{layout.tree.top}/" if shared else ""
    place = {path: at for at, path in enumerate(images.paths)}
    entries = [replace(entry, path=f"{top}{entry.path}") for entry in layout.images]
    entries.sort(key=lambda entry: place[entry.path])
    left_out = [*images.left_out, *((f"{top}{path}", why) for path, why in layout.tree.left_out)]
    found = ImageSet.of_entries(name, root, entries, left_out)
    notes = [note for note in images.notes if note not in class_notes(images)]
    if found.classes:
        notes.append(f"Classes and splits are the folders of the paths in {title}.")
    return replace(found, notes=(*notes, *layout.notes, *class_notes(found)))


def scan_given(given: Given) -> ImageSet:
    """Return the data set that a list in memory names; paths are relative to the current folder.

    Raises:
        PipelineError: as `scan_listing`.
    """
    return scan_text(given.text, title=given.title, root=Path(os.path.realpath(".")), name="images")


def scan_text(
    text: str, *, title: str, root: str | Path, name: str, notes: Sequence[str] = ()
) -> ImageSet:
    """Return the data set that the text of a CSV or TSV file lists.

    Args:
        text: its lines.
        title: what it is, for sentences.
        root: what paths are relative to; on another machine nobody looks whether they are there.
        name: what the person calls it.
        notes: sentences for the person that there are already.

    Raises:
        PipelineError: as `scan_listing`.
    """
    notes = [*notes]
    rows = _located(rows_of(text, title, notes), title, root, notes)
    faults = Faults()
    rows = _unique(rows, faults, notes)
    _check_splits(rows, faults)
    faults.check(title)
    kept = _there(rows, title, root, notes)
    left_out = [(row.path, row.gone) for row in rows if row.gone]
    images = ImageSet.of_entries(name, root, kept, left_out)
    notes += label_notes([row.label for row in kept])
    return replace(images, notes=(*notes, *class_notes(images)))


def _located(rows: list[Row], title: str, root: str | Path, notes: list[str]) -> list[Row]:
    """Return the rows with the path of each file as it is here, or why there is none."""
    locator, faults, located = Locator(root), Faults(), list[Row]()
    rewrites = Rewrites()
    for row in decoded(rows, title, locator, notes):
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


def _relative(path: str, root: str | Path) -> str:
    """Return a path relative to `root`, without following or collapsing anything in it."""
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    if not path.startswith("/") or is_remote(root):
        return path
    inside = f"{str(root).rstrip('/')}/"
    if path.startswith(inside):
        return path[len(inside) :].lstrip("/")
    return f"{os.path.relpath('/', root)}{path}"


def _unique(rows: list[Row], faults: Faults, notes: list[str]) -> list[Row]:
    """Return each path once; the same path with other values is a fault."""
    first: dict[str, Row] = {}
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


def _check_splits(rows: list[Row], faults: Faults) -> None:
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


def _there(rows: Sequence[Row], title: str, root: str | Path, notes: list[str]) -> list[Row]:
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
