import errno
import os
import stat
from types import SimpleNamespace

import pytest

from pipeline.errors import PipelineError
from pipeline.store import atomic
from pipeline.store.atomic import commit_folder, exchange, write_bytes


def writer(text):
    def write(into):
        (into / "a.txt").write_text(text)

    return write


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_stands_under_its_name_with_what_was_written(tmp_path):
    commit_folder(tmp_path / "heads" / "x", writer("one"), what="the head")
    assert names(tmp_path / "heads") == ["x"]
    assert (tmp_path / "heads" / "x" / "a.txt").read_text() == "one"


def test_a_second_commit_takes_the_place_of_the_first_whole(tmp_path):
    def more(into):
        (into / "b.txt").write_text("two")

    commit_folder(tmp_path / "x", writer("one"), what="the head")
    commit_folder(tmp_path / "x", more, what="the head")
    assert names(tmp_path) == ["x"] and names(tmp_path / "x") == ["b.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, PipelineError])
@pytest.mark.parametrize("earlier", [False, True])
def test_writing_that_is_interrupted_leaves_what_was_there_and_nothing_else(
    tmp_path, error, earlier
):
    def stop(into):
        (into / "a.txt").write_text("half")
        raise error

    if earlier:
        commit_folder(tmp_path / "x", writer("one"), what="the head")
    with pytest.raises(error):
        commit_folder(tmp_path / "x", stop, what="the head")
    assert names(tmp_path) == (["x"] if earlier else [])
    if earlier:
        assert (tmp_path / "x" / "a.txt").read_text() == "one"


def test_a_full_disk_is_told_with_the_folder_and_the_reason(tmp_path):
    def full(into):
        (into / "a.txt").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(PipelineError, match=r"Cannot write the head .*x: No space left on device"):
        commit_folder(tmp_path / "x", full, what="the head")
    assert names(tmp_path) == []


def test_where_names_can_be_exchanged_the_earlier_folder_is_never_gone(tmp_path, monkeypatch):
    commit_folder(tmp_path / "x", writer("one"), what="the head")
    if not exchange(tmp_path / "x", tmp_path / "x"):
        pytest.skip("this file system cannot exchange two names")
    monkeypatch.setattr(atomic.os, "rename", lambda *names: pytest.fail("renamed"))
    commit_folder(tmp_path / "x", writer("two"), what="the head")
    assert names(tmp_path) == ["x"] and (tmp_path / "x" / "a.txt").read_text() == "two"


def test_an_exchange_that_fails_leaves_the_earlier_folder(tmp_path, monkeypatch):
    def fail(one, other):
        raise OSError(5, "Input/output error")

    commit_folder(tmp_path / "x", writer("one"), what="the head")
    monkeypatch.setattr(atomic, "exchange", fail)
    with pytest.raises(PipelineError, match="Input/output error"):
        commit_folder(tmp_path / "x", writer("two"), what="the head")
    assert names(tmp_path) == ["x"] and (tmp_path / "x" / "a.txt").read_text() == "one"
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "x", tmp_path / "y")


def test_without_an_exchange_a_second_commit_takes_the_place_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "exchange", lambda one, other: False)
    commit_folder(tmp_path / "x", writer("one"), what="the head")
    commit_folder(tmp_path / "x", writer("two"), what="the head")
    assert names(tmp_path) == ["x"] and (tmp_path / "x" / "a.txt").read_text() == "two"


@pytest.mark.parametrize(
    "number", [errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV]
)
def test_an_exchange_that_the_system_does_not_know_is_done_without(tmp_path, monkeypatch, number):
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: SimpleNamespace(renameat2=lambda *_: -1))
    monkeypatch.setattr("ctypes.get_errno", lambda: number)
    commit_folder(tmp_path / "x", writer("one"), what="the head")
    commit_folder(tmp_path / "x", writer("two"), what="the head")
    assert names(tmp_path) == ["x"] and (tmp_path / "x" / "a.txt").read_text() == "two"


def test_a_folder_of_a_containers_image_which_cannot_be_renamed_is_replaced(tmp_path, monkeypatch):
    commit_folder(tmp_path / "x", writer("one"), what="the head")
    real = os.rename

    def rename(source, target):
        if source == tmp_path / "x":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(atomic, "exchange", lambda one, other: False)
    monkeypatch.setattr(atomic.os, "rename", rename)
    commit_folder(tmp_path / "x", writer("two"), what="the head")
    assert names(tmp_path) == ["x"] and (tmp_path / "x" / "a.txt").read_text() == "two"


def syncing(monkeypatch, number, *, folders):
    """Let the fsync of folders, or of files, answer with an error."""
    real = os.fsync

    def fsync(file):
        if stat.S_ISDIR(os.fstat(file).st_mode) == folders:
            raise OSError(number, os.strerror(number))
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)


UNKNOWN = [errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF]


@pytest.mark.parametrize("number", UNKNOWN)
def test_a_file_system_that_syncs_no_folders_is_good_enough(tmp_path, monkeypatch, number):
    syncing(monkeypatch, number, folders=True)
    commit_folder(tmp_path / "new" / "x", writer("one"), what="the head")
    write_bytes(tmp_path / "more" / "file", b"1", what="the table")
    assert (tmp_path / "new" / "x" / "a.txt").read_text() == "one"
    assert (tmp_path / "more" / "file").read_bytes() == b"1"


@pytest.mark.parametrize("folders", [True, False])
def test_a_disk_that_fails_to_sync_is_told(tmp_path, monkeypatch, folders):
    syncing(monkeypatch, errno.EIO, folders=folders)
    with pytest.raises(PipelineError, match="Input/output error"):
        commit_folder(tmp_path / "x", writer("one"), what="the head")
    with pytest.raises(PipelineError, match="Input/output error"):
        write_bytes(tmp_path / "file", b"1", what="the table")


@pytest.mark.parametrize("number", UNKNOWN)
def test_the_sync_of_a_file_itself_is_never_passed_over(tmp_path, monkeypatch, number):
    syncing(monkeypatch, number, folders=False)
    with pytest.raises(PipelineError, match="Cannot write the head"):
        commit_folder(tmp_path / "x", writer("one"), what="the head")
    with pytest.raises(PipelineError, match="Cannot write the table"):
        write_bytes(tmp_path / "file", b"1", what="the table")
    assert names(tmp_path) == []


def test_a_rename_that_fails_puts_the_earlier_folder_back(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "exchange", lambda one, other: False)
    commit_folder(tmp_path / "x", writer("one"), what="the head")
    real, calls = os.rename, []

    def rename(source, target):
        calls.append(source)
        if len(calls) == 2:  # the new folder into place
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr(atomic.os, "rename", rename)
    with pytest.raises(PipelineError, match="Input/output error"):
        commit_folder(tmp_path / "x", writer("two"), what="the head")
    assert names(tmp_path) == ["x"] and (tmp_path / "x" / "a.txt").read_text() == "one"


def test_while_it_is_written_it_has_a_name_that_is_passed_over(tmp_path):
    seen = []

    def look(into):
        seen.append(into.name)
        assert not (tmp_path / "x").exists()

    commit_folder(tmp_path / "x", look, what="the head")
    assert seen[0].startswith(".")
