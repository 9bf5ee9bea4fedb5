"""The bytes of an archive: any of them, in any order, here or on another machine."""

from __future__ import annotations

import io
import os
import stat
import tempfile
from typing import IO, Protocol

from pipeline.errors import PipelineError
from pipeline.images.names import shown
from pipeline.images.opening import FLAGS, GONE, PIECE, machine_error, stamp_of
from pipeline.images.sources import fetch
from pipeline.images.sources.address import is_remote


class Stream(Protocol):
    """What gives bytes from the first to the last."""

    def read(self, length: int, /) -> bytes:
        """Return the next bytes, `length` at most; none at the end."""


class Bytes(Protocol):
    """A file of which any part can be read, in several threads at once.

    Attributes:
        name: its address, for people.
        size: in bytes.
        stamp: what changes whenever its content does; "" where nothing says it.
    """

    name: str
    size: int
    stamp: str

    def read_at(self, offset: int, length: int) -> bytes:
        """Return `length` bytes; fewer at the end of the file."""


class LocalBytes:
    """A file on disk."""

    def __init__(self, name: str, file: IO[bytes], stamp: str = ""):
        self.name, self.stamp, self._file = name, stamp, file
        self.size = os.fstat(file.fileno()).st_size

    @classmethod
    def open(cls, path: str) -> LocalBytes:
        """Open a regular file.

        Raises:
            FileNotFoundError: there is none.
            PipelineError: it cannot be read.
        """
        try:
            file = os.fdopen(os.open(path, FLAGS), "rb", buffering=0)
            status = os.fstat(file.fileno())
        except OSError as error:
            if error.errno in GONE:
                raise FileNotFoundError(path) from error
            raise machine_error("read", path, error) from error
        if not stat.S_ISREG(status.st_mode):
            raise PipelineError(f"{shown(path)} is no regular file.")
        return cls(path, file, stamp_of(status))

    def read_at(self, offset: int, length: int) -> bytes:
        """Return bytes of the file; see `Bytes`."""
        try:
            data = os.pread(self._file.fileno(), length, offset)
            while len(data) < length and (more := os.pread(
                self._file.fileno(), length - len(data), offset + len(data)
            )):  # fmt: skip
                data += more
        except OSError as error:
            raise machine_error("read", self.name, error) from error
        return data

    @property
    def path(self) -> str:
        """Return where the file lies on disk, nameless ones included."""
        name = self._file.name
        return name if isinstance(name, str) else f"/dev/fd/{self._file.fileno()}"


class RemoteBytes:
    """A file on another machine that gives any part of it."""

    def __init__(self, name: str, status: fetch.Status):
        self.name, self.size, self.stamp = name, status.size, status.stamp

    def read_at(self, offset: int, length: int) -> bytes:
        """Return bytes of the file; see `Bytes`."""
        end = min(offset + length, self.size)
        return fetch.part(self.name, offset, end) if offset < end else b""


def open_bytes(address: str, *, whole: bool) -> Bytes:
    """Open a file, here or elsewhere.

    Args:
        address: of it.
        whole: all of it will be needed: one of another machine is fetched into a temporary file.

    Raises:
        FileNotFoundError: there is none.
        PipelineError: it cannot be read.
    """
    if not is_remote(address):
        return LocalBytes.open(address)
    status = fetch.status(address)
    if not whole and fetch.gives_parts(address, status):
        return RemoteBytes(address, status)
    with fetch.stream(address) as given:
        return spooled(given, address, status.stamp)


def spooled(given: Stream, name: str, stamp: str, most: int | None = None) -> LocalBytes:
    """Return what a stream gives in a temporary file without a name, gone when nobody reads it.

    Args:
        given: what it gives is put on disk piece by piece.
        name: what it is, for people.
        stamp: of what is read.
        most: bytes at which it ends; None for all.
    """
    try:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - `LocalBytes` holds it
    except OSError as error:
        raise _no_room(name, error) from error
    total = 0
    while (most is None or total < most) and (piece := given.read(PIECE)):
        try:
            file.write(piece)
        except OSError as error:
            raise _no_room(name, error) from error
        total += len(piece)
    return LocalBytes(name, file, stamp)


def _no_room(name: str, error: OSError) -> PipelineError:
    return PipelineError(
        f"Cannot put {shown(name)} into a temporary file in {shown(tempfile.gettempdir())}: "
        f"{error.strerror}. It is read from there; TMPDIR names another folder."
    )


def note_of(unpacked: LocalBytes) -> str:
    """Return the sentence for the person on what is unpacked into a temporary file."""
    size = unpacked.size / 1e6
    return (
        f"{shown(unpacked.name)} is compressed as a whole, so it is unpacked into a temporary file "
        f"of {size:,.{0 if size > 10 else 1}f} MB while it is read."
    )


class AsFile(io.RawIOBase):
    """A file object over `Bytes`, for libraries that want one; buffered by `io.BufferedReader`."""

    def __init__(self, data: Bytes):
        self._data, self._at = data, 0

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read into a buffer."""
        piece = self._data.read_at(self._at, len(buffer))
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._data.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """Return the place."""
        return self._at

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that places can be gone to."""
        return True


def as_file(data: Bytes, buffer: int = 4096) -> io.BufferedReader:
    """Return a file object over some bytes."""
    return io.BufferedReader(AsFile(data), buffer)
