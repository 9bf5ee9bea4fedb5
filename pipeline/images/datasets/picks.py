"""From what a person names to images: files, folders, patterns, built-in sets, lists; lazily."""

from __future__ import annotations

import codecs
import glob
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, cast

from pipeline.errors import PipelineError, UsageError
from pipeline.images.datasets.builtin import BUILTIN, builtin
from pipeline.images.datasets.lists.encodings import ENCODINGS, decoded, is_utf8, read_as
from pipeline.images.datasets.lists.located import Locator, Rewrites
from pipeline.images.datasets.scan import LISTS, archives_in, archives_matching, is_computed, scan
from pipeline.images.decoding.formats import OPTIONAL, SUFFIXES
from pipeline.images.decoding.pictures import as_source, check_source
from pipeline.images.names import counted, is_hidden, listed, shown
from pipeline.images.opening import GONE
from pipeline.images.sources import fetch
from pipeline.images.sources.address import (
    beside,
    expanded,
    has_braces,
    held,
    is_remote,
    joined,
    kind_of,
    known,
)
from pipeline.images.sources.catalogue import Catalogue

#: What stands for the list on standard input.
LIST = "-"


class Pick(NamedTuple):
    """One image: a file, or a picture in memory, which `path` only names for people.

    `found`: met in a folder, and not named by the person.
    """

    path: str
    found: bool = False
    data: bytes | None = None

    @property
    def source(self) -> str | bytes:
        """Return the path, or the bytes of a picture in memory."""
        return self.path if self.data is None else self.data


