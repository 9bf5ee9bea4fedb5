"""Commit files and folders by rename: after a crash each is there whole, or not at all.

The order is write, fsync, rename, fsync of the folder. Rename is the only commit. What cannot be
read is told apart here too: a lost file from a system error.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from pipeline.errors import DamagedError, PipelineError
from pipeline.locks import UNKNOWN_CALL

#: Seconds after which what was begun and not ended counts as left behind. No process is asked
#: whether it lives: it may run on another host.
OLD = 24 * 3600.0
#: Names that start so are unfinished; they are never read, and `gc` removes old ones.
TEMPORARY = ".tmp-"

#: What the system says of a write that failed → what helps.
_WAYS_OUT = {
    errno.ENOSPC: "Make room there",
    errno.EDQUOT: "Make room in your quota there",
    errno.EROFS: "Allow writing there, or write elsewhere",
    errno.EACCES: "Allow writing there, or write elsewhere",
    errno.ENAMETOOLONG: "Give a folder with a shorter path",
    errno.ESTALE: "Mount that disk anew: its server knows the folder no more",
    errno.EIO: "The disk may be failing: look into the system's log",
}
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h

Buffer = bytes | bytearray | memoryview


def make_folder(folder: Path) -> Path:
    """Create a folder and its parents, durably, and return it; fail with the system's reason."""
    if folder.is_dir():
        return folder
    make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
    except OSError as error:
        raise cannot(f"create the folder {folder}", error) from error
    return folder


def cannot(do: str, error: OSError) -> PipelineError:
    """Return what to raise where the system lets nothing be written: its reason, and what helps."""
    way = _WAYS_OUT.get(error.errno or 0, "Remove the cause")
    return PipelineError(
        f"Cannot {do}: {error.strerror or error}. {way}; then the same command goes on. What was "
        "committed before is intact."
    )


def write_pieces(path: Path, pieces: Iterable[Buffer], *, what: str) -> None:
    """Write a file from consecutive pieces and commit it under `path`.

    Args:
        path: final name; its folder is created where missing.
        pieces: the file's bytes, in order.
        what: what the file is, for the error's sentence (`the shard`, `the table`).

    Raises:
        PipelineError: the file and the system's reason, when any step fails; nothing is left
            under `path` then (or the earlier file stays), and no temporary file. Where only the
            last step fails, the fsync of the folder, the whole file stands there.
    """
    make_folder(path.parent)
    temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}-{path.name[:40]}"
    try:
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            for piece in pieces:
                view = memoryview(piece).cast("B")
                while view:
                    view = view[os.write(file, view) :]
            os.fsync(file)
        finally:
            os.close(file)
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        with suppress(PipelineError):  # else `gc` removes it later
            remove(temporary)
        if isinstance(error, OSError):
            raise cannot(f"write {what} {path}", error) from error
        raise


def file_clock(folder: Path) -> float:
    """Return the time by the clock that gives the files of a folder their times, in seconds.

    On a shared file system that is the server's, and this machine's may differ. Where no file can
    be made there (a full disk) it is 0, by which nothing is old.
    """
    try:
        with NamedTemporaryFile(prefix=TEMPORARY, dir=folder) as probe:
            return os.fstat(probe.fileno()).st_mtime
    except OSError:
        return 0.0


def write_bytes(path: Path, data: Buffer, *, what: str) -> None:
    """Write a whole file and commit it under `path`; see `write_pieces`."""
    write_pieces(path, [data], what=what)


def exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step; return False where the system cannot do that.

    Raises:
        OSError: it can, and failed; both names stay what they were.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:  # not Linux
        return False
    names = os.fsencode(one), os.fsencode(other)
    if not rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE):
        return True
    number = ctypes.get_errno()
    # an old kernel, a container that allows no such call, or a file system without it
    if number in UNKNOWN_CALL | {errno.EPERM, errno.EXDEV}:
        return False
    raise OSError(number, os.strerror(number), str(other))


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable (fsync of the folder), where its file system can do that.

    SMB and some FUSE mounts know no such call for folders; EIO and the like are failures anywhere.
    """
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in UNKNOWN_CALL | {errno.EBADF}:
            raise
    finally:
        os.close(file)


def remove(path: Path) -> None:
    """Remove a file that may not be there.

    Raises:
        PipelineError: the file and the system's reason.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        # a file system for reading only says so before it says that there is no such file
        if os.path.lexists(path):
            raise PipelineError(f"Cannot remove {path}: {error.strerror}.") from error


def may_only_be_read(error: PipelineError) -> bool:
    """Tell whether a write failed since nothing may be written there."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.EROFS, errno.EACCES, errno.EPERM)


def commit_folder(folder: Path, write: Callable[[Path], None], *, what: str) -> None:
    """Write a folder and commit it under its name, in place of an earlier one.

    Args:
        folder: final name.
        write: fills the temporary folder that it is given.
        what: what the folder is, for the error's sentence (`the head`).

    Raises:
        PipelineError: the folder and the system's reason; nothing half-written stays.
    """
    make_folder(folder.parent)
    temporary = folder.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
    old = temporary.with_name(f"{temporary.name}-old")
    try:
        temporary.mkdir()
        write(temporary)
        for path in temporary.iterdir():
            with path.open("rb+") as file:  # SMB syncs no file that is open for reading only
                os.fsync(file.fileno())
        sync_folder(temporary)
        if not (folder.exists() and exchange(temporary, folder)):
            if folder.exists():  # killed between these two, it is gone until it is made again
                _set_aside(folder, old)
            os.rename(temporary, folder)
        sync_folder(folder.parent)
    except BaseException as error:
        if old.exists() and not folder.exists():
            os.rename(old, folder)
        if isinstance(error, OSError):
            raise cannot(f"write {what} {folder}", error) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _set_aside(folder: Path, old: Path) -> None:
    """Rename a folder, or copy it where its file system cannot: one of a container's image."""
    try:
        os.rename(folder, old)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copytree(folder, old)
        shutil.rmtree(folder)


def cannot_read(what: str, path: Path, error: OSError) -> PipelineError:
    """Return what to raise where a file of the cache cannot be read.

    A `DamagedError` where the file is gone or the medium does not give it back (EIO): it is made
    again then, and only it. Anything else (no file descriptors, no memory, no permission) says
    nothing about the file, which must not be taken for damaged and removed.

    Args:
        what: what the file is, for the sentence (`the shard`).
        path: the file or folder.
        error: the system's.
    """
    reason = error.strerror or str(error)
    if error.errno in (errno.EIO, errno.ENOENT):
        gone = "is missing" if error.errno == errno.ENOENT else f"cannot be read: {reason}"
        return DamagedError(f"{what[0].upper()}{what[1:]} {path} {gone}.")
    return PipelineError(
        f"Cannot read {what} {path}: {reason}. This is a system error; the file may be intact. "
        "Run the same command again when the cause is gone."
    )
