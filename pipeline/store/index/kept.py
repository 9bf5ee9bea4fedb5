"""The segments of an index on disk: a few files that others merge, replace or lose at any time."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pipeline.errors import DamagedError, PipelineError
from pipeline.store.atomic import OLD, file_clock, make_folder, remove
from pipeline.store.index.index import Index
from pipeline.store.index.segment import Segment, merged

_NAME = re.compile(r"[0-9a-f]{16}\.h5")


def segments(folder: Path) -> list[Segment]:
    """Return the segments of a folder that are whole, and none that another replaces."""
    found: list[Segment] = []
    # what was merged from others is larger than each of them
    for path in sorted(_files(folder), key=_size, reverse=True):
        if not any(path.name in segment.replaces for segment in found):
            with suppress(DamagedError):  # or just gone: its shards are read again
                found.append(Segment.read(path))
    return found


def write(index: Index, folder: Path) -> None:
    """Write what an index learnt since it was read to a segment, as far as that is allowed.

    Segments that it replaces are removed once they are old: another host may have a young one
    mapped.
    """
    parts = index.unkept()
    if not parts:
        return
    with suppress(PipelineError, OSError):  # a cache for reading only, or a full disk
        make_folder(folder)
        segment = merged(parts)
        older = tuple(name for name in segment.replaces if (folder / name).exists())
        replace(segment, replaces=older).write(folder)
        index.kept |= {*segment.names}
        past = file_clock(folder) - OLD
        for name in older:
            with suppress(OSError):
                if (folder / name).stat().st_mtime < past:
                    (folder / name).unlink()


def forget(folder: Path) -> None:
    """Remove the segments of a folder, so that every shard is hashed before it is read again.

    Raises:
        PipelineError: one cannot be removed, and the system's reason.
    """
    for path in _files(folder):
        remove(path)


def _files(folder: Path) -> list[Path]:
    """Return the segments' files; none where they cannot be listed, since nothing depends on it."""
    try:
        with os.scandir(folder) as entries:
            return [folder / one.name for one in entries if _NAME.fullmatch(one.name)]
    except OSError:
        return []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
