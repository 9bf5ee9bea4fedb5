"""Locks on files, which die with their process, on systems and file systems that may have none."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from pipeline.errors import PipelineError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: What a file system says that does not know a call: NFS without its lock daemon, SMB, FUSE.
UNKNOWN_CALL = frozenset(
    {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
)
#: What the cache needs of `os`.
_NEEDED = ("O_CLOEXEC", "O_DIRECTORY", "pwrite")


def check_system() -> None:
    """Refuse a system on which the cache cannot be kept, which is Windows.

    Raises:
        PipelineError: it lacks what locks and commits are made of.
    """
    if fcntl is None or os.name == "nt" or not all(hasattr(os, name) for name in _NEEDED):
        raise PipelineError(
            "Headstart does not support Windows yet: its cache needs file locks and commits as "
            "Linux and macOS have them. Use it there, or in WSL (Windows Subsystem for Linux)."
        )


def take(file: int) -> bool | None:
    """Lock an open file for this process, without waiting.

    Returns:
        True: it is locked; False: another process, or another opening of the file, holds it; None:
        the file system has no locks.

    Raises:
        OSError: anything else that went wrong.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in UNKNOWN_CALL:
            return None
        raise
    return True


def can_lock_records(folder: Path) -> bool:
    """Tell whether files of a folder can be locked as SQLite locks its own (POSIX locks).

    A file of its own is tried: closing SQLite's would drop every lock that this process holds on
    it. True where no file can be made there.
    """
    try:
        probe = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - `with` would take in the lock
    except OSError:
        return True
    with probe:
        try:
            fcntl.lockf(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True
