"""`InFlightJournal`: which images a process is decoding, in a file that outlives its crash.

A decoder is C code; a hostile file may end the process in it, and then nobody is left to say which
file it was. So each decoding thread notes the image's digest before it begins, in a slot of its
own, by one small write that is never synced: the process dies, not the machine. An orderly end
removes the file, or leaves what is known to crash. Whoever finds one that nobody holds (see
`claimed`) knows that its writer is gone, and which few images that had in its hands.

The file: 33 bytes for each entry, what is known of it and a digest. Entries of earlier runs come
first and stay: what is known to crash, and what is still to be looked at.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pipeline import locks
from pipeline.errors import PipelineError
from pipeline.store.atomic import TEMPORARY, cannot, make_folder

_HELD, _CRASHES, _CLEARED = b"?", b"!", b"."
_SIZE = 33
_MOST = 1 << 20  # bytes that are read of a file


class InFlightJournal:
    """The journal of one run; to be used as a context, by one process at a time.

    Args:
        path: of the file.

    Attributes:
        held: digests that a run which ended suddenly was decoding then, not looked at yet.
        crashing: digests that are known to end the process that decodes them.

    Raises:
        PipelineError: on entering, where the file cannot be opened or written.
    """

    def __init__(self, path: Path):
        self.path = path
        self.held: set[bytes] = set()
        self.crashing: set[bytes] = set()
        self._slots = threading.local()
        self._places: dict[bytes, int] = {}
        self._taken = 0
        self._lock = threading.Lock()
        self._file = -1

    def __enter__(self) -> InFlightJournal:
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._file = os.open(self.path, flags, 0o666)
            self.held, self.crashing = _entries(os.read(self._file, _MOST))
            self._rewrite()
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        return self

    def _rewrite(self) -> None:
        """Write what is known, and nothing else."""
        data = _packed(self.held, self.crashing)
        os.pwrite(self._file, data, 0)
        os.ftruncate(self._file, len(data))
        self._places = {data[at + 1 : at + _SIZE]: at for at in range(0, len(data), _SIZE)}
        self._taken = len(self._places)

    def judge(self, digest: bytes, *, crashes: bool) -> None:
        """Note what was found out about a held image."""
        self.held.discard(digest)
        if crashes:
            self.crashing.add(digest)
        with suppress(OSError):  # as in `note`
            os.pwrite(self._file, _CRASHES if crashes else _CLEARED, self._places[digest])

    def doubt(self) -> None:
        """Take what is known to crash for what is still to be looked at."""
        self.held |= self.crashing
        self.crashing = set()
        with suppress(OSError):  # as in `note`
            self._rewrite()

    def note(self, digest: bytes) -> None:
        """Note that this thread is about to decode an image."""
        slot = getattr(self._slots, "number", None)
        if slot is None:
            with self._lock:
                slot = self._slots.number = self._taken
                self._taken += 1
        # on a full disk the commit tells; until then only a note is missing
        with suppress(OSError), self._lock:  # the file's number may be another file's after the end
            os.pwrite(self._file, _HELD + digest, slot * _SIZE)

    def __exit__(self, *_: object) -> None:
        """Leave what is known to crash or still to be looked at, and else nothing."""
        try:
            with suppress(OSError):  # the next run looks at a few images in vain
                if self.held or self.crashing:
                    self._rewrite()
                else:
                    self.path.unlink(missing_ok=True)
        finally:
            with self._lock:
                os.close(self._file)
                self._file = -1


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """Give the path of a journal that is this process's own.

    It begins with what the files of ended processes say, which it takes the place of, and with what
    living ones know to crash. A living process holds the lock of its file, which dies with it. On a
    file system without locks every other process counts as ended: what a living one is decoding is
    looked at once in vain, and nothing else is lost.

    Folders that had to be made are removed at the end where nothing stayed in them.

    Raises:
        PipelineError: the folder cannot be written.
    """
    name = f"{os.getpid()}-{secrets.token_hex(4)}"
    path, temporary = folder / name, folder / f"{TEMPORARY}{name}"
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    make_folder(folder)
    with ExitStack() as stack:
        for each in reversed(missing):
            stack.callback(_remove_empty, each)
        try:
            held, crashing, ended = _left(folder, stack)
            own = stack.enter_context(temporary.open("xb", buffering=0))
            stack.callback(_unlink, temporary)  # where a step fails
            locks.take(own.fileno())  # before anyone sees it
            own.write(_packed(held, crashing))
            temporary.replace(path)
            for other in ended:
                other.unlink(missing_ok=True)
        except OSError as error:
            raise _cannot_write(path, error) from error
        yield path


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _unlink(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _left(folder: Path, stack: ExitStack) -> tuple[set[bytes], set[bytes], list[Path]]:
    """Return what is held and what crashes by the files in a folder, and which are nobody's."""
    held: set[bytes] = set()
    crashing: set[bytes] = set()
    ended: list[Path] = []
    for path in folder.iterdir():
        if path.name.startswith(TEMPORARY):
            continue
        try:
            file = stack.enter_context(path.open("r+b"))
        except FileNotFoundError:
            continue  # another process has just taken its place
        if locks.take(file.fileno()) is not False:  # what a living process decodes is no suspect
            ended.append(path)
        entries = _entries(file.read(_MOST))
        crashing |= entries[1]
        if path in ended:
            held |= entries[0]
    return held - crashing, crashing, ended


def _entries(data: bytes) -> tuple[set[bytes], set[bytes]]:
    """Return the digests that are held and those that crash; what makes no sense is passed over."""
    found: dict[bytes, set[bytes]] = {_HELD: set(), _CRASHES: set()}
    for start in range(0, len(data) - _SIZE + 1, _SIZE):
        kind, digest = data[start : start + 1], data[start + 1 : start + _SIZE]
        if kind in found:
            found[kind].add(digest)
    return found[_HELD] - found[_CRASHES], found[_CRASHES]


def _packed(held: Iterable[bytes], crashing: Iterable[bytes]) -> bytes:
    entries = [_CRASHES + digest for digest in sorted(crashing)]
    return b"".join([*entries, *(_HELD + digest for digest in sorted(held))])


def _cannot_write(path: Path, error: OSError) -> PipelineError:
    return cannot(f"write the journal of what is decoded, {path}", error)
