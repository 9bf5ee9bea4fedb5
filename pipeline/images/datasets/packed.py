"""Archives as a data set: tars, ZIP archives, Parquet and Arrow files, one or many."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.images.datasets.folders import image_set
from pipeline.images.datasets.imageset import Entry, ImageSet
from pipeline.images.datasets.labels import label_notes
from pipeline.images.datasets.layout import Layout, NameTree
from pipeline.images.datasets.lists.columns import COLUMNS
from pipeline.images.datasets.lists.listing import scan_text
from pipeline.images.names import SPLIT_NAMES, class_name, counted, listed, shown
from pipeline.images.sources.address import beside, kind_of, stem_of
from pipeline.images.sources.catalogue import Catalogue
from pipeline.images.sources.members import Listing, Member
from pipeline.images.sources.shelf import MOST

#: Kinds whose members are files; the members of others are rows, in the order in which they stand.
_OF_FILES = ("tar", "zip")


def scan_archives(
    archives: Sequence[str], root: str | Path, name: str, catalogue: Catalogue
) -> ImageSet:
    """Return the data set in archives.

    What cannot be read of one is told, and the rest taken. Where all of several archives are named
    after splits, as `train-00000-of-00002.parquet`, these are the splits.

    Args:
        archives: their addresses, one at least.
        root: what paths are relative to: a folder that holds them, or a single archive itself.
        name: what the person calls it.
        catalogue: lists them.

    Raises:
        PipelineError: none can be read, or there is nothing in them.
    """
    found = _Found(root, _splits(archives, str(root)))
    lost: list[str] = []
    for address in archives:
        try:
            found.add(address, catalogue.listing(address, many=len(archives) > MOST))
        except (PipelineError, FileNotFoundError) as error:
            if len(archives) == 1 and isinstance(error, PipelineError):
                raise
            is_gone = isinstance(error, FileNotFoundError)
            lost.append(f"{shown(address)} is not there." if is_gone else str(error))
            found.left_out.append((found.relative(address), "an archive that cannot be read"))
    if lost:
        of = f"of {counted(len(archives), 'archive')} cannot be read: {' '.join(lost[:3])}"
        if len(lost) == len(archives):
            raise PipelineError(f"{len(lost):,} {of}")
        found.notes.insert(0, f"WARNING: {len(lost):,} {of} What the others hold is taken.")
    return found.images(name)


@dataclass
class _Found:
    """What archives hold, put together.

    Attributes:
        root: as in `scan_archives`.
        splits: address → split, where the archives are named after splits.
        entries: images of which the archive itself says the class.
        elsewhere: of these, those that lie beside the archive.
        names: name in an archive → path and split of its members of that name, in all archives.
        left_out: (path, reason).
        notes: sentences for the person.
    """

    root: str | Path
    splits: Mapping[str, str]
    entries: list[Entry] = field(default_factory=list)
    elsewhere: list[Entry] = field(default_factory=list)
    names: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def relative(self, address: str) -> str:
        """Return the path of an archive, relative to the root; "" of the root itself."""
        return address[len(str(self.root)) :].lstrip("/")

    def add(self, address: str, listing: Listing) -> None:
        """Take what an archive holds."""
        own, split = self.relative(address), self.splits.get(address, "")
        members: Sequence[Member] = listing.members
        if kind_of(address) in _OF_FILES:
            members = sorted(members, key=lambda member: os.fsencode(member.name))
        refused: dict[str, list[str]] = {}
        for member in members:
            path = os.path.join(own, member.name)
            if member.reason:
                refused.setdefault(member.reason, []).append(member.name)
                self.left_out.append((path, member.reason))
            elif not listing.labelled:
                self.names.setdefault(member.name, []).append((path, split))
            else:
                entry = Entry(path, class_name(member.label), member.split or split, member.group)
                if member.elsewhere:
                    path = beside(own, member.elsewhere)
                    self.elsewhere.append(replace(entry, path=path))
                else:
                    self.entries.append(entry)
        self.notes += listing.notes
        if listing.faults:
            last = counted(sum(not m.reason and not m.name.endswith("/") for m in members), "file")
            self.notes.append(
                f"WARNING: {shown(address)} is damaged: {'; '.join(listing.faults)}. {last} of it "
                "can be read."
            )
        if refused:
            count = counted(sum(map(len, refused.values())), "member")
            told = "; ".join(f"{reason}: {listed(some, 3)}" for reason, some in refused.items())
            self.notes.append(f"Left out of {shown(address)}: {count} ({told}).")

    def images(self, name: str) -> ImageSet:
        """Return the set of all that was found.

        Raises:
            PipelineError: nothing was.
        """
        if self.elsewhere and not self.entries and not self.names:
            return self._listed(name)
        tree = NameTree(self.names)
        for top in tree.enter():
            self.notes.append(f"The folder '{shown(top)}' around all others is passed through.")
        layout = Layout.of(tree)
        tree.left_out[:] = [
            *self.left_out,
            *((path, why) for name, why in tree.left_out for path, _ in self._places(tree, name)),
        ]
        by_rule = [
            replace(entry, path=path, split=entry.split or split)
            for entry in layout.images
            for path, split in self._places(tree, entry.path)
        ]
        layout.images = [*self.entries, *self.elsewhere]
        layout.images += sorted(by_rule, key=lambda entry: os.fsencode(entry.path))
        if not layout.images:
            raise PipelineError(
                f"{shown(self.root)} holds no files that can be taken. {' '.join(self.notes)}"
            )
        labels = label_notes([entry.label for entry in layout.images])
        layout.notes = [*self.notes, *layout.notes, *labels]
        return image_set(layout, self.root, name)

    def _places(self, tree: NameTree, name: str) -> Sequence[tuple[str, str]]:
        """Return path and split of each member of a name in the tree; of a folder itself."""
        whole = os.path.join(tree.top, name)
        return self.names.get(whole) or [(whole, "")]

    def _listed(self, name: str) -> ImageSet:
        """Return the set of rows that hold paths alone: as the CSV file that they would be."""
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((e.path, e.label, e.split, e.group) for e in self.elsewhere)
        images = scan_text(buffer.getvalue(), title=shown(self.root), root=self.root, name=name)
        left_out = (*self.left_out, *images.left_out)
        return replace(images, left_out=left_out, notes=(*self.notes, *images.notes))


def _splits(archives: Sequence[str], root: str) -> dict[str, str]:
    """Return the split that each archive is named after; nothing where not all of them are."""
    found: dict[str, str] = {}
    for address in archives:
        place = f"{os.path.dirname(address[len(root) :])}/{stem_of(address)}"  # noqa: PTH120
        words = [word.casefold() for word in re.split(r"[/\-_.]", place)]
        named = [SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES]
        if not named:
            return {}
        found[address] = named[-1]
    return found if len(set(found.values())) > 1 else {}
