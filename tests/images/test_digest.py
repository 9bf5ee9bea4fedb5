import builtins
import errno
import hashlib
import os
import threading
import time

import pytest

from pipeline.errors import PipelineError
from pipeline.images import digest
from pipeline.images.digest import FileId, StatMemo, digest_all

PNG = b"\x89PNG\r\n\x1a\n"


def later():
    """Return the time as it will be when nothing that was just written is racy any more."""
    return time.time_ns() + 10 * digest.RACY_NS


@pytest.fixture
def opened(monkeypatch):
    """Return a list that grows by every file that is opened for hashing."""
    files, real = [], os.open

    def record(path, flags, *args, **options):
        files.append(os.path.basename(os.fsdecode(path)))
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", record)
    return files


def test_each_file_has_the_sha256_of_its_bytes_and_its_format(make):
    root = make("a.png", "big.png", content=PNG + b"x" * 3_000_000)
    make("b.jpg", content=b"\xff\xd8\xff\xe0")
    found = digest_all(root, ["b.jpg", "big.png"], None)
    assert found == [
        FileId(hashlib.sha256(b"\xff\xd8\xff\xe0").digest(), "jpeg"),
        FileId(hashlib.sha256(PNG + b"x" * 3_000_000).digest(), "png"),
    ]


def test_what_is_no_image_has_a_reason_and_no_digest(make, tmp_path, monkeypatch):
    root = make("text.jpg", "big.png", "here.png", content=PNG)
    make("text.jpg", content=b"not a picture")
    make("empty.jpg", content=b"")
    os.mkfifo(root / "fifo")
    monkeypatch.setattr(digest, "MAX_BYTES", 100)
    make("big.png", content=PNG + bytes(100))
    names = ["text.jpg", "empty.jpg", "gone.jpg", "here.png/x", "fifo", "big.png", "a\0b"]
    assert digest_all(root, names, None) == [
        FileId(None, "", "not a JPEG, PNG, WebP, GIF, BMP or TIFF file"),
        FileId(None, "", "empty file"),
        FileId(None, "", "vanished"),
        FileId(None, "", "vanished"),
        FileId(None, "", "not a regular file"),
        FileId(None, "", "a file of more than 1 GiB"),
        FileId(None, "", "vanished"),
    ]


def test_of_what_is_no_image_only_the_start_is_read(make, monkeypatch):
    root = make("video.mp4", content=b"\0" * 5_000_000)
    sizes, real = [], os.read
    monkeypatch.setattr(os, "read", lambda fd, size: sizes.append(size) or real(fd, size))
    digest_all(root, ["video.mp4"], None)
    assert len(sizes) == 1


@pytest.mark.parametrize("place", [None, "memo.sqlite"])
def test_a_file_that_is_known_unchanged_is_not_opened(make, tmp_path, opened, place):
    root = make("a.png", "b.png", content=PNG)
    make("text")
    memo = StatMemo(place and tmp_path / place)
    first = digest_all(root, ["a.png", "b.png", "text"], memo, clock=later)
    assert sorted(opened) == ["a.png", "b.png", "text"]
    opened.clear()
    assert digest_all(root, ["a.png", "b.png", "text"], memo) == first
    assert opened == []
    assert digest_all(root, ["a.png", "b.png", "text"], memo, rehash=True) == first
    assert sorted(opened) == ["a.png", "b.png", "text"]


def test_a_change_that_keeps_size_and_time_is_noticed(make, tmp_path):
    root = make("a.png", content=PNG + b"1")
    memo = StatMemo(tmp_path / "memo.sqlite")
    [before] = digest_all(root, ["a.png"], memo, clock=later)
    status = os.stat(root / "a.png")
    (root / "a.png").write_bytes(PNG + b"2")
    os.utime(root / "a.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert os.stat(root / "a.png").st_mtime_ns == status.st_mtime_ns
    [after] = digest_all(root, ["a.png"], memo, clock=later)
    assert after.digest == hashlib.sha256(PNG + b"2").digest() != before.digest


def test_another_file_in_the_same_place_is_noticed(make, tmp_path):
    root = make("a.png", content=PNG + b"1")
    make("b.png", content=PNG + b"2")
    memo = StatMemo(tmp_path / "memo.sqlite")
    digest_all(root, ["a.png"], memo, clock=later)
    status = os.stat(root / "a.png")
    os.utime(root / "b.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.rename(root / "b.png", root / "a.png")
    [after] = digest_all(root, ["a.png"], memo)
    assert after.digest == hashlib.sha256(PNG + b"2").digest()


def test_a_file_that_just_changed_is_not_trusted_the_next_time(make, tmp_path, opened):
    root = make("a.png", content=PNG)
    memo = StatMemo(tmp_path / "memo.sqlite")
    digest_all(root, ["a.png"], memo)
    digest_all(root, ["a.png"], memo, clock=later)
    digest_all(root, ["a.png"], memo)
    assert opened == ["a.png", "a.png"]


def test_a_time_in_the_future_does_not_keep_a_file_from_being_remembered(make, opened):
    root = make("a.png", content=PNG)
    os.utime(root / "a.png", (2e9 * 2, 2e9 * 2))
    memo = StatMemo(None)
    for _ in range(2):
        digest_all(root, ["a.png"], memo, clock=later)
    assert opened == ["a.png"]


def test_a_name_that_is_not_utf8_is_remembered(make, tmp_path, opened):
    name = os.fsdecode(b"\xff.png")
    root = make(name, content=PNG)
    for _ in range(2):
        digest_all(root, [name], StatMemo(tmp_path / "memo.sqlite"), clock=later)
    assert len(opened) == 1


def test_progress_counts_every_file_up_to_all(make):
    root = make("1", "2", "3", content=PNG)
    memo = StatMemo(None)
    digest_all(root, ["1"], memo, clock=later)
    told = []
    digest_all(root, ["1", "2", "3"], memo, progress=told.append)
    assert told == [1, 1, 1]


def test_files_are_read_by_as_many_threads_as_asked(make, monkeypatch):
    root = make(*(str(n) for n in range(4)), content=PNG)
    barrier = threading.Barrier(4, timeout=20)
    real = digest._hash
    monkeypatch.setattr(digest, "_hash", lambda *given: (barrier.wait(), real(*given))[1])
    assert len(digest_all(root, [str(n) for n in range(4)], None, threads=4)) == 4


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM])
@pytest.mark.parametrize("call", ["open", "read", "stat"])
def test_trouble_of_the_system_is_an_error_and_no_bad_image(make, monkeypatch, number, call):
    root = make("a.png", content=PNG)
    real = getattr(os, call)

    def fail(first, *args, **options):
        if call == "read" or os.fsdecode(first).endswith("a.png"):
            raise OSError(number, os.strerror(number))
        return real(first, *args, **options)

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(PipelineError) as caught:
        digest_all(root, ["a.png"], None)
    monkeypatch.undo()
    assert str(caught.value) == (
        f"Cannot read {root}/a.png: {os.strerror(number)}. This is a system error; the file "
        "may be intact. Run the same command again once it is solved."
    )


