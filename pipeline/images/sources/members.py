"""What is in an archive: members that are images, perhaps with what is said of them, and others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from threading import Lock
from typing import Any, NamedTuple, Protocol

from pipeline.errors import BadImage
from pipeline.images.opening import VANISHED
from pipeline.images.sources.address import kind_of

ESCAPES = "a path that leads out of its archive"
LINK = "a link in an archive"
NOT_A_FILE = "no regular file in an archive"
NESTED = "an archive in an archive"
ENCRYPTED = "encrypted"
SPARSE = "a sparse file in an archive"
CUT_OFF = "the archive ends within it"
DAMAGED = "damaged in its archive"
BOMB = "unpacks to more than 200 times its size"
DUPLICATE = "another of the same name comes later in its archive"
NO_BYTES = "no image in its row"

#: What unpacks to more than this many times its size is refused, from `LEAST_BOMB` bytes on.
RATIO, LEAST_BOMB = 200, 64 << 20
#: Bytes of what says something of an image that are looked at.
MOST_SAID = 1 << 20


class Member(NamedTuple):
    """A file in an archive, or a row of a table.

    Attributes:
        name: in the archive, with `/`; of a row, its number.
        reason: why it is not read; else empty.
        label, split, group: what the archive says of it; else empty.
        elsewhere: where the image lies, of a row that holds no bytes of it.
        said: the content of a `.cls` or `.json` file beside images.
    """

    name: str
    reason: str = ""
    label: str = ""
    split: str = ""
    group: str = ""
    elsewhere: str = ""
    said: str = ""


class Listing(NamedTuple):
    """What an archive holds.

    Attributes:
        members: in the order of the archive; the name of a folder ends with `/`.
        faults: sentences on what of it cannot be read.
        notes: other sentences for the person.
        labelled: whether the archive itself says which class an image is of.
    """

    members: tuple[Member, ...]
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    labelled: bool = False


class Archive(Protocol):
    """An archive that is open; safe in threads."""

    def listing(self) -> Listing:
        """Return what it holds."""

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a member.

        Raises:
            BadImage: it is not there, is refused or damaged.
            PipelineError: the machine is to blame.
        """


class OfFiles:
    """What archives of files share: where each member lies is known once they are listed."""

    def __init__(self) -> None:
        self._lock = Lock()

    @cached_property
    def _read(self) -> tuple[Listing, dict[str, Any]]:
        """What the archive holds, and the place of each member that can be read, by its name."""
        raise NotImplementedError

    def _content(self, where: Any) -> Iterator[bytes]:
        """Yield the bytes of the member at a place."""
        raise NotImplementedError

    def listing(self) -> Listing:
        """Return what it holds."""
        with self._lock:
            return self._read[0]

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a member; see `Archive`."""
        with self._lock:
            places = self._read[1]
        if name not in places:
            raise BadImage(VANISHED)
        yield from self._content(places[name])


def place(name: str) -> tuple[str, str]:
    """Return the name of a member as a path, and why it is not read; else an empty reason."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    path = "/".join(parts)
    if ".." in parts or name.startswith("/") or re.match(r"[A-Za-z]:", name) or "\0" in name:
        return path or name, ESCAPES
    return path, NESTED if kind_of(path) else ""


def is_said(name: str) -> bool:
    """Tell whether a member says something of the image beside it (WebDataset's layout)."""
    return name.lower().endswith((".cls", ".json"))


def once(members: Sequence[Member]) -> tuple[Member, ...]:
    """Return members of which the last of each name counts, as where an archive is unpacked."""
    last = {member.name: at for at, member in enumerate(members)}
    return tuple(
        member if last[member.name] == at else member._replace(reason=member.reason or DUPLICATE)
        for at, member in enumerate(members)
        if last[member.name] == at or not member.name.endswith("/")
    )
