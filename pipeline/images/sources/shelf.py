"""Archives that are open in this process, and the bytes of whatever lies in one or elsewhere."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from threading import Lock

from pipeline.errors import BadImage
from pipeline.images.opening import RACY_NS, VANISHED, stamp_of
from pipeline.images.sources import fetch
from pipeline.images.sources.address import held, is_remote, kind_of
from pipeline.images.sources.members import Archive

#: Archives that are open at once: images are read about in the order of these.
MOST = 4


def _tar(address: str) -> Archive:
    from pipeline.images.sources.tars import Tar

    return Tar(address)


def _zip(address: str) -> Archive:
    from pipeline.images.sources.zips import Zip

    return Zip(address)


def _rows(address: str) -> Archive:
    from pipeline.images.sources.rows import Rows

    return Rows(address)


#: Kind → what opens one.
ARCHIVES: dict[str, Callable[[str], Archive]] = {
    "tar": _tar, "zip": _zip, "parquet": _rows, "arrow": _rows
}  # fmt: skip


class Shelf:
    """The archives that were read last; one that has changed on disk is opened anew.

    What is closed is what nobody holds any more, so a thread may go on with one that left the
    shelf.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[str, tuple[str, Archive]] = OrderedDict()
        self._lock = Lock()

    def archive(self, address: str) -> Archive:
        """Return an archive, opened.

        Raises:
            FileNotFoundError: there is none.
            PipelineError: it is none of its kind, or cannot be read.
        """
        stamp = "" if is_remote(address) else _local_stamp(address)
        with self._lock:
            before, found = self._open.pop(address, ("", None))
            if found is None or before != stamp:
                while len(self._open) >= MOST:
                    self._open.popitem(last=False)
                found = ARCHIVES[kind_of(address)](address)
            self._open[address] = (stamp, found)
            return found


_SHELF = Shelf()
archive = _SHELF.archive


def pieces(address: str) -> Iterator[bytes] | None:
    """Yield the bytes of what lies in an archive or on another machine; None for other addresses.

    Raises:
        BadImage: when it is read: it is not there, is refused or damaged.
        PipelineError: likewise: the machine is to blame.
    """
    where = held(address)
    if where is not None or is_remote(address):
        return _pieces(address, where)
    return None


def _pieces(address: str, where: tuple[str, str] | None) -> Iterator[bytes]:
    try:
        if where is None:
            yield from fetch.pieces(address)
        else:
            yield from archive(where[0]).pieces(where[1])
    except FileNotFoundError as error:
        raise BadImage(VANISHED) from error


def is_there(address: str) -> bool:
    """Tell whether an address, of whatever kind, leads to a file, or into an archive."""
    where = held(address)
    file = address if where is None else where[0]
    return fetch.is_file(file) if is_remote(file) else os.path.isfile(file)  # noqa: PTH113


def is_reachable(root: str | os.PathLike[str]) -> bool:
    """Tell whether images may lie at a root: a folder or archive, or an address elsewhere."""
    address = os.fspath(root)
    return is_remote(address) or os.path.isdir(address) or is_there(address)  # noqa: PTH112


class Stamps:
    """What tells that what lies in an archive or elsewhere has not changed: asked once for each."""

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._known: dict[str, str | None] = {}

    def of(self, address: str) -> str | None:
        """Return the stamp of an address; "" where it must not be remembered.

        None for an address of another kind, and for what is not there.
        """
        where = held(address)
        if where is None and not is_remote(address):
            return None
        file = address if where is None else where[0]
        if file not in self._known:
            self._known[file] = self._asked(file)
        return self._known[file]

    def of_archive(self, address: str) -> str | None:
        """Return the stamp of an archive itself; None where there is none."""
        return self._asked(address)

    def _asked(self, file: str) -> str | None:
        try:
            if is_remote(file):
                return fetch.status(file).stamp
            status = os.stat(file)  # noqa: PTH116
        except FileNotFoundError:
            return None
        except OSError:
            return ""  # reading it tells
        return "" if self._clock() - status.st_ctime_ns < RACY_NS else stamp_of(status)


def _local_stamp(address: str) -> str:
    return stamp_of(os.stat(address))  # noqa: PTH116