class Picks:
    """Iterates over the files that words mean, without holding them all.

    A word is, in this order: `-` for a list of paths on standard input, one a line; an address of
    another machine; a folder, with all below it, hidden entries left out and links followed; an
    archive or a list, with what it holds; a file; the name of a built-in set; a pattern with `*`,
    `?`, `[…]` or `**`, or with braces; else a path that is not there, which is given too, so that
    it is reported by itself. A path that is written as another system has it is found all the same,
    as in a CSV file. What is no text is a picture in memory; see `as_source`.

    Args:
        words: what was named.
        lines: gives the lines of standard input, where `-` is among the words.
        home: folder of the built-in sets.

    Attributes:
        listed: whether a list on standard input is among the words.
        empty: folders and patterns that gave nothing, as far as they were gone through.
        rewrites: paths that were found though written otherwise, so far.
    """

    def __init__(self, words: Iterable[Any], lines: Callable[[], Iterable[bytes]], home: Path):
        self.words, self.lines, self.home = list(words), lines, home
        self.empty: list[str] = []
        self.rewrites = Rewrites()
        self._locator = Locator(".")
        self._catalogue, self._told = Catalogue(), list[str]()
        for word in self.words:
            check_source(word)
        lists = sum(isinstance(word, str) and word == LIST for word in self.words)
        self.listed = bool(lists)
        if lists > 1:
            raise UsageError("'-' is the list on standard input and can be given once.")

    def __iter__(self) -> Iterator[Pick]:
        """Yield each file once for each time that it is named."""
        for number, word in enumerate(self.words):
            if not isinstance(word, str | os.PathLike):
                yield Pick(f"picture {number}", data=cast(bytes, as_source(word)))
                continue
            word, count = os.fsdecode(word), 0
            for pick in self._meant(word):
                count += 1
                yield pick
            if not count:
                self.empty.append("the list on standard input" if word == LIST else shown(word))

    def _meant(self, word: str) -> Iterator[Pick]:
        if word == LIST:
            for name in filter(None, self._names()):
                yield self._pick(name)
            return
        path = os.path.expanduser(word)  # noqa: PTH111 - a Path would drop "./"
        if is_remote(word):
            yield from self._elsewhere(known(word))
        elif os.path.isdir(path):  # noqa: PTH112
            archives = archives_in(os.path.realpath(path))
            yield from self._members(archives) if archives else _below(path)
        elif kind_of(path) and os.path.isfile(path):  # noqa: PTH113
            yield from self._members([path])
        elif path.lower().endswith(LISTS) and os.path.isfile(path):  # noqa: PTH113
            yield from self._listed(path)
        elif os.path.lexists(path):
            yield Pick(path)
        elif word in BUILTIN:
            yield from _below(str(builtin(word, self.home)))
        elif has_braces(path) and (archives := archives_matching(Path(path))):
            yield from self._members(archives)
        elif glob.has_magic(path):
            for found in sorted(glob.iglob(path, recursive=True)):  # noqa: PTH207
                if kind_of(found) and os.path.isfile(found):  # noqa: PTH113
                    yield from self._members([found])
                elif not os.path.isdir(found):  # noqa: PTH112
                    yield Pick(found)
        else:
            yield self._pick(path)

    def _members(self, archives: Iterable[str]) -> Iterator[Pick]:
        """Yield the images in archives; what else is in them is told."""
        for address in archives:
            try:
                listing = self._catalogue.listing(address)
            except FileNotFoundError:
                yield Pick(address)  # reported by itself
                continue
            self._told += [f"{shown(address)} is damaged: {fault}." for fault in listing.faults]
            for member in listing.members:
                if member.elsewhere:
                    yield Pick(beside(address, member.elsewhere), found=True)
                elif not member.reason and _is_visible(member.name):
                    yield Pick(joined(address, member.name), found=True)
            if refused := [member.name for member in listing.members if member.reason]:
                count = counted(len(refused), "member")
                self._told.append(f"Left out of {shown(address)}: {count} ({listed(refused, 3)}).")

    def _elsewhere(self, address: str) -> Iterator[Pick]:
        """Yield the images at an address of another machine: of an archive, a folder, or itself."""
        names: list[str] = []
        if address.lower().endswith(LISTS):
            yield from self._listed(address)
            return
        if has_braces(address) or kind_of(address):
            yield from self._members(expanded(address))
            return
        if held(address) is None and not address.lower().endswith((*SUFFIXES, *OPTIONAL)):
            names = fetch.below(address)
        for name in sorted(filter(_is_visible, names), key=os.fsencode):
            if is_computed(name):
                continue
            one = f"{address}/{name}"
            yield from self._members([one]) if kind_of(name) else (Pick(one, found=True),)
        if not names:
            yield Pick(address)

    def _listed(self, place: str) -> Iterator[Pick]:
        """Yield the images of a CSV file or a list of paths; itself where it cannot be used."""
        try:
            images = scan(place)
        except PipelineError as error:
            self._told.append(str(error))
            yield Pick(place)
            return
        for row in range(len(images.paths)):
            yield Pick(images.file(row), found=True)

    def _names(self) -> Iterator[str]:
        """Yield the names of the list: as bytes of file names, or text where it begins as text."""
        lines = iter(self.lines())
        first = next(lines, b"")
        if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            yield from (decoded(first + b"".join(lines)) or "").splitlines()
            return
        for line in chain([first.removeprefix(codecs.BOM_UTF8)], lines):
            yield os.fsdecode(line.rstrip(b"\r\n"))

    def _pick(self, name: str) -> Pick:
        """Return the file of a name: as it stands, or as it is here."""
        if os.path.lexists(name):
            return Pick(name)
        texts = {name: ""} if is_utf8(name) else _readings(name)
        for text, encoding in texts.items():
            try:
                located = self._locator.find(text)
            except OSError:
                located = None
            if located is not None:
                ways = (f"in {encoding}", *located.ways) if encoding else located.ways
                self.rewrites.add(ways, name, located.path)
                return Pick(located.path)
        return Pick(name)

    @property
    def notes(self) -> list[str]:
        """Return sentences on paths written otherwise, and on archives, so far."""
        return [*(one.note for one in self.rewrites.found), *self._told]


def _is_visible(name: str) -> bool:
    """Tell whether a name is of a file, and nothing in it is hidden."""
    return not name.endswith("/") and not any(map(is_hidden, name.split("/")))


def _readings(name: str) -> dict[str, str]:
    """Return text → encoding of every way to read a name that is not UTF-8."""
    texts: dict[str, str] = {}
    for encoding in ENCODINGS:
        with suppress(UnicodeDecodeError):
            texts.setdefault(read_as(name, encoding), encoding)
    return texts


def _below(folder: str, above: tuple[tuple[int, int], ...] = ()) -> Iterator[Pick]:
    """Yield the files below a folder by name; a link back to a folder above is not followed."""
    try:
        status = os.stat(folder)  # noqa: PTH116
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        if above and error.errno in GONE:  # it has just vanished: reported by itself
            yield Pick(folder)
            return
        raise PipelineError(f"Cannot read the folder {shown(folder)}: {error.strerror}.") from error
    for entry in entries:
        if is_hidden(entry.name):
            continue
        path = os.path.join(folder, entry.name)
        if os.path.isdir(path):  # noqa: PTH112 - False for a link in a circle
            yield from _below(path, (*above, here))
        else:
            yield Pick(path, found=True)
