"""From what a person names to images: files, folders, patterns, built-in sets, lists; lazily."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import PipelineError, UsageError
from pipeline.images.datasets.builtin import BUILTIN, builtin
from pipeline.images.digest import GONE
from pipeline.images.names import is_hidden, shown

#: What stands for the list on standard input.
LIST = "-"


class Pick(NamedTuple):
    """One file. `found`: met in a folder, and not named by the person."""

    path: str
    found: bool = False


class Picks:
    """Iterates over the files that words mean, without holding them all.

    A word is, in this order: `-` for a list of paths on standard input, one a line; a file; a
    folder, with all below it, hidden entries left out and links followed; the name of a built-in
    set; a pattern with `*`, `?`, `[…]` or `**`; else a path that is not there, which is given too,
    so that it is reported by itself.

    Args:
        words: what was named.
        lines: gives the lines of standard input, where `-` is among the words.
        home: folder of the built-in sets.

    Attributes:
        empty: folders and patterns that gave nothing, as far as they were gone through.
    """

    def __init__(self, words: Iterable[str], lines: Callable[[], Iterable[bytes]], home: Path):
        self.words, self.lines, self.home = list(words), lines, home
        self.empty: list[str] = []
        if self.words.count(LIST) > 1:
            raise UsageError("'-' is the list on standard input and can be given once.")

    def __iter__(self) -> Iterator[Pick]:
        """Yield each file once for each time that it is named."""
        for word in self.words:
            count = 0
            for pick in self._meant(word):
                count += 1
                yield pick
            if not count:
                self.empty.append("the list on standard input" if word == LIST else shown(word))

    def _meant(self, word: str) -> Iterator[Pick]:
        if word == LIST:
            for line in self.lines():
                if name := os.fsdecode(line.rstrip(b"\r\n")):
                    yield Pick(name)
            return
        path = os.path.expanduser(word)  # noqa: PTH111 - a Path would drop "./"
        if os.path.isdir(path):  # noqa: PTH112
            yield from _below(path)
        elif os.path.lexists(path):
            yield Pick(path)
        elif word in BUILTIN:
            yield from _below(str(builtin(word, self.home)))
        elif glob.has_magic(path):
            for found in sorted(glob.iglob(path, recursive=True)):  # noqa: PTH207
                if not os.path.isdir(found):  # noqa: PTH112
                    yield Pick(found)
        else:
            yield Pick(path)


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
