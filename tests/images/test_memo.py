import os
import sqlite3
import subprocess
import sys

import pytest

from pipeline.images.memo import Known, StatMemo

FILES = {
    f"/a/{n}".encode() + b"\xff": Known(f"{n} 1 2 3", bytes([n % 256]) * 32, "png")
    for n in range(2500)
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "memo.sqlite"


def test_what_is_put_is_found_and_nothing_else(path):
    StatMemo(path).put_files(FILES)
    assert StatMemo(path).get_files([*FILES, b"/other"]) == FILES
    assert StatMemo(path).get_files([]) == {}


def test_a_file_that_changed_is_known_anew(path):
    memo = StatMemo(path)
    memo.put_files({b"/a": Known("1", b"x" * 32, "png")})
    memo.put_files({b"/a": Known("2", b"", "")})
    assert memo.get_files([b"/a"]) == {b"/a": Known("2", b"", "")}


@pytest.mark.parametrize("damage", ["text", "torn", "header", "empty"])
def test_a_damaged_file_is_made_anew(path, damage):
    StatMemo(path).put_files(FILES)
    content = bytearray(path.read_bytes())
    if damage == "text":
        content = b"not a database at all, but long enough to be taken for one" * 30
    elif damage == "torn":
        content = content[: len(content) // 2 + 7]
    elif damage == "header":
        content[100:3000] = bytes(2900)
    else:
        content = b""
    path.write_bytes(content)
    memo = StatMemo(path)
    assert memo.get_files(list(FILES)).items() <= FILES.items()
    memo.put_files(FILES)
    assert memo.get_files(list(FILES)) == FILES


def test_a_flipped_bit_is_never_read_as_a_digest(path):
    StatMemo(path).put_files(FILES)
    content = bytearray(path.read_bytes())
    at = content.index(b"\x07" * 32)
    content[at + 5] ^= 1
    path.write_bytes(content)
    found = StatMemo(path).get_files(list(FILES))
    assert found.items() <= FILES.items()
    assert len(found) == len(FILES) - 1


def test_rows_of_the_wrong_kind_are_not_read(path):
    memo = StatMemo(path)
    memo.put_files({b"/a": Known("1", b"x" * 32, "png")})
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE files_2 SET digest = 5")
    assert memo.get_files([b"/a"]) == {}


def test_other_tables_in_the_file_are_left_alone(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE other (x)")
        connection.execute("INSERT INTO other VALUES (5)")
    StatMemo(path).put_files(FILES)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT x FROM other").fetchall() == [(5,)]


def test_where_nothing_can_be_written_nothing_is_remembered_and_the_reason_is_kept(tmp_path):
    memo = StatMemo(tmp_path / "no such folder" / "memo.sqlite")
    memo.put_files(FILES)
    assert memo.get_files(list(FILES)) == {}
    assert memo.problem == "unable to open database file"


def test_a_memo_that_is_damaged_or_cannot_be_used_is_told_once(path, tmp_path, monkeypatch):
    told = []
    path.write_bytes(b"not a database " * 100)
    memo = StatMemo(path, told.append)
    assert memo.get_files([b"/a"]) == {} and not memo.problem
    assert told == [
        f"The memo {path} was damaged (file is not a database) and is made anew: files are read "
        "again."
    ]
    StatMemo(tmp_path / "no cache yet" / "memo.sqlite", told.append).put_files(FILES)
    assert len(told) == 1


def test_a_locked_file_is_given_up_and_not_removed(path, monkeypatch):
    monkeypatch.setattr("pipeline.database.PATIENCE", 0.01)
    StatMemo(path).put_files(FILES)
    with sqlite3.connect(path) as other:
        other.execute("BEGIN EXCLUSIVE")
        memo = StatMemo(path)
        assert memo.get_files(list(FILES)) == {}
        assert memo.problem == "database is locked"
    assert StatMemo(path).get_files(list(FILES)) == FILES


def test_a_damaged_file_that_cannot_be_removed_is_given_up(path, monkeypatch):
    path.write_bytes(b"damaged " * 1000)

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "unlink", refuse)
    memo = StatMemo(path)
    assert memo.get_files([b"/a"]) == {}
    assert "Permission denied" in memo.problem


def test_two_processes_at_once_lose_nothing(path):
    code = """
import sys
from pathlib import Path
from pipeline.images.memo import Known, StatMemo
memo = StatMemo(Path(sys.argv[1]))
for n in range(60):
    memo.put_files({f"{sys.argv[2]}{n}".encode(): Known("s", b"d" * 32, "png")})
assert not memo.problem, memo.problem
"""
    runs = [subprocess.Popen([sys.executable, "-c", code, path, who]) for who in "ab"]
    assert [run.wait(60) for run in runs] == [0, 0]
    names = [f"{who}{n}".encode() for who in "ab" for n in range(60)]
    assert len(StatMemo(path).get_files(names)) == 120
