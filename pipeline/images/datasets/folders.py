"""Folders as data sets: with splits, with classes, or of images alone.

How odd layouts are read:

- Sub-folders of a class folder belong to the class, at any depth.
- Files beside class folders are left out, and told.
- A folder named as a split is one where all folders are, or where it holds folders and no files;
  then folders beside the splits are left out, and told. So `bus/ car/ train/` are three classes.
- A split's folder that holds images and no class folders is unlabelled.
- A class folder without files is no class; where no folder has files, the images beside them are
  the data, unlabelled.
- A symbolic link is followed; within a class each real folder is read once, whatever the links.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.images.datasets.imageset import Entry, ImageSet, class_notes, no_images
from pipeline.images.names import SPLIT_NAMES, class_name, counted, is_hidden, listed, shown

HIDDEN = "hidden"
BROKEN_LINK = "broken link"
LOOP = "link to a folder that is read already"
NOT_REGULAR = "not a regular file"
BESIDE = "beside the class folders"
BESIDE_SPLITS = "beside the split folders"


@dataclass
class _Walk:
    """What is met on the way through the folders of one data set."""

    root: str
    left_out: list[tuple[str, str]] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def entries(self, folder: str) -> tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]:
        """Return a folder's visible folders and regular files, by the bytes of their names."""
        folders, files = [], []
        try:
            with os.scandir(os.path.join(self.root, folder)) as found:
                for entry in sorted(found, key=lambda entry: os.fsencode(entry.name)):
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if is_hidden(entry.name):
                        self.left_out.append((path, HIDDEN))
                    elif _is(entry.is_dir):
                        folders.append(entry)
                    elif _is(entry.is_file):
                        files.append(entry)
                    else:
                        gone = entry.is_symlink() and not Path(entry.path).exists()
                        self.left_out.append((path, BROKEN_LINK if gone else NOT_REGULAR))
        except OSError as error:
            self.unreadable.append((folder or ".", error.strerror or str(error)))
        return folders, files

    def files(self, top: str) -> list[str]:
        """Return all files beneath a folder, links followed, relative to the root."""
        found: list[str] = []
        seen: set[tuple[int, int]] = set()
        folders, links = [top], list[str]()  # links last: a folder keeps its own path
        while folders or links:
            linked = not folders
            folder = links.pop(0) if linked else folders.pop()
            try:
                status = Path(self.root, folder).stat()
            except OSError as error:
                self.unreadable.append((folder, error.strerror or str(error)))
                continue
            if (status.st_dev, status.st_ino) in seen:
                self.left_out.append((folder, LOOP))
                continue
            seen.add((status.st_dev, status.st_ino))
            inner, files = self.entries(folder)
            found += [f"{folder}/{entry.name}" for entry in files]
            for entry in inner:
                (links if entry.is_symlink() else folders).append(f"{folder}/{entry.name}")
        return found


def scan_folder(root: Path, name: str) -> ImageSet:
    """Return the data set in a folder.

    Args:
        root: absolute, without symbolic links.
        name: what the person calls it.

    Raises:
        PipelineError: no files, folders that cannot be read, or a folder around the data set.
    """
    walk = _Walk(str(root))
    folders, files = walk.entries("")
    names, loose = [entry.name for entry in folders], [entry.name for entry in files]
    splits = _split_folders(walk, names)
    notes: list[str] = []
    if splits:
        images, empty = _read_splits(walk, splits, notes)
        beside = [*[name for name in names if name not in splits], *loose]
        _leave_out(walk, beside, BESIDE_SPLITS, notes)
    else:
        images, empty = _read_classes(walk, "", names)
        if images:
            _refuse_wrapper(root, walk, names)
            _leave_out(walk, loose, BESIDE, notes)
        else:
            images = [Entry(path) for path in loose]
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
    lacking = sorted({class_name(folder) for folder in empty} - set(found.classes))
    return replace(found, notes=(*notes, *no_images(lacking), *class_notes(found)))


def _is(question: Callable[[], bool]) -> bool:
    """Answer `entry.is_dir` or `entry.is_file`; a link that leads in a circle is neither."""
    try:
        return question()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


def _split_folders(walk: _Walk, names: Sequence[str]) -> dict[str, str]:
    """Return folder → split where the folder is one of splits, else nothing."""
    named = {name: SPLIT_NAMES[name.casefold()] for name in names if name.casefold() in SPLIT_NAMES}
    if len(named) == len(names):
        return named
    look = _Walk(walk.root)  # looks without counting what is hidden
    for name in named:
        folders, files = look.entries(name)
        if files or not folders:
            return {}
    return named


def _read_splits(
    walk: _Walk, splits: dict[str, str], notes: list[str]
) -> tuple[list[Entry], list[str]]:
    """Return the images of all splits, and the class folders without any."""
    images: list[Entry] = []
    empty: list[str] = []
    loose: list[str] = []
    for folder, split in splits.items():
        inner, files = walk.entries(folder)
        labelled, without = _read_classes(walk, folder, [entry.name for entry in inner])
        paths = [f"{folder}/{entry.name}" for entry in files]
        empty += without
        if labelled:
            images += [replace(image, split=split) for image in labelled]
            loose += paths
        else:
            images += [Entry(path, split=split) for path in paths]
    _leave_out(walk, loose, BESIDE, notes)
    for split in dict.fromkeys(splits.values()):
        several = [name for name in splits if splits[name] == split]
        if len(several) > 1:
            notes.append(f"The folders {listed(several)} make up {split} together.")
    return images, empty


def _read_classes(walk: _Walk, folder: str, names: Sequence[str]) -> tuple[list[Entry], list[str]]:
    """Return the images in class folders, and the names of those without any."""
    images: list[Entry] = []
    empty = []
    for name in names:
        paths = walk.files(f"{folder}/{name}" if folder else name)
        images += [Entry(path, label=class_name(name)) for path in paths]
        if not paths:
            empty.append(name)
    return images, empty


def _leave_out(walk: _Walk, paths: Sequence[str], reason: str, notes: list[str]) -> None:
    if paths:
        walk.left_out += [(path, reason) for path in paths]
        entries = counted(len(paths), "entry", "entries")
        notes.append(f"Left out: {entries} {reason} ({listed(paths, 3)}).")


def _refuse_wrapper(root: Path, walk: _Walk, names: Sequence[str]) -> None:
    """Refuse a folder around a data set, as unpacking an archive makes one."""
    if len(names) != 1:
        return
    inner, files = _Walk(walk.root).entries(names[0])
    if len(inner) > 1 and not files:
        held = listed([entry.name for entry in inner], 3)
        raise PipelineError(
            f"{shown(root)} holds only the folder '{shown(names[0])}', which holds the folders "
            f"{held}. If these are the classes or splits, give {shown(root / names[0])}."
        )
