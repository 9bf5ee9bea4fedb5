"""From DATA to what is in it: a folder, a CSV or TSV file, or a built-in set.

A folder has splits, has classes, or holds images alone. How odd layouts are read:

- Sub-folders of a class folder belong to the class, at any depth.
- Files beside class folders are left out, and told.
- A folder named as a split is one where all folders are, or where it holds folders and no files;
  then folders beside the splits are left out, and told. So `bus/ car/ train/` are three classes.
- A split's folder that holds images and no class folders is unlabelled.
- A class folder without files is no class; where no folder has files, the images beside them are
  the data, unlabelled.
- A symbolic link is followed; within a class each real folder is read once, whatever the links.
  One that leads to a folder which contains it is left out, and told.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.arguments import path_of
from pipeline.errors import PipelineError, UsageError, nearest
from pipeline.images.datasets.builtin import BUILTIN
from pipeline.images.datasets.imageset import Entry, ImageSet, class_notes, no_images
from pipeline.images.datasets.listing import Given, scan_given, scan_listing
from pipeline.images.digest import GONE, NOT_REGULAR, VANISHED
from pipeline.images.names import SPLIT_NAMES, class_name, counted, is_hidden, listed, shown

HIDDEN = "hidden"
BROKEN_LINK = "broken link"
LOOP = "link to a folder that is read already"
CIRCLE = "linked to a folder that contains it"
BESIDE = "beside the class folders"
BESIDE_SPLITS = "beside the split folders"


def scan(data: str | Path | Given) -> ImageSet:
    """Return what a folder or listing consists of; no image is opened.

    Args:
        data: (1) a folder with `train/`, `val/`, `test/`, each with a folder for each class;
            (2) a folder with a folder for each class; (3) a CSV or TSV file with the columns
            `path,label` and optionally `split` and `group`; (4) a folder of images alone; (5) a
            list in memory.

    Raises:
        PipelineError: with all that is wrong with the input in one message.
        UsageError: there is no such file or folder.
    """
    if isinstance(data, Given):
        return scan_given(data)
    if not os.fspath(data):
        raise UsageError("DATA is empty. Give a folder of images or a CSV file.")
    path = path_of(data, "DATA")
    try:
        path.stat()
    except FileNotFoundError:
        raise UsageError(_not_there(path)) from None
    except OSError as error:
        raise PipelineError(f"Cannot read {shown(path)}: {error.strerror}.") from error
    if path.is_dir():
        real = Path(os.path.realpath(path))
        name = real.name if path.name in ("", "..") else path.name
        return _scan_folder(real, name)
    if not path.is_file():
        raise UsageError(f"{shown(path)} is neither a folder nor a file.")
    # Paths are relative to the listing where it is given, not to where a link to it leads.
    return scan_listing(Path(os.path.realpath(path.parent)) / path.name, path.stem)


def _not_there(path: Path) -> str:
    """Return the sentence for a path that does not exist, with the nearest names that do."""
    if path.is_symlink():
        return f"{shown(path)} is a link to a place that does not exist."
    alone = path.parent == Path()  # a bare name may be meant for a built-in set
    try:
        near = [name for name in os.listdir(path.parent) if not is_hidden(name)]
    except OSError:
        near = []
    hint = shown(nearest(path.name, near + (list(BUILTIN) if alone else [])))
    built_in = f", nor a built-in set of that name (there is {', '.join(BUILTIN)})" if alone else ""
    return f"There is no folder or file {shown(path)}{built_in}.{hint}"


@dataclass
class _Walk:
    """What is met on the way through the folders of one data set.

    Attributes:
        root: the data set's folder; every other path is relative to it.
        left_out: (path, reason) of what is no image of the set.
        unreadable: (folder, the system's reason).
        empty: names of class folders without files.
        circles: links that lead to a folder which contains them.
        notes: sentences for the person.
    """

    root: str
    left_out: list[tuple[str, str]] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    circles: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

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

    def read_classes(self, folder: str, names: Sequence[str]) -> list[Entry]:
        """Return the images in class folders."""
        images: list[Entry] = []
        for name in names:
            paths = self.files(os.path.join(folder, name))
            images += [Entry(path, label=class_name(name)) for path in paths]
            if not paths:
                self.empty.append(name)
        return images

    def read_splits(self, splits: dict[str, str]) -> list[Entry]:
        """Return the images of all splits, given as folder → split."""
        images: list[Entry] = []
        loose: list[str] = []
        for folder, split in splits.items():
            inner, files = self.entries(folder)
            labelled = self.read_classes(folder, inner)
            paths = [f"{folder}/{name}" for name in files]
            if labelled:
                loose += paths
            images += [replace(image, split=split) for image in labelled or map(Entry, paths)]
        self.leave_out(loose, BESIDE)
        for split in dict.fromkeys(splits.values()):
            several = [name for name in splits if splits[name] == split]
            if len(several) > 1:
                self.notes.append(f"The folders {listed(several)} make up {split} together.")
        return images

    def leave_out(self, paths: Sequence[str], reason: str) -> None:
        """Leave files and folders out, and note it."""
        if paths:
            self.left_out += [(path, reason) for path in paths]
            entries = counted(len(paths), "entry", "entries")
            self.notes.append(f"Left out: {entries} {reason} ({listed(paths, 3)}).")


def _scan_folder(root: Path, name: str) -> ImageSet:
    """Return the data set in a folder.

    Args:
        root: absolute, without symbolic links.
        name: what the person calls it.

    Raises:
        PipelineError: no files, folders that cannot be read, or a folder around the data set.
    """
    walk = _Walk(str(root))
    names, loose = walk.entries("")
    if splits := _split_folders(walk.root, names):
        images = walk.read_splits(splits)
        walk.leave_out([name for name in [*names, *loose] if name not in splits], BESIDE_SPLITS)
    elif images := walk.read_classes("", names):
        _refuse_wrapper(root, names)
        walk.leave_out(loose, BESIDE)
    else:
        images = [Entry(path) for path in loose]
    walk.leave_out(walk.circles, CIRCLE)
    if walk.unreadable:
        listing = "; ".join(f"{shown(path)}: {why}" for path, why in walk.unreadable[:5])
        raise PipelineError(
            f"Cannot read {counted(len(walk.unreadable), 'folder')} of {shown(root)} ({listing}). "
            "Allow reading them, or move them elsewhere."
        )
    if not images:
        hidden = f"; {counted(len(walk.left_out), 'entry', 'entries')} left out as hidden or odd"
        raise PipelineError(
            f"{shown(root)} holds no files{hidden if walk.left_out else ''}. Put images there, in "
            "a folder for each class, or in train/ and val/ with a folder for each class."
        )
    images.sort(key=lambda image: os.fsencode(image.path))
    found = ImageSet.of_entries(name, root, images, walk.left_out)
    lacking = sorted({class_name(folder) for folder in walk.empty} - set(found.classes))
    return replace(found, notes=(*walk.notes, *no_images(lacking), *class_notes(found)))


def _is(question: Callable[[], bool]) -> bool:
    """Answer `entry.is_dir` or `entry.is_file`; a link that leads in a circle is neither."""
    try:
        return question()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


def _split_folders(root: str, names: Sequence[str]) -> dict[str, str]:
    """Return folder → split where the folder is one of splits, else nothing."""
    named = {name: SPLIT_NAMES[name.casefold()] for name in names if name.casefold() in SPLIT_NAMES}
    if len(named) < len(names):
        look = _Walk(root)  # looks without counting what is hidden
        for folders, files in map(look.entries, named):
            if files or not folders:
                return {}
    return named


def _refuse_wrapper(root: Path, names: Sequence[str]) -> None:
    """Refuse a folder around a data set, as unpacking an archive makes one."""
    inner, files = _Walk(str(root)).entries(names[0]) if len(names) == 1 else ([], [])
    if len(inner) > 1 and not files:
        raise PipelineError(
            f"{shown(root)} holds only the folder '{shown(names[0])}', which holds the folders "
            f"{listed(inner, 3)}. If these are the classes or splits, "
            f"give {shown(root / names[0])}."
        )
