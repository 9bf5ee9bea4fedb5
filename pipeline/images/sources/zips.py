"""ZIP archives, also those whose directory at the end is lost."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from functools import cached_property
from typing import IO, cast

from pipeline.errors import BadImage, PipelineError
from pipeline.images.names import shown
from pipeline.images.opening import MAX_BYTES, PIECE, TOO_BIG
from pipeline.images.sources import members
from pipeline.images.sources.files import Bytes, as_file, open_bytes
from pipeline.images.sources.members import Listing, Member

_ENCRYPTED, _SIZES_FOLLOW = 1, 8
#: A file's own header, its entry in the directory, and the directory's end (APPNOTE.TXT, 4.3).
_OWN, _ENTRY, _END = "<4s5H3L2H", "<4s6H3L5H2L", "<4s4H2LH"
_BLOCK = 1 << 16


class Zip(members.OfFiles):
    """A ZIP archive that is open.

    Args:
        address: of it.

    Raises:
        FileNotFoundError: there is none.
        PipelineError: it is none, or cannot be read.
    """

    def __init__(self, address: str):
        super().__init__()
        self.name = address
        self._data: Bytes = open_bytes(address, whole=False)
        self._faults: tuple[str, ...] = ()
        try:
            self._zip = zipfile.ZipFile(cast(IO[bytes], as_file(self._data, _BLOCK)))
        except zipfile.BadZipFile as error:
            mended = _Mended(self._data)
            if not mended.count:
                raise PipelineError(f"{shown(address)} is no ZIP archive: {error}.") from error
            self._zip = zipfile.ZipFile(cast(IO[bytes], as_file(mended, _BLOCK)))
            last = shown(self._zip.infolist()[-1].filename)
            self._faults = (f"its directory at the end is missing: it is cut off after '{last}'",)
        except (ValueError, struct.error, NotImplementedError) as error:
            raise PipelineError(f"{shown(address)} is a damaged ZIP archive: {error}.") from error

    @cached_property
    def _read(self) -> tuple[Listing, dict[str, zipfile.ZipInfo]]:
        found, places = list[Member](), dict[str, zipfile.ZipInfo]()
        for info in self._zip.infolist():
            member = self._member(info)
            found.append(member)
            if not member.reason:
                places[member.name] = info
        return Listing(members.once(found), self._faults), places

    def _member(self, info: zipfile.ZipInfo) -> Member:
        # some writers of Windows part names with a backslash
        name, reason = members.place(info.filename.replace("\\", "/"))
        mode = info.external_attr >> 16
        if info.is_dir():
            return Member(f"{name}/", reason)
        if mode & 0o170000 == 0o120000:
            reason = reason or members.LINK
        elif info.flag_bits & _ENCRYPTED:
            reason = reason or members.ENCRYPTED
        elif info.file_size > MAX_BYTES:
            reason = reason or TOO_BIG
        elif info.file_size > max(members.LEAST_BOMB, members.RATIO * info.compress_size):
            reason = reason or members.BOMB
        said = ""
        if not reason and members.is_said(name) and info.file_size <= members.MOST_SAID:
            try:
                said = b"".join(self._content(info)).decode("utf-8", "surrogateescape")
            except BadImage as error:
                reason = str(error)
        return Member(name, reason, said=said)

    def _content(self, where: zipfile.ZipInfo) -> Iterator[bytes]:
        try:
            with self._zip.open(where) as file:
                while piece := file.read(PIECE):
                    yield piece
        except (zipfile.BadZipFile, EOFError, zlib.error, ValueError, OSError) as error:
            raise BadImage(members.DAMAGED) from error
        except (NotImplementedError, RuntimeError) as error:  # a method, or a password
            raise BadImage(f"packed in a way that is not read ({error})") from error


class _Mended:
    """A ZIP archive that is cut off, with a directory of what is whole of it at the end."""

    def __init__(self, data: Bytes):
        self._data = data
        entries = list(self._whole())
        directory = b"".join(entry for entry, _ in entries)
        self._end = entries[-1][1] if entries else 0
        self.count = len(entries)
        few = min(self.count, 0xFFFF)
        self._tail = directory + struct.pack(
            _END, b"PK\5\6", 0, 0, few, few, len(directory), self._end, 0
        )
        self.name, self.stamp, self.size = data.name, data.stamp, self._end + len(self._tail)

    def read_at(self, offset: int, length: int) -> bytes:
        """Return bytes of the archive; see `Bytes`."""
        before = max(0, min(length, self._end - offset))
        start = self._data.read_at(offset, before) if before else b""
        behind = max(0, offset - self._end)
        return start + self._tail[behind : behind + length - len(start)]

    def _whole(self) -> Iterator[tuple[bytes, int]]:
        """Yield the entry of each whole file in the directory, and where the file ends."""
        at, fixed = 0, struct.calcsize(_OWN)
        while len(head := self._data.read_at(at, fixed)) == fixed and at < 0xFFFFFFFF:
            mark, version, flags, method, hour, day, crc, packed, full, name, extra = struct.unpack(
                _OWN, head
            )
            start = at + fixed + name + extra
            if mark != b"PK\3\4" or start + packed > self._data.size or packed == 0xFFFFFFFF:
                return
            end = start + packed
            if flags & _SIZES_FOLLOW:
                if method != zipfile.ZIP_DEFLATED:
                    return
                if (unpacked := self._unpacked(start)) is None:
                    return
                packed, full, crc, end = unpacked
            entry = struct.pack(
                _ENTRY, b"PK\1\2", version, version, flags, method, hour, day, crc, packed, full,
                name, 0, 0, 0, 0, 0, at,
            )  # fmt: skip
            yield entry + self._data.read_at(at + fixed, name), end
            at = end

    def _unpacked(self, start: int) -> tuple[int, int, int, int] | None:
        """Return both sizes, checksum and end of a file whose header does not say them."""
        inflate, full, crc, at = zlib.decompressobj(-15), 0, 0, start
        while not inflate.eof and full <= MAX_BYTES:
            piece = self._data.read_at(at, _BLOCK)
            if not piece:
                return None
            at += len(piece)
            try:
                data = inflate.decompress(piece)
            except zlib.error:
                return None
            full, crc = full + len(data), zlib.crc32(data, crc)
        end = at - len(inflate.unused_data)
        marked = self._data.read_at(end, 4) == b"PK\7\10"
        return end - start, full, crc, end + (16 if marked else 12)
