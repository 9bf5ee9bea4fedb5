"""`Database`: a small SQLite file that may be lost at any time; nothing but speed depends on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from pipeline import locks

T = TypeVar("T")

#: Seconds to wait for another process.
PATIENCE = 30.0
_AT_FIRST = 0.2  # where nobody can lock, SQLite says 'locked' too, and waiting is in vain


class Database:
    """A SQLite file that several processes use and keep tables in.

    Where it cannot be used it is given up after one try, for as long as this object lives. Where it
    is damaged it is made anew, if there is somebody to tell.

    Args:
        path: of the file.
        say: told a sentence when it is given up or made anew; None for nobody.

    Attributes:
        problem: why it was given up; empty until then.
    """

    def __init__(self, path: Path, say: Callable[[str], None] | None = None):
        self.path, self.say = path, say
        self.problem = ""

    def use(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Return what `work` makes of a connection, committed; None where there is none.

        Args:
            work: called again where another process was in the way.
        """
        patience, damaged = _AT_FIRST, False
        while not self.problem:
            try:
                # `connection` itself commits, `closing` closes.
                with (
                    closing(sqlite3.connect(self.path, timeout=patience)) as connection,
                    connection,
                ):
                    return work(connection)
            except sqlite3.DatabaseError as error:
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code == sqlite3.SQLITE_BUSY and patience < PATIENCE:
                    if locks.can_lock_records(self.path.parent):
                        patience = PATIENCE
                        continue
                    error.args = ("the file system has no locks for it",)
                repairable = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
                if self.say is not None and repairable and not damaged:
                    damaged = True
                    if self._remove(str(error)):
                        continue
                self._give_up(self.problem or str(error))
        return None

    def _give_up(self, problem: str) -> None:
        self.problem = problem
        if self.say is not None and self.path.parent.is_dir():  # else there is no cache yet
            self.say(
                f"The memo {self.path} cannot be used ({problem}): going on without it. Files are "
                "read again on every run."
            )

    def _remove(self, problem: str) -> bool:
        """Remove the damaged file, and the journal that would be played back into a new one."""
        try:
            for end in ("-journal", "-wal", "-shm", ""):
                self.path.with_name(self.path.name + end).unlink(missing_ok=True)
        except OSError as error:
            self.problem = str(error)
            return False
        assert self.say is not None
        self.say(
            f"The memo {self.path} was damaged ({problem}) and is made anew: files are read again."
        )
        return True