def test_files_without_permission_are_told_together(make, monkeypatch):
    root = make("a.png", "b.png", "c.png", content=PNG)
    real = os.open

    def refuse(path, *args, **options):
        if os.fsdecode(path).endswith(("a.png", "c.png")):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PipelineError) as caught:
        digest_all(root, ["a.png", "b.png", "c.png"], None)
    assert str(caught.value) == (
        f"No permission to read 2 files of {root}: '{root}/a.png' and '{root}/c.png'. Allow "
        "reading (chmod u+r), or move them elsewhere."
    )


def test_a_file_that_vanishes_before_it_is_read_is_left_out(make, monkeypatch):
    root = make("a.png", "b.png", content=PNG)
    real = os.open

    def remove(path, *args, **options):
        if os.fsdecode(path).endswith("a.png"):
            os.unlink(path)
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", remove)
    assert [found.reason for found in digest_all(root, ["a.png", "b.png"], None)] == [
        "vanished",
        "",
    ]


def test_a_fifo_that_takes_a_files_place_does_not_hang(make, monkeypatch):
    root = make("a.png", content=PNG)
    real = os.open

    def swap(path, *args, **options):
        os.unlink(path)
        os.mkfifo(path)
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", swap)
    assert digest_all(root, ["a.png"], None) == [FileId(None, "", "not a regular file")]


def test_a_file_that_changes_while_it_is_read_is_read_again(make, monkeypatch):
    root = make("a.png", content=PNG + b"1")
    real, times = digest._hash, []

    def change(*given):
        found = real(*given)
        if not times:
            (root / "a.png").write_bytes(PNG + b"22")
        times.append(1)
        return found

    monkeypatch.setattr(digest, "_hash", change)
    [found] = digest_all(root, ["a.png"], None)
    assert found.digest == hashlib.sha256(PNG + b"22").digest()


def test_a_file_that_never_stops_changing_is_named(make, monkeypatch):
    root = make("a.png", content=PNG)
    real = digest._hash

    def grow(*given):
        with builtins.open(root / "a.png", "ab") as file:
            file.write(b"more")
        return real(*given)

    monkeypatch.setattr(digest, "_hash", grow)
    with pytest.raises(PipelineError, match=r"a\.png is being written to: it changed each time"):
        digest_all(root, ["a.png"], None)


def test_what_was_hashed_before_an_interruption_is_remembered(make, monkeypatch, opened):
    names = [str(n) for n in range(9)]
    root = make(*names, content=PNG)
    memo = StatMemo(None)
    monkeypatch.setattr(digest, "_WINDOW", 3)

    done = []

    def stop(count):
        done.append(count)
        if sum(done) == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        digest_all(root, names, memo, progress=stop, clock=later)
    opened.clear()
    digest_all(root, names, memo, clock=later)
    assert sorted(opened) == ["6", "7", "8"]


def test_the_file_system_is_asked_of_many_files_at_once_and_answers_keep_their_places(
    make, monkeypatch
):
    monkeypatch.setattr(digest, "_TOGETHER", 1)
    names = [f"{number}.png" for number in range(4)]
    for number, name in enumerate(names):
        root = make(name, content=PNG + bytes([number]))
    together, real = threading.Barrier(4, timeout=60), os.stat

    def stat(path, *args, **options):
        if isinstance(path, bytes):
            together.wait()  # one after the other, the first would wait in vain
        return real(path, *args, **options)

    monkeypatch.setattr(os, "stat", stat)
    found = digest_all(root, names, None)
    assert [one.digest for one in found] == [
        hashlib.sha256(PNG + bytes([number])).digest() for number in range(4)
    ]
