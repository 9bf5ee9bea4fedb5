"""From a path to an image file's bytes, or a reason why not."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator

from pipeline.errors import BadImage
from pipeline.images.decoding.formats import EMPTY, HEAD, sniff, unread
from pipeline.images.digest import odd
from pipeline.images.opening import FLAGS, FORBIDDEN, GONE, NO_FILE, NOT_REGULAR, machine_error
from pipeline.images.opening import VANISHED as NOT_THERE
from pipeline.images.sources import shelf

#: Asked in the thread that is about to decode an image: takes the sha256 of the file's bytes (32
#: bytes), the bytes, and the file's name for people; returns why the image must not be decoded,
#: empty where it may be. See `pipeline.extraction.crashes`.
Guard = Callable[[bytes, bytes, str], str]

ABSENT = "no such file"
NO_PERMISSION = "no permission to read it"
NOT_A_PATH = "not a path that this system can have"
_REASONS = {
    **dict.fromkeys(GONE, ABSENT),
    **dict.fromkeys(FORBIDDEN, NO_PERMISSION),
    **dict.fromkeys(NO_FILE, NOT_REGULAR),
    errno.ENAMETOOLONG: NOT_A_PATH,
}

#: Why a file that was hashed cannot be read a moment later.
VANISHED = "vanished while it was read"
CHANGED = "changed while it was read"
FORBIDDEN_NOW = "may no longer be read"
REPLACED = "is no longer a regular file"
#: Reasons that say something of the moment and nothing of the bytes: no run records them.
PASSING = frozenset((VANISHED, CHANGED, FORBIDDEN_NOW, REPLACED))
_PASSING = {
    ABSENT: VANISHED,
    NO_PERMISSION: FORBIDDEN_NOW,
    NOT_REGULAR: REPLACED,
    NOT_A_PATH: VANISHED,
}


def unguarded(digest: bytes, data: bytes, name: str) -> str:
    """Let every image be decoded."""
    return ""


def admit(
    data: bytes, expected: bytes | None, name: str, *, guard: Guard, changed: Exception
) -> bytes:
    """Return the digest of an image that may be decoded.

    Args:
        data: the file's bytes.
        expected: the digest that it must have; None for any.
        name: of the file, for people.
        guard: asked last.
        changed: raised where the digest is another.

    Raises:
        BadImage: the guard refuses it.
    """
    digest = hashlib.sha256(data).digest()
    if expected not in (None, digest):
        raise changed
    if reason := guard(digest, data, name):
        raise BadImage(reason)
    return digest


def read(path: str) -> bytes:
    """Return the bytes of a file that was an image when it was hashed.

    Args:
        path: of the file; or an address in an archive, or of another machine.

    Raises:
        BadImage: with one of the `PASSING` reasons, where it is not there as a file any more.
        PipelineError: for what is not the file's fault, with the system's reason.
    """
    try:
        return _read(path, known=True)
    except BadImage as error:
        raise BadImage(_PASSING.get(str(error), CHANGED)) from error


def read_unknown(path: str) -> bytes:
    """Return the bytes of an image file of which nothing is known yet.

    Raises:
        BadImage: there is no such file, it may not be read, or it is no image.
        PipelineError: for what is not the file's fault, with the system's reason.
    """
    return _read(path, known=False)


def _read(path: str, *, known: bool) -> bytes:
    try:
        # A folder opens too; the status decides, before Python's own file can refuse or wait.
        descriptor = os.open(path, FLAGS)
        try:
            if (found := odd(os.fstat(descriptor))) is not None:
                raise BadImage(found.reason)
            with open(descriptor, "rb", closefd=False) as file:
                head = file.read(HEAD)
                # a large file that is no image is not read whole
                if not known and (reason := unread(sniff(head, os.fsdecode(path)))):
                    raise BadImage(reason)
                return head + file.read()
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in GONE and (pieces := shelf.pieces(path)) is not None:
            return _stored(pieces, path, known=known)
        if error.errno in _REASONS:
            raise BadImage(_REASONS[error.errno]) from error
        raise machine_error("read", path, error) from error
    except ValueError as error:  # a path with a zero byte
        raise BadImage(NOT_A_PATH) from error


def _stored(pieces: Iterator[bytes], address: str, *, known: bool) -> bytes:
    """Return the bytes of what lies in an archive or on another machine."""
    try:
        first = next(pieces, b"")
    except BadImage as error:
        raise BadImage(ABSENT if str(error) == NOT_THERE else str(error)) from error
    if not known and (reason := unread(sniff(first[:HEAD], address)) if first else EMPTY):
        raise BadImage(reason)
    return b"".join([first, *pieces])  # of one piece no copy
