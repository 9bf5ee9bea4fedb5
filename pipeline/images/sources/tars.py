"""Tar archives, compressed as a whole or not."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

from pipeline.errors import BadImage, PipelineError
from pipeline.images.names import shown
from pipeline.images.opening import MAX_BYTES, PIECE, TOO_BIG
from pipeline.images.sources import members
from pipeline.images.sources.files import Bytes, as_file, note_of, open_bytes, spooled
from pipeline.images.sources.members import Listing, Member

_BLOCK = 512
#: What an archive may unpack to besides `members.RATIO` times its size.
_FLOOR = 1 << 30


class Tar(members.OfFiles):
    """A tar that is open; of a compressed one, what it unpacks to, in a temporary file.

    Args:
        address: of it.

    Raises:
        FileNotFoundError: there is none.
        PipelineError: it is none, or cannot be read.
    """

    def __init__(self, address: str):
        super().__init__()
        self.name = address
        self._packed = open_bytes(address, whole=True)
        self._notes: tuple[str, ...] = ()
        self._fault = ""
        self._data: Bytes = self._unpacked()

    def _unpacked(self) -> Bytes:
        opens = _decompressor(self._packed.read_at(0, 6))
        if opens is None:
            return self._packed
        given = _Unpacking(opens(as_file(self._packed, PIECE)))
        most = _FLOOR + members.RATIO * self._packed.size
        data = spooled(given, self.name, self._packed.stamp, most)
        if data.size >= most:
            self._fault = f"it {members.BOMB}, and no more of it is read"
        elif given.fault:
            self._fault = f"its compressed data end or break: {given.fault}"
        self._notes = (note_of(data),)
        return data

    @cached_property
    def _read(self) -> tuple[Listing, dict[str, tuple[int, int]]]:
        found, places, faults = list[Member](), dict[str, tuple[int, int]](), list[str]()
        first = self._data.read_at(0, _BLOCK)
        try:
            if first.strip(b"\0") or not first:
                tarfile.TarInfo.frombuf(first, tarfile.ENCODING, "surrogateescape")
        except tarfile.HeaderError as error:
            why = f": {self._fault}" if self._fault else ""
            raise PipelineError(
                f"{shown(self.name)} is no tar archive, or damaged where it begins{why}."
            ) from error
        end = 0
        try:
            with tarfile.open(
                fileobj=as_file(self._data), mode="r:", ignore_zeros=True, errors="surrogateescape"
            ) as tar:
                while (info := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # it keeps all
                    if fault := self._gap(end, info.offset, found):
                        faults.append(fault)
                    end = tar.offset
                    member = self._member(info)
                    found.append(member)
                    if not member.reason:
                        places[member.name] = info.offset_data, info.size
        except (tarfile.TarError, ValueError, UnicodeError, OverflowError) as error:
            faults.append(f"it breaks off {_after(found)}: {error}")
        if not faults and not self._fault:
            if fault := self._gap(end, self._data.size, found):
                faults.append(fault)
            elif end >= self._data.size:
                faults.append(f"it has no end mark {_after(found)}: perhaps it is cut off")
        if self._fault:
            faults.append(f"{self._fault}; it breaks off {_after(found)}")
        return Listing(members.once(found), tuple(faults), self._notes), places

    def _gap(self, start: int, end: int, found: list[Member]) -> str:
        """Return the fault where there is something else than zeros between two members."""
        while start < end:
            piece = self._data.read_at(start, min(PIECE, end - start))
            if not piece:
                return ""
            if piece.strip(b"\0"):
                return f"it is damaged {_after(found)}"
            start += len(piece)
        return ""

    def _member(self, info: tarfile.TarInfo) -> Member:
        name, reason = members.place(info.name)
        if info.issym() or info.islnk():
            reason = reason or members.LINK
        elif info.issparse():
            reason = reason or members.SPARSE
        elif not info.isreg():
            reason = reason or ("" if info.isdir() else members.NOT_A_FILE)
        elif info.size > MAX_BYTES:
            reason = reason or TOO_BIG
        elif info.offset_data + info.size > self._data.size:
            reason = reason or members.CUT_OFF
        said = ""
        if not reason and members.is_said(name) and info.size <= members.MOST_SAID:
            data = self._data.read_at(info.offset_data, info.size)
            said = data.decode("utf-8", "surrogateescape")
        return Member(f"{name}/" if info.isdir() else name, reason, said=said)

    def _content(self, where: tuple[int, int]) -> Iterator[bytes]:
        start, length = where
        for at in range(start, start + length, PIECE):
            wanted = min(PIECE, start + length - at)
            if len(piece := self._data.read_at(at, wanted)) < wanted:
                raise BadImage(members.CUT_OFF)
            yield piece


def _after(found: list[Member]) -> str:
    return f"after '{shown(found[-1].name)}'" if found else "where it begins"


class _Unpacking:
    """Reads compressed data up to where they end or break."""

    def __init__(self, file: Any):
        self.file, self.fault = file, ""

    def read(self, length: int) -> bytes:
        data = bytearray()  # what comes before a fault is kept
        try:
            while not self.fault and len(data) < length:
                piece = self.file.read1(length - len(data))
                if not piece:
                    break
                data += piece
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            self.fault = str(error)
        except Exception as error:
            if type(error).__name__ != "ZstdError":  # of one library or the other
                raise
            self.fault = str(error)
        return bytes(data)


def _decompressor(head: bytes) -> Callable[[Any], Any] | None:
    """Return what unpacks data that begin so; None where they are not compressed."""
    if head.startswith(b"\x1f\x8b"):
        return lambda file: gzip.GzipFile(fileobj=file)
    if head.startswith(b"BZh"):
        return bz2.BZ2File
    if head.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile
    return _zstandard if head.startswith(b"\x28\xb5\x2f\xfd") else None


def _zstandard(file: Any) -> Any:
    try:
        from compression import zstd  # type: ignore[import-not-found]  # from Python 3.14 on
    except ImportError:
        pass
    else:
        return zstd.ZstdFile(file)
    try:
        import zstandard
    except ImportError as error:
        raise PipelineError(
            "A tar that is compressed with Zstandard needs the package zstandard: `pip install "
            "'headstart[remote]'`, or `zstd -d FILE.tar.zst`."
        ) from error
    reader: Any = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    return io.BufferedReader(reader, PIECE)
