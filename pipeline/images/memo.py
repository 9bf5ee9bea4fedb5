"""`StatMemo`: which file had which digest, in a small SQLite file that may be lost at any time."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.database import Database
from pipeline.progress import Silent

_TABLE = """CREATE TABLE IF NOT EXISTS files_2 (
    path BLOB PRIMARY KEY, stamp TEXT, digest BLOB, format TEXT, checksum INTEGER
) WITHOUT ROWID"""
_LISTINGS = """CREATE TABLE IF NOT EXISTS listings_1 (
    path BLOB PRIMARY KEY, stamp TEXT, content TEXT, checksum INTEGER
)"""
_AT_ONCE = 900  # SQLite allowed 999 variables in a statement until 3.32


class Known(NamedTuple):
    """What was found when a file was last read.

    Attributes:
        stamp: size, times and inode, as text.
        digest: sha256, 32 bytes; b"" for what is not read as an image.
        format: what it is, from `formats.sniff`; "" for what is not known.
    """

    stamp: str
    digest: bytes
    format: str


class StatMemo:
    """Files and their digests, kept between runs.

    Nothing depends on it but speed: where the file cannot be used, nothing is remembered; where it
    is damaged, it is made anew (see `Database`). Several processes may use it.

    Args:
        path: SQLite file, which may hold other tables; None to remember in memory.
        say: told when it cannot be used, or is made anew.
    """

    def __init__(self, path: Path | None, say: Callable[[str], None] | None = None) -> None:
        self._database = None if path is None else Database(path, say or Silent().say)
        self._here: dict[bytes, Known] = {}
        self._listed: dict[bytes, tuple[str, str]] = {}

    @property
    def problem(self) -> str:
        """Return why it cannot be used; empty where it can."""
        return "" if self._database is None else self._database.problem

    def get_files(self, paths: Sequence[bytes]) -> dict[bytes, Known]:
        """Return what is known of these absolute paths."""
        if self._database is None:
            return {path: self._here[path] for path in paths if path in self._here}

        def ask(connection: sqlite3.Connection) -> dict[bytes, Known]:
            connection.execute(_TABLE)
            found = {}
            for start in range(0, len(paths), _AT_ONCE):
                part = paths[start : start + _AT_ONCE]
                marks = ",".join("?" * len(part))
                query = f"SELECT * FROM files_2 WHERE path IN ({marks})"
                for path, stamp, digest, kind, checksum in connection.execute(query, part):
                    if checksum == _checksum(path, stamp, digest, kind):
                        found[path] = Known(stamp, digest, kind)
            return found

        return self._database.use(ask) or {}

    def put_files(self, files: dict[bytes, Known]) -> None:
        """Remember what was found in these files."""
        if self._database is None:
            self._here.update(files)
            return
        rows = [(path, *known, _checksum(path, *known)) for path, known in files.items()]

        def put(connection: sqlite3.Connection) -> None:
            connection.execute(_TABLE)
            connection.executemany("INSERT OR REPLACE INTO files_2 VALUES (?,?,?,?,?)", rows)

        self._database.use(put)

    def get_listing(self, path: bytes, stamp: str) -> str | None:
        """Return what was found in an archive that had this stamp; None where nothing is known."""
        if self._database is None:
            before, content = self._listed.get(path, ("", ""))
            return content if before == stamp else None

        def ask(connection: sqlite3.Connection) -> str | None:
            connection.execute(_LISTINGS)
            query = "SELECT stamp, content, checksum FROM listings_1 WHERE path = ?"
            for before, content, checksum in connection.execute(query, (path,)):
                if before == stamp and checksum == _checksum(path, stamp, content, ""):
                    return str(content)
            return None

        return self._database.use(ask)

    def put_listing(self, path: bytes, stamp: str, content: str) -> None:
        """Remember what was found in an archive."""
        if self._database is None:
            self._listed[path] = (stamp, content)
            return

        def put(connection: sqlite3.Connection) -> None:
            connection.execute(_LISTINGS)
            row = (path, stamp, content, _checksum(path, stamp, content, ""))
            connection.execute("INSERT OR REPLACE INTO listings_1 VALUES (?,?,?,?)", row)

        self._database.use(put)


def _checksum(path: object, stamp: object, digest: object, kind: object) -> int:
    """Return what a flipped bit in a row changes; SQLite does not check its pages."""
    return zlib.crc32(repr((path, stamp, digest, kind)).encode("utf-8", "surrogatepass"))
