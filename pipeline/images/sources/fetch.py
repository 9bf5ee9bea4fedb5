"""Files of other machines, through fsspec (the extra `remote`), whose business credentials are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from pipeline.errors import BadImage, PipelineError
from pipeline.images.names import shown
from pipeline.images.opening import MAX_BYTES, PIECE, TOO_BIG
from pipeline.images.sources.address import cleaned, host_of, opened, without_secrets

#: What file systems say of a file that changes whenever its content does.
_MARKS = (
    "ETag", "etag", "md5", "md5Hash", "Content-MD5", "Digest", "checksum", "generation", "ino",
    "mtime", "LastModified", "last_modified", "Last-Modified", "created",
)  # fmt: skip
#: Bytes that are fetched at once where all of a file is read.
_BLOCK = 4 << 20
_ABSENT = (404, 410)


class Status(NamedTuple):
    """What is said of a file: its size in bytes, and a stamp; "" where nothing tells of changes."""

    size: int
    stamp: str


def status(address: str) -> Status:
    """Return what is said of a file.

    Raises:
        FileNotFoundError: there is none.
        PipelineError: it cannot be reached.
    """
    with _told(address):
        system, path = _system(address)
        found = system.info(path)
        if found.get("type") == "directory":
            raise FileNotFoundError(address)
        if found.get("size") is None:
            raise PipelineError(f"{shown(address)}: its server does not say how large it is.")
        marks = {name: str(found[name]) for name in _MARKS if found.get(name)}
        size = int(found["size"])
        return Status(size, json.dumps([size, marks], sort_keys=True) if marks else "")


def pieces(address: str) -> Iterator[bytes]:
    """Yield the bytes of a file.

    Raises:
        BadImage: it is larger than an image may be.
        FileNotFoundError, PipelineError: as `status`.
    """
    if status(address).size > MAX_BYTES:
        raise BadImage(TOO_BIG)
    with stream(address) as file:
        while True:
            with _told(address):
                piece = file.read(PIECE)
            if not piece:
                return
            yield piece


def part(address: str, start: int, end: int) -> bytes:
    """Return the bytes from `start` to before `end` of a file that gives parts.

    Raises:
        FileNotFoundError, PipelineError: as `status`.
    """
    with _told(address):
        system, path = _system(address)
        data: bytes = system.cat_file(path, start=start, end=end)
    if len(data) != end - start:
        raise PipelineError(
            f"{shown(address)}: its server gave {len(data):,} bytes where {end - start:,} were "
            "asked for. Run the same command again."
        )
    return data


def gives_parts(address: str, found: Status) -> bool:
    """Tell whether a part of a file can be had without all that comes before it."""
    if found.size < 2:
        return True
    with _told(address):
        system, path = _system(address)
        try:
            with system.open(path, "rb", block_size=1 << 10, cache_type="none") as file:
                file.seek(found.size - 1)
                return len(file.read(1)) == 1
        except (ValueError, TypeError):  # what fsspec says of servers that give all or nothing
            return False


@contextmanager
def stream(address: str) -> Iterator[_Told]:
    """Give a file that is read from its beginning to its end."""
    with _told(address):
        system, path = _system(address)
        web = address.startswith("http")
        file = system.open(path, "rb", block_size=0 if web else _BLOCK)
    with file:
        yield _Told(file, address)


class _Told:
    """A file whose errors are sentences."""

    def __init__(self, file: Any, address: str):
        self.file, self.address = file, address

    def read(self, length: int, /) -> bytes:
        with _told(self.address):
            data: bytes = self.file.read(length)
            return data


def content(address: str) -> bytes:
    """Return all bytes of a file that is no image, such as a list."""
    with stream(address) as file:
        data = bytearray()
        while piece := file.read(PIECE):
            data += piece
        return bytes(data)


def below(address: str) -> list[str]:
    """Return the paths of all files below a folder, relative to it; none where there is no folder.

    Raises:
        PipelineError: it cannot be reached.
    """
    try:
        with _told(address):
            system, path = _system(address)
            system.invalidate_cache()
            # pages that list a web folder link to themselves in another order, too
            found = [n for n in system.find(path) if not n.endswith("/") and "/?" not in n]
            whole = [_address(name, address) for name in found]
    except FileNotFoundError:
        return []
    start = f"{address}/"
    return [one[len(start) :] for one in whole if one.startswith(start)]


def matching(pattern: str) -> list[str]:
    """Return the addresses that a pattern with `*` stands for."""
    with _told(pattern):
        system, path = _system(pattern)
        return sorted(_address(name, pattern) for name in system.glob(path))


def is_file(address: str) -> bool:
    """Tell whether there is such a file."""
    try:
        status(address)
    except FileNotFoundError:
        return False
    return True


def _address(name: str, like: str) -> str:
    """Return the address of what a file system calls `name`; some leave out their own name."""
    if "://" in name:
        return cleaned(name)
    return f"{like.partition('://')[0]}://{name.lstrip('/')}"


def _system(address: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError as error:
        raise PipelineError(
            f"{shown(address)} is read with fsspec, which is not installed: "
            "`pip install 'headstart[remote]'`."
        ) from error
    try:
        system, path = fsspec.core.url_to_fs(opened(address))
    except ImportError as error:
        raise PipelineError(
            f"{host_of(address)} needs another package: {without_secrets(str(error))}."
        ) from error
    return system, path


@contextmanager
def _told(address: str) -> Iterator[None]:
    """Turn what libraries raise into a sentence; a file that is not there into one kind of error.

    Each has errors of its own, and fsspec says of any fault of a web server that a file is not
    found.
    """
    try:
        yield
    except (PipelineError, MemoryError):
        raise
    except FileNotFoundError as error:
        cause = error.__cause__
        if address.startswith("http") and cause is not None and not _is_absent(cause):
            raise _cannot(address, cause) from error
        raise FileNotFoundError(address) from error
    except Exception as error:
        raise _cannot(address, error) from error


def _is_absent(cause: BaseException) -> bool:
    """Tell whether a web server said that there is no such file, and not that it failed."""
    return isinstance(cause, FileNotFoundError) or getattr(cause, "status", 0) in _ABSENT


def _cannot(address: str, error: BaseException) -> PipelineError:
    said = without_secrets(str(error)) or type(error).__name__
    return PipelineError(
        f"Cannot read {shown(address)}: {said.rstrip('.')}. The file may be "
        "intact. Run the same command again when the cause is gone."
    )
