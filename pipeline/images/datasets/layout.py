"""How the folders of a data set are read: which are splits, which are classes, what is beside them.

The rules know names alone, so they hold for a folder on disk as well as for the members of an
archive, a bucket or a list. How odd layouts are read:

- Sub-folders of a class folder belong to the class, at any depth.
- Files beside class folders are left out, and told.
- A folder named as a split is one where all folders are, or where it holds folders and no files;
  then folders beside the splits are left out, and told. So `bus/ car/ train/` are three classes.
- A split's folder that holds images and no class folders is unlabelled.
- A class folder without files is no class; where no folder has files, the images beside them are
  the data, unlabelled.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from pipeline.images.datasets.imageset import Entry
from pipeline.images.names import SPLIT_NAMES, class_name, counted, is_hidden, listed

HIDDEN = "hidden"
BESIDE = "beside the class folders"
BESIDE_SPLITS = "beside the split folders"


class Tree(Protocol):
    """Folders and files by name.

    Attributes:
        left_out: (path, reason) of what is no image of the set.
        top: folder of it that counts as the root.
    """

    left_out: list[tuple[str, str]]
    top: str

    def entries(self, folder: str) -> tuple[list[str], list[str]]:
        """Return the names of a folder's visible folders and files, by their bytes."""

    def files(self, folder: str) -> list[str]:
        """Return all files beneath a folder, relative to the root."""

    def look(self) -> Tree:
        """Return the same tree, to look at without counting what is left out."""


class NameTree:
    """The tree that a list of names makes.

    Args:
        names: paths with `/`; one that ends so is a folder's.
        top: folder that counts as the root.
    """

    def __init__(self, names: Iterable[str], top: str = ""):
        self.left_out: list[tuple[str, str]] = []
        self.top = top
        self._folders: dict[str, list[str]] = {"": []}
        self._files: dict[str, list[str]] = {}
        for name in dict.fromkeys(names):
            folder, _, last = name.rpartition("/")
            self._add(folder)
            if last:
                self._files.setdefault(folder, []).append(last)

    def _add(self, folder: str) -> None:
        new = []
        while folder not in self._folders:
            new.append(folder)
            folder = folder.rpartition("/")[0]
        for one in reversed(new):
            above, _, last = one.rpartition("/")
            self._folders[one] = []
            self._folders[above].append(last)

    def entries(self, folder: str) -> tuple[list[str], list[str]]:
        """Return the names of a folder's visible folders and files, by their bytes."""
        place = os.path.join(self.top, folder) if folder else self.top
        found = []
        for names in (self._folders.get(place, []), self._files.get(place, [])):
            hidden = [name for name in names if is_hidden(name)]
            self.left_out += [(os.path.join(folder, name), HIDDEN) for name in hidden]
            found.append(sorted(set(names) - {*hidden}, key=os.fsencode))
        return found[0], found[1]

    def files(self, folder: str) -> list[str]:
        """Return all files beneath a folder, relative to the root."""
        found, folders = list[str](), [folder]
        while folders:
            one = folders.pop()
            inner, files = self.entries(one)
            found += [f"{one}/{name}" for name in files]
            folders += [f"{one}/{name}" for name in inner]
        return found

    def look(self) -> NameTree:
        """Return the same tree, to look at without counting what is left out."""
        other = object.__new__(NameTree)
        other.__dict__.update({**self.__dict__, "left_out": []})
        return other

    def enter(self) -> Iterator[str]:
        """Go into the one folder that holds all others, as archives have it; yield its name."""
        folders, files = self.look().entries("")
        if (
            len(folders) == 1
            and not files
            and is_around(folders[0], *self.look().entries(folders[0]))
        ):
            self.top = os.path.join(self.top, folders[0])
            yield folders[0]


def is_around(name: str, folders: Sequence[str], files: Sequence[str]) -> bool:
    """Tell whether the only folder is one around a data set.

    It is that of no split, and holds several folders, or that of a split alone.

    Args:
        name: its name.
        folders: in it.
        files: likewise.
    """
    if name.casefold() in SPLIT_NAMES or not folders:
        return False
    return len(folders) > 1 or (not files and folders[0].casefold() in SPLIT_NAMES)


@dataclass
class Layout:
    """What the rules make of a tree.

    Attributes:
        tree: whose names they are.
        images: with their classes and splits.
        empty: names of class folders without files.
        classes: folders that were read as classes; none where there are splits.
        notes: sentences for the person.
    """

    tree: Tree
    images: list[Entry] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, tree: Tree) -> Layout:
        """Return what the rules make of a tree."""
        made = cls(tree)
        names, loose = tree.entries("")
        if splits := made._split_folders(names):
            made.images = made._read_splits(splits)
            made.leave_out([n for n in [*names, *loose] if n not in splits], BESIDE_SPLITS)
        elif images := made._read_classes("", names):
            made.images, made.classes = images, tuple(names)
            made.leave_out(loose, BESIDE)
        else:
            made.images = [Entry(path) for path in loose]
        return made

    def _read_classes(self, folder: str, names: Sequence[str]) -> list[Entry]:
        """Return the images in class folders."""
        images: list[Entry] = []
        for name in names:
            paths = self.tree.files(os.path.join(folder, name))
            images += [Entry(path, label=class_name(name)) for path in paths]
            if not paths:
                self.empty.append(name)
        return images

    def _read_splits(self, splits: dict[str, str]) -> list[Entry]:
        """Return the images of all splits, given as folder → split."""
        images: list[Entry] = []
        loose: list[str] = []
        for folder, split in splits.items():
            inner, files = self.tree.entries(folder)
            labelled = self._read_classes(folder, inner)
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
            self.tree.left_out += [(path, reason) for path in paths]
            entries = counted(len(paths), "entry", "entries")
            self.notes.append(f"Left out: {entries} {reason} ({listed(paths, 3)}).")

    def _split_folders(self, names: Sequence[str]) -> dict[str, str]:
        """Return folder → split where the folder is one of splits, else nothing."""
        named = {n: SPLIT_NAMES[n.casefold()] for n in names if n.casefold() in SPLIT_NAMES}
        if len(named) < len(names):
            look = self.tree.look()
            for folders, files in map(look.entries, named):
                if files or not folders:
                    return {}
        return named
