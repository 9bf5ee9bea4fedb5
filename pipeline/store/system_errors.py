"""When a file cannot be read: tell a lost file from a system error."""

from __future__ import annotations

import errno
from pathlib import Path

from pipeline.errors import DamagedError, PipelineError


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
