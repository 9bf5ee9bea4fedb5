"""The memo's file is given up after one try where it cannot be used, else waited for."""

import errno
import sqlite3
import threading

import pytest

from pipeline import database
from pipeline.database import Database


def count(connection):
    connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
    connection.execute("INSERT INTO t VALUES (1)")
    return connection.execute("SELECT count(*) FROM t").fetchone()[0]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "memo.sqlite"
    assert Database(path).use(count) == 1
    return path


class Refusing:
    """A connection on which every statement fails with what SQLite says."""

    def __init__(self, error):
        self.error, self.tries = error, 0

    def __call__(self, path, timeout):
        self.tries += 1
        raise self.error


def failure(kind, text, code):
    error = kind(text)
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("kind", "text", "code"),
    [
        (sqlite3.OperationalError, "disk I/O error", sqlite3.SQLITE_IOERR_LOCK),
        (sqlite3.OperationalError, "attempt to write a readonly database", sqlite3.SQLITE_READONLY),
        (sqlite3.OperationalError, "database or disk is full", sqlite3.SQLITE_FULL),
        (sqlite3.DatabaseError, "locking protocol", sqlite3.SQLITE_PROTOCOL),
    ],
)
def test_a_file_that_cannot_be_used_is_given_up_after_one_try(path, monkeypatch, kind, text, code):
    told, refusing = [], Refusing(failure(kind, text, code))
    monkeypatch.setattr(sqlite3, "connect", refusing)
    memo = Database(path, told.append)
    assert [memo.use(count) for _ in range(5)] == [None] * 5
    assert refusing.tries == 1 and memo.problem == text
    assert told == [
        f"The memo {path} cannot be used ({text}): going on without it. Files are read again on "
        "every run."
    ]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_where_the_file_system_has_no_locks_nobody_is_waited_for(path, monkeypatch, number):
    def lockf(file, how):
        raise OSError(number, "no locks")

    told, held = [], sqlite3.connect(path)
    held.execute("BEGIN EXCLUSIVE")  # as SQLite sees it where it cannot lock
    monkeypatch.setattr("fcntl.lockf", lockf)
    monkeypatch.setattr(database, "PATIENCE", 1e6)
    memo = Database(path, told.append)
    assert memo.use(count) is None and memo.problem == "the file system has no locks for it"
    assert len(told) == 1
    held.close()


def test_a_process_that_holds_the_file_is_waited_for(path, monkeypatch):
    held = sqlite3.connect(path, check_same_thread=False)
    held.execute("BEGIN EXCLUSIVE")
    tries, real = [], sqlite3.connect

    def connect(*given, timeout):
        tries.append(timeout)
        if len(tries) == 2:
            threading.Timer(0.3, held.close).start()
        return real(*given, timeout=timeout)

    monkeypatch.setattr(sqlite3, "connect", connect)
    memo = Database(path)
    assert memo.use(count) == 2 and not memo.problem
    assert tries[0] < 1 < tries[1]


@pytest.mark.parametrize("say", [None, lambda sentence: None])
def test_a_damaged_file_is_made_anew_where_there_is_somebody_to_tell(path, say):
    path.write_bytes(b"not a database at all " * 100)
    memo = Database(path, say)
    assert memo.use(count) == (None if say is None else 1)
