"""`StatMemo`: which file had which digest, in a small SQLite file that may be lost at any time."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")

_TABLE = """CREATE TABLE IF NOT EXISTS files_1 (
    path BLOB PRIMARY KEY, stamp TEXT, digest BLOB, format TEXT, checksum INTEGER
) WITHOUT ROWID"""
_AT_ONCE = 900  # SQLite allowed 999 variables in a statement until 3.32
_PATIENCE = 30.0  # seconds to wait for another process


class Known(NamedTuple):
    """What was found when a file was last read.

    Attributes:
        stamp: size, times and inode, as text.
        digest: sha256, 32 bytes; b"" for what is no image.
        format: "" for what is no image.
    """

    stamp: str
    digest: bytes
    format: str


class StatMemo:
    """Files and their digests, kept between runs.

    Nothing depends on it but speed: where the file cannot be used, nothing is remembered and
    `problem` says why; where it is damaged, it is made anew. Several processes may use it.

    Args:
        path: SQLite file, which may hold other tables; None to remember in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.problem = ""
        self._here: dict[bytes, Known] = {}

    def get_files(self, paths: Sequence[bytes]) -> dict[bytes, Known]:
        """Return what is known of these absolute paths."""
        if self.path is None:
            return {path: self._here[path] for path in paths if path in self._here}

        def ask(connection: sqlite3.Connection) -> dict[bytes, Known]:
            found = {}
            for start in range(0, len(paths), _AT_ONCE):
                part = paths[start : start + _AT_ONCE]
                marks = ",".join("?" * len(part))
                query = f"SELECT * FROM files_1 WHERE path IN ({marks})"
                for path, stamp, digest, kind, checksum in connection.execute(query, part):
                    if checksum == _checksum(path, stamp, digest, kind):
                        found[path] = Known(stamp, digest, kind)
            return found

        return self._with_database(ask) or {}

    def put_files(self, files: dict[bytes, Known]) -> None:
        """Remember what was found in these files."""
        if self.path is None:
            self._here.update(files)
            return
        rows = [(path, *known, _checksum(path, *known)) for path, known in files.items()]

        def put(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT OR REPLACE INTO files_1 VALUES (?,?,?,?,?)", rows)

        self._with_database(put)

    def _with_database(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        assert self.path is not None
        for last in (False, True):
            try:
                # `connection` itself commits, `closing` closes.
                with (
                    closing(sqlite3.connect(self.path, timeout=_PATIENCE)) as connection,
                    connection,
                ):
                    connection.execute(_TABLE)
                    return work(connection)
            except sqlite3.OperationalError as error:
                self.problem = str(error)  # read-only, full, locked: not damaged
                return None
            except sqlite3.DatabaseError as error:
                self.problem = str(error)
                if last or not self._remove():
                    return None
        return None

    def _remove(self) -> bool:
        """Remove the damaged file, and the journal that would be played back into a new one."""
        assert self.path is not None
        try:
            for end in ("-journal", "-wal", "-shm", ""):
                self.path.with_name(self.path.name + end).unlink(missing_ok=True)
        except OSError as error:
            self.problem = str(error)
            return False
        return True


def _checksum(path: object, stamp: object, digest: object, kind: object) -> int:
    """Return what a flipped bit in a row changes; SQLite does not check its pages."""
    return zlib.crc32(repr((path, stamp, digest, kind)).encode("utf-8", "surrogatepass"))
