"""Where a file lies that a list names as another system writes it, and why others are not there."""

from __future__ import annotations

import errno
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from pipeline.images.decoding.formats import SUFFIXES
from pipeline.images.names import class_name, counted, shown
from pipeline.images.sources.address import held, is_remote, known

#: Sub-folders that are looked into for a file that is not where a list says.
_FOLDERS = 200


class Located(NamedTuple):
    """A file that is there: its path, how that differs from what was written, and its mode."""

    path: str
    ways: tuple[str, ...]
    mode: int


@dataclass(frozen=True)
class Rewritten:
    """Paths that were found though they are written otherwise, all in the same ways.

    Attributes:
        ways: how they are written, as `Located` has it.
        written: the first of them, as it stands there.
        path: what that is here.
        count: how many.
    """

    ways: tuple[str, ...]
    written: str
    path: str
    count: int = 1

    @property
    def note(self) -> str:
        """Return the sentence for the person."""
        return (
            f"Found, though written {' and '.join(self.ways)}: {counted(self.count, 'path')} "
            f"('{shown(self.written)}' is {shown(self.path)})."
        )


class Rewrites:
    """What was rewritten, by the ways."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, ...], Rewritten] = {}

    def add(self, ways: tuple[str, ...], written: str, path: str) -> None:
        """Count a path that was found; one that is written as it is here has no ways."""
        if ways:
            first = self._found.get(ways, Rewritten(ways, written, path, 0))
            self._found[ways] = replace(first, count=first.count + 1)

    @property
    def found(self) -> tuple[Rewritten, ...]:
        """Return a record for each of the ways, in the order in which they were first met."""
        return tuple(self._found.values())


class Locator:
    """Finds files by path; what it learned of folders serves the next.

    The path as it stands comes first. Then it is rewritten step by step, by `WAYS`, and at last
    taken name by name as the folders on disk have them in another Unicode form.

    Args:
        root: that relative paths are relative to.
    """

    def __init__(self, root: str | Path):
        self.root = str(root)
        self._names: dict[str, dict[str, list[str]]] = {}

    def find(self, written: str) -> Located | None:
        """Return the file that is meant, None where there is none.

        Raises:
            OSError: the system cannot tell.
        """
        if is_remote(written):
            return Located(known(written.strip()), (), stat.S_IFREG)  # reading it tells
        if is_remote(self.root):
            return None if written.startswith("/") else Located(written, (), stat.S_IFREG)
        for path, ways in self._meant(written):
            try:
                return Located(path, ways, os.stat(os.path.join(self.root, path)).st_mode)  # noqa: PTH116
            except (FileNotFoundError, ValueError):
                continue
            except NotADirectoryError:
                if held(os.path.join(self.root, path)) is not None:
                    return Located(path, ways, stat.S_IFREG)
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
        return None

    def _meant(self, written: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        yield written, ()
        path, ways = written, list[str]()
        for how, rewritten in WAYS.items():
            if (other := rewritten(path)) != path:
                path = other
                ways.append(how)
                yield path, tuple(ways)
        on_disk = self._as_on_disk(path)
        if on_disk != path:
            yield on_disk, (*ways, UNICODE)

    def _as_on_disk(self, path: str) -> str:
        """Return a path with each name in the Unicode form that it has on disk, if it has one."""
        if path.isascii():
            return path
        parts = path.split("/")
        for place, part in enumerate(parts):
            if not part.isascii():
                above = "/".join(parts[:place]) or ("/" if path.startswith("/") else "")
                folder = os.path.join(self.root, above)
                alike = self._listed(folder).get(class_name(part), [])
                if part not in alike and len(alike) == 1:
                    parts[place] = alike[0]
        return "/".join(parts)

    def _listed(self, folder: str) -> dict[str, list[str]]:
        """Return composed name → the names that a folder has for it."""
        if folder not in self._names:
            found = self._names[folder] = {}
            try:
                names = os.listdir(folder)
            except (OSError, ValueError):
                names = []
            for name in names:
                if not name.isascii():
                    found.setdefault(unicodedata.normalize("NFC", name), []).append(name)
        return self._names[folder]


def _from_address(path: str) -> str:
    """Return the path of `file:///a%20b`, `file://host/a` or `file:/a`."""
    if path[:5].casefold() != "file:":
        return path
    rest = path[5:]
    if rest.startswith("//"):
        rest = "/" + rest[2:].partition("/")[2]
    return os.fsdecode(unquote_to_bytes(os.fsencode(rest)))


UNICODE = "in another Unicode form (NFC or NFD)"
#: How a path may be written otherwise → what it means then; each goes on from the one before.
WAYS: dict[str, Callable[[str], str]] = {
    "with blanks around them": str.strip,
    "as file:// addresses": _from_address,
    "with ~ for the home folder": os.path.expanduser,
    "with backslashes": lambda path: path.replace("\\", "/"),
}
#: What paths that are not there may look like → why that is.
_SIGNS: dict[str, Callable[[str], object]] = {
    "they begin with a drive letter of Windows": re.compile(r"(file:/*)?[A-Za-z]:[\\/]").match,
    "they are addresses in a network of Windows": re.compile(r"\\\\\w").match,
    "they are file:// addresses, and lie elsewhere here": re.compile("file:", re.IGNORECASE).match,
    "they begin with '~', and are not in the home folder": re.compile("~").match,
    "they are written with backslashes, and are not there with '/' either": re.compile(
        r"[^\\]*\\"
    ).match,
    "they are absolute, as on another machine perhaps": re.compile("/").match,
}


def why_missing(paths: Sequence[str], root: str | Path) -> str:
    """Return the sentences on why files are not there, and where one of them is.

    Args:
        paths: as they were written, one at least.
        root: that they are relative to.
    """
    example = paths[0]
    why = next((words for words, sign in _SIGNS.items() if sign(example)), "")
    where = ""
    if not is_remote(root):
        where = next(filter(None, (_elsewhere(path, Path(root)) for path in paths[:3])), "")
    relative = f"Paths are relative to {shown(root)}."
    reason = f"Perhaps {why}: write them as they are here, with '/'. " if why else ""
    return f"{reason}{where or relative}"


def _elsewhere(written: str, root: Path) -> str:
    """Return the sentence on where a file is that is not where it was said to be."""
    path = next(reversed([path for path, _ in Locator(root)._meant(written)]))
    parts = [part for part in re.sub(r"^[A-Za-z]:", "", path).split("/") if part]
    for tail in ("/".join(parts[start:]) for start in range(len(parts))):
        for name in (tail, *(f"{tail}{ending}" for ending in sorted(SUFFIXES))):
            if _is_file(root / name):
                return (
                    f"{shown(root / name)} is there: write '{shown(name)}' for '{shown(written)}'."
                )
    if path.startswith("/"):
        return ""
    try:
        inner = [entry.path for entry in islice(os.scandir(root), _FOLDERS) if entry.is_dir()]
    except OSError:
        inner = []
    for folder in (Path(), *root.parents[:3], *map(Path, sorted(inner))):
        if _is_file(folder / path):
            return (
                f"{shown((folder / path).absolute())} is there, and paths are relative to "
                f"{shown(root)}: move the list, or write the paths from there."
            )
    return ""


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False
