"""How files of images are opened, and why some are not: a device, what is too big or gone."""

from __future__ import annotations

import errno
import os

from pipeline.errors import PipelineError
from pipeline.images.names import shown

VANISHED = "vanished"
NOT_REGULAR = "not a regular file"
TOO_BIG = "a file of more than 1 GiB"
MAX_BYTES = 1 << 30
#: A file that changed less than this before it was hashed may change again without its time
#: changing (git's racy index), so it is hashed again the next time. Two seconds is FAT's clock.
RACY_NS = 2_000_000_000
#: Bytes that are read at once.
PIECE = 1 << 20
# Not blocking: a FIFO that takes the place of a file must not hang the run.
FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
FORBIDDEN = (errno.EACCES, errno.EPERM)
#: What opening a socket, or a device that nothing drives, says.
NO_FILE = (errno.ENXIO, errno.ENODEV)


def machine_error(verb: str, name: str, error: MemoryError | OSError) -> PipelineError:
    """Return the sentence for what is the machine's fault and not the image's."""
    reason = getattr(error, "strerror", None) or "no memory left"
    return PipelineError(
        f"Cannot {verb} {shown(name)}: {reason}. This is a system error; the file may be intact. "
        "Run the same command again when the cause is gone."
    )


def stamp_of(status: os.stat_result) -> str:
    """Return what changes whenever the content does. Times can be set back, ctime cannot."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
