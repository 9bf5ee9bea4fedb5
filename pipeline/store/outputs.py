"""Files that people name: written whole, and never in the place of one that somebody else wrote."""

from __future__ import annotations

from pathlib import Path

from pipeline.arguments import path_of
from pipeline.errors import PipelineError
from pipeline.store.atomic import Buffer, write_bytes

#: What stands near the beginning of a picture that Headstart drew: a PNG's text chunk.
DRAWN = b"Software\0Headstart"
#: Bytes from a file's beginning in which its mark is looked for.
_WITHIN = 1 << 16


def output_path(given: str | Path, *, mark: bytes, what: str) -> Path:
    """Return where to write a file that a person named; look before the work begins.

    Args:
        given: the path.
        mark: stands near the beginning of every file of this kind that Headstart wrote.
        what: the kind, for the sentence (`a page of pipeline report`).

    Raises:
        PipelineError: it is a folder, or a file that Headstart did not write.
    """
    path = path_of(given, "The file to write").absolute()
    if path.is_dir():
        raise PipelineError(f"{path} is a folder; name a file in it.")
    try:
        with path.open("rb") as file:
            foreign = mark not in file.read(_WITHIN)
    except FileNotFoundError:
        foreign = False
    except OSError as error:
        raise PipelineError(f"Cannot read {path}: {error.strerror}.") from error
    if foreign:
        raise PipelineError(
            f"{path} is there and is not {what}: name another file, or remove that one."
        )
    return path


def write_output(path: Path, data: Buffer, *, mark: bytes, what: str) -> None:
    """Write a file that `output_path` gave; what came there meanwhile is looked at again.

    Raises:
        PipelineError: as `output_path`, or it cannot be written.
    """
    write_bytes(output_path(path, mark=mark, what=what), data, what=what)
