"""A folder on disk as a data set.

A symbolic link is followed; within a class each real folder is read once, whatever the links. One
that leads to a folder which contains it is left out, and told. What the folders mean: `layout`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.images.datasets.imageset import ImageSet, class_notes, no_images
from pipeline.images.datasets.layout import HIDDEN, Layout, is_around
from pipeline.images.names import class_name, counted, is_hidden, listed, shown
from pipeline.images.opening import GONE, NOT_REGULAR, VANISHED

BROKEN_LINK = "broken link"
LOOP = "link to a folder that is read already"
CIRCLE = "linked to a folder that contains it"


@dataclass
class Walk:
    """What is met on the way through the folders of one data set: a `layout.Tree`.

    Attributes:
        root: the data set's folder; every other path is relative to it.
        left_out: (path, reason) of what is no image of the set.
        unreadable: (folder, the system's reason).
        circles: links that lead to a folder which contains them.
    """

    root: str
    left_out: list[tuple[str, str]] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    circles: list[str] = field(default_factory=list)
    top: str = ""

    def look(self) -> Walk:
        """Return the same folders, to look at without counting what is left out."""
        return Walk(self.root)

    def entries(self, folder: str) -> tuple[list[str], list[str]]:
        """Return the names of a folder's visible folders and regular files, by their bytes."""
        folders, files = [], []
        try:
            with os.scandir(os.path.join(self.root, folder)) as found:
                for entry in sorted(found, key=lambda entry: os.fsencode(entry.name)):
                    if is_hidden(entry.name):
                        self.left_out.append((os.path.join(folder, entry.name), HIDDEN))
                    elif _is(entry.is_dir):
                        path = os.path.join(folder, entry.name)
                        if entry.is_symlink() and self._contains(path):
                            self.circles.append(path)
                        else:
                            folders.append(entry.name)
                    elif _is(entry.is_file):
                        files.append(entry.name)
                    else:
                        gone = entry.is_symlink() and not Path(entry.path).exists()
                        why = BROKEN_LINK if gone else NOT_REGULAR
                        self.left_out.append((os.path.join(folder, entry.name), why))
        except OSError as error:
            self._not_read(folder, error)
        return folders, files

    def _not_read(self, folder: str, error: OSError) -> None:
        if folder and error.errno in GONE:
            self.left_out.append((folder, VANISHED))
        else:
            self.unreadable.append((folder or ".", error.strerror or str(error)))

    def _contains(self, link: str) -> bool:
        """Tell whether a link leads to a folder that it lies in, by whatever way it was reached."""
        target = Path(os.path.realpath(Path(self.root, link)))
        above = [Path(os.path.realpath(Path(self.root, one))) for one in Path(link).parents]
        return any(place.is_relative_to(target) for place in above)

    def files(self, top: str) -> list[str]:
        """Return all files beneath a folder, links followed, relative to the root."""
        found: list[str] = []
        seen: set[tuple[int, int]] = set()
        folders, links = [top], list[str]()  # links last: a folder keeps its own path
        while folders or links:
            folder = folders.pop() if folders else links.pop(0)
            try:
                status = Path(self.root, folder).stat()
            except OSError as error:
                self._not_read(folder, error)
                continue
            if (status.st_dev, status.st_ino) in seen:
                self.left_out.append((folder, LOOP))
                continue
            seen.add((status.st_dev, status.st_ino))
            inner, files = self.entries(folder)
            found += [f"{folder}/{name}" for name in files]
            for path in (f"{folder}/{name}" for name in inner):
                (links if Path(self.root, path).is_symlink() else folders).append(path)
        return found


def scan_folder(root: Path, name: str) -> ImageSet:
    """Return the data set in a folder.

    Args:
        root: absolute, without symbolic links.
        name: what the person calls it.

    Raises:
        PipelineError: no files, folders that cannot be read, or a folder around the data set.
    """
    walk = Walk(str(root))
    layout = Layout.of(walk)
    if layout.classes:
        _refuse_wrapper(root, layout.classes)
    layout.leave_out(walk.circles, CIRCLE)
    if walk.unreadable:
        listing = "; ".join(f"{shown(path)}: {why}" for path, why in walk.unreadable[:5])
        raise PipelineError(
            f"Cannot read {counted(len(walk.unreadable), 'folder')} of {shown(root)} ({listing}). "
            "Allow reading them, or move them elsewhere."
        )
    layout.images.sort(key=lambda image: os.fsencode(image.path))
    return image_set(layout, root, name)


def image_set(layout: Layout, root: str | Path, name: str) -> ImageSet:
    """Return the set of what the rules make of a tree.

    Raises:
        PipelineError: there is nothing.
    """
    left_out = layout.tree.left_out
    if not layout.images:
        hidden = f"; {counted(len(left_out), 'entry', 'entries')} left out as hidden or odd"
        raise PipelineError(
            f"{shown(root)} holds no files{hidden if left_out else ''}. Put images there, in "
            "a folder for each class, or in train/ and val/ with a folder for each class."
        )
    found = ImageSet.of_entries(name, root, layout.images, left_out)
    lacking = sorted({class_name(folder) for folder in layout.empty} - set(found.classes))
    return replace(found, notes=(*layout.notes, *no_images(lacking), *class_notes(found)))


def _is(question: Callable[[], bool]) -> bool:
    """Answer `entry.is_dir` or `entry.is_file`; a link that leads in a circle is neither."""
    try:
        return question()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


def _refuse_wrapper(root: Path, names: Sequence[str]) -> None:
    """Refuse a folder around a data set, as unpacking an archive makes one."""
    if len(names) != 1:
        return
    inner, files = Walk(str(root)).entries(names[0])
    if not files and is_around(names[0], inner, files):
        folders = "folders" if len(inner) > 1 else "folder"
        raise PipelineError(
            f"{shown(root)} holds only the folder '{shown(names[0])}', which holds the {folders} "
            f"{listed(inner, 3)}. If these are the classes or splits, "
            f"give {shown(root / names[0])}."
        )
