"""The sha256 of every file, read once in threads and remembered while the file stays the same."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import BadImage, PipelineError
from pipeline.images.decoding.formats import EMPTY, HEAD, NOT_READ, sniff, unread
from pipeline.images.memo import Known, StatMemo
from pipeline.images.names import counted, listed, shown
from pipeline.images.opening import (
    FLAGS,
    FORBIDDEN,
    GONE,
    MAX_BYTES,
    NO_FILE,
    NOT_REGULAR,
    PIECE,
    RACY_NS,
    TOO_BIG,
    VANISHED,
    stamp_of,
)
from pipeline.images.sources import shelf
from pipeline.images.sources.address import is_remote, joined

__all__ = ["FileId", "StatMemo", "digest_all"]

#: Every reason why a file is found to be no image.
UNREAD = frozenset((VANISHED, NOT_REGULAR, EMPTY, TOO_BIG, *NOT_READ))

_NO_PERMISSION = "no permission to read it"
_WINDOW = 2000  # files between two writes of the memo
_JOURNEYS, _TOGETHER = 16, 256  # how many times at once a file system is asked, of how many files


class FileId(NamedTuple):
    """What a file holds: its digest and format, or a reason why it is no image.

    Attributes:
        digest: sha256 of its bytes, 32 bytes; None when there is a reason.
        format: `jpeg`, `png`, `webp`, … of what is read; "" when there is a reason.
        reason: short and stable; "" for an image.
    """

    digest: bytes | None
    format: str
    reason: str = ""


def digest_all(
    root: str | Path,
    paths: Sequence[str],
    memo: StatMemo | None,
    *,
    rehash: bool = False,
    threads: int = 2,
    progress: Callable[[int], None] = lambda count: None,
    clock: Callable[[], int] = time.time_ns,
) -> list[FileId]:
    """Return what each file holds; a file that the memo knows unchanged is not opened.

    Args:
        root: folder, archive or address that the paths are relative to.
        paths: N paths, or addresses of other machines.
        memo: remembers files between runs; None for none.
        rehash: read every file all the same.
        threads: how many files are read at once.
        progress: called with how many more files are done, often.
        clock: the time now, in nanoseconds since 1970, as the file system counts.

    Raises:
        PipelineError: naming the file and the system's reason, where a file cannot be read for
            a reason that is not its content.
    """
    files = [os.fsencode(joined(root, path)) for path in paths]
    ask = partial(_stat, shelf.Stamps(clock))
    stamps = _stats(files, ask)
    known = memo.get_files(files) if memo is not None and not rehash else {}
    ids: list[FileId | None] = [None] * len(files)
    todo = []
    for row, (file, stamp) in enumerate(zip(files, stamps, strict=True)):
        if isinstance(stamp, FileId):
            ids[row] = stamp
        elif (before := known.get(file)) is not None and _is_current(before, stamp):
            ids[row] = _id(before)
        else:
            todo.append(row)
    progress(len(files) - len(todo))
    far = any(is_remote(os.fsdecode(files[row])) for row in todo[:1])
    pool = ThreadPoolExecutor(max(1, threads, _JOURNEYS if far else 1), "hash")
    try:
        for start in range(0, len(todo), _WINDOW):
            rows, learnt = todo[start : start + _WINDOW], {}
            results = pool.map(lambda row: _read(files[row], stamps[row], clock), rows)
            for row, (ids[row], fresh) in zip(rows, results, strict=True):
                if fresh is not None:
                    learnt[files[row]] = fresh
                progress(1)
            if memo is not None and learnt:
                memo.put_files(learnt)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    done = [one for one in ids if one is not None]
    if forbidden := [
        os.fsdecode(file)
        for file, one in zip(files, done, strict=True)
        if one.reason == _NO_PERMISSION
    ]:
        raise PipelineError(
            f"No permission to read {counted(len(forbidden), 'file')} of {shown(root)}: "
            f"{listed(forbidden)}. Allow reading (chmod u+r), or move them elsewhere."
        )
    return done


class _Stored(str):
    """The stamp of what lies in an archive or on another machine; empty where nothing tells."""


#: What `_stat` gives: a stamp, or what a file is.
_Stat = str | FileId


def _stats(files: Sequence[bytes], ask: Callable[[bytes], _Stat]) -> list[_Stat]:
    """Return `_stat` of each, many at once: on a file server each is a journey."""
    parts = [files[start : start + _TOGETHER] for start in range(0, len(files), _TOGETHER)]
    if len(parts) < 2:
        return [ask(file) for file in files]
    pool = ThreadPoolExecutor(_JOURNEYS, "stat")
    try:
        each = pool.map(lambda part: [ask(file) for file in part], parts)
        return [stamp for part in each for stamp in part]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _stat(stamps: shelf.Stamps, file: bytes) -> _Stat:
    """Return a file's stamp, or what it is without being opened."""
    try:
        status = os.stat(file)  # noqa: PTH116 - bytes, and a Path each would cost more
    except ValueError:  # a path with a zero byte
        return FileId(None, "", VANISHED)
    except OSError as error:
        if error.errno in GONE and (stamp := stamps.of(os.fsdecode(file))) is not None:
            return _Stored(stamp)
        return _not_opened(file, error)
    return odd(status) or stamp_of(status)


def _not_opened(file: bytes, error: OSError) -> FileId:
    """Return what a file is that cannot be opened; raise where the system is to blame."""
    if error.errno in FORBIDDEN:
        return FileId(None, "", _NO_PERMISSION)
    if error.errno in GONE:
        return FileId(None, "", VANISHED)
    if error.errno in NO_FILE:
        return FileId(None, "", NOT_REGULAR)
    raise _cannot_read(file, error) from error


def odd(status: os.stat_result) -> FileId | None:
    """Return what a file is where its status alone says it."""
    if not stat.S_ISREG(status.st_mode):
        return FileId(None, "", NOT_REGULAR)
    if status.st_size == 0:
        return FileId(None, "", EMPTY)
    return FileId(None, "", TOO_BIG) if status.st_size > MAX_BYTES else None


def _id(known: Known) -> FileId:
    if reason := unread(known.format):
        return FileId(None, "", reason)
    return FileId(known.digest, known.format)


def _is_current(known: Known, stamp: str) -> bool:
    """Tell whether what is known still holds; not where its kind was not read then and now is."""
    return known.stamp == stamp and bool(known.digest or unread(known.format))


def _read(file: bytes, stamp: _Stat, clock: Callable[[], int]) -> tuple[FileId, Known | None]:
    """Return what a file holds, and what is to be remembered of it."""
    if isinstance(stamp, _Stored):
        return _read_stored(os.fsdecode(file), stamp)
    try:
        descriptor = os.open(file, FLAGS)
    except OSError as error:
        return _not_opened(file, error), None
    try:
        for _ in range(3):
            now, status = clock(), os.fstat(descriptor)
            if (reason := odd(status)) is not None:
                return reason, None
            digest, kind = _hash(_pieces(descriptor), os.fsdecode(file))
            if stamp_of(os.fstat(descriptor)) == stamp_of(status):
                known = Known(stamp_of(status), digest, kind)
                racy = now - status.st_ctime_ns < RACY_NS
                return _id(known), None if racy else known
            os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError as error:
        raise _cannot_read(file, error) from error
    finally:
        os.close(descriptor)
    raise PipelineError(
        f"{shown(os.fsdecode(file))} is being written to: it changed each time it was read. "
        "Run the same command again once it is finished."
    )


def _read_stored(address: str, stamp: _Stored) -> tuple[FileId, Known | None]:
    """Do what `_read` does with what lies in an archive or on another machine."""
    try:
        pieces = shelf.pieces(address) or iter(())
        if not (first := next(pieces, b"")):
            return FileId(None, "", EMPTY), None
        digest, kind = _hash(chain([first], pieces), address)
    except BadImage as error:
        return FileId(None, "", str(error)), None
    known = Known(stamp, digest, kind)
    return _id(known), known if stamp else None


def _pieces(descriptor: int) -> Iterator[bytes]:
    while piece := os.read(descriptor, PIECE):
        yield piece


def _hash(pieces: Iterable[bytes], name: str) -> tuple[bytes, str]:
    """Return (sha256, kind); of what is not read as an image only the start is."""
    given = iter(pieces)
    piece = next(given, b"")
    kind = sniff(piece[:HEAD], name)
    if unread(kind):
        return b"", kind
    total = hashlib.sha256(piece)
    for piece in given:
        total.update(piece)
    return total.digest(), kind


def _cannot_read(file: bytes, error: OSError) -> PipelineError:
    return PipelineError(
        f"Cannot read {shown(os.fsdecode(file))}: {error.strerror}. This is a system error; "
        "the file may be intact. Run the same command again once it is solved."
    )
