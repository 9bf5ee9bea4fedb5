import contextlib
import errno
import hashlib
import os
import socket

import pytest
import torch
from conftest import picture

from pipeline.errors import PipelineError
from pipeline.images.decoding import loader, reading
from pipeline.images.decoding.crops import crops, crops_by_numpy
from pipeline.images.decoding.loader import AHEAD, load
from pipeline.images.preprocess import Preprocess

PRE = Preprocess(10, 8)


def unknown(sources, batch_size=4, **options):
    """Return batches of images of which nothing is known."""
    files = ((source, None, 0) for source in sources)
    return load(files, PRE, batch_size=batch_size, workers=2, pad=False, **options)


def run(sources, batch_size=4, **options):
    return list(unknown(sources, batch_size, **options))


def test_the_crops_of_unknown_images_are_those_of_a_planned_run_bit_for_bit(tmp_path):
    files = []
    for n in range(10):
        (tmp_path / f"{n}.png").write_bytes(picture(n))
        files.append(str(tmp_path / f"{n}.png"))
    planned = [(path, hashlib.sha256((tmp_path / path).read_bytes()).digest(), 0) for path in files]
    want = torch.cat([b.crops for b in load(planned, PRE, batch_size=4, workers=2)])
    got = run(files)
    assert torch.equal(torch.cat([b.crops for b in got]), want)  # padding included
    assert [(b.start, b.count) for b in got] == [(0, 4), (4, 4), (8, 2)]
    assert got[0].crops.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("arrays", "cut"), [(False, crops), (True, crops_by_numpy)])
def test_bad_images_and_padding_are_zeros_whatever_the_memory_held(monkeypatch, arrays, cut):
    memory = loader._empty

    def used(*args, **options):
        found = memory(*args, **options)
        found[:] = 7
        return found

    monkeypatch.setattr(loader, "_empty", used)
    first, second = picture(1), picture(2)
    files = [(first, hashlib.sha256(first).digest(), n) for n in (0, 1)]
    files += [(b"none", hashlib.sha256(b"none").digest(), n) for n in (0, 1)]
    files.append((second, hashlib.sha256(second).digest(), 0))
    (batch,) = load(files, PRE, batch_size=8, workers=2, arrays=arrays, cut=cut)
    assert list(batch.bad) == [2, 3] and batch.count == 5
    assert [bool(crop.any()) for crop in batch.crops] == [n in (0, 1, 4) for n in range(8)]


def test_few_images_are_not_padded_and_none_give_nothing():
    assert run([picture(0)])[0].crops.shape == (1, 3, 8, 8)
    assert run([]) == []


def test_what_cannot_be_read_costs_its_own_crop(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").touch()
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "half.png").write_bytes(picture(1)[:90])
    (tmp_path / "fine.png").write_bytes(picture(2))
    (tmp_path / "closed.png").write_bytes(picture(2))
    opened = os.open

    def guarded(path, *args, **kwargs):  # the tests may run as root, who may read everything
        if str(path).endswith("closed.png"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(reading.os, "open", guarded)
    names = ["nothere", "folder", "fifo", "empty", "text.png", "half.png", "closed.png", "fine.png"]
    found = run([*(str(tmp_path / name) for name in names), "nul\0", "x" * 5000], batch_size=10)
    assert found[0].bad == {
        0: "no such file",
        1: "not a regular file",
        2: "not a regular file",
        3: "empty file",
        4: "not a JPEG, PNG, WebP, GIF, BMP or TIFF file",
        5: "truncated",
        6: "no permission to read it",
        8: "not a path that this system can have",
        9: "not a path that this system can have",
    }
    assert found[0].crops[7].any() and not found[0].crops[5].any()


def test_the_machines_trouble_is_never_an_images(tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(picture(1))

    def broken(path, *args, **kwargs):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(reading.os, "open", broken)
    with pytest.raises(PipelineError, match=r"Cannot read .*x\.png: Too many open files"):
        run([str(tmp_path / "x.png")])


def test_it_reads_only_so_far_ahead_as_its_memory_allows():
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield picture(0)

    batches = unknown(endless())
    for n in range(1, 5):
        next(batches)
        assert taken <= 4 * (n + AHEAD)
    batches.close()


def replaced(path, by):
    """Put something else in the place of a file."""
    path.unlink()
    {
        "nothing": lambda: None,
        "a fifo": lambda: os.mkfifo(path),
        "a folder": path.mkdir,
        "a socket": lambda: bind(path),
        "a link in a circle": lambda: path.symlink_to(path.name),
        "another picture": lambda: path.write_bytes(picture(77)),
        "no bytes": lambda: path.write_bytes(b""),
    }[by]()


def bind(path):
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as end:
        end.bind(path.name)


@pytest.mark.parametrize(
    ("by", "reason"),
    [
        ("nothing", reading.VANISHED),
        ("a link in a circle", reading.VANISHED),
        ("a fifo", reading.REPLACED),
        ("a folder", reading.REPLACED),
        ("a socket", reading.REPLACED),
        ("another picture", reading.CHANGED),
        ("no bytes", reading.CHANGED),
    ],
)
def test_what_was_hashed_and_is_no_longer_that_is_told_by_itself(tmp_path, by, reason):
    files = []
    for n in range(3):
        path = tmp_path / f"{n}.png"
        path.write_bytes(picture(n))
        files.append((str(path), hashlib.sha256(picture(n)).digest(), 0))
    replaced(tmp_path / "1.png", by)
    (batch,) = load(files, PRE, batch_size=4, workers=2)
    assert batch.bad == {1: reason} and reason in reading.PASSING


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EIO, errno.ESTALE])
def test_an_error_of_the_system_while_a_hashed_file_is_read_is_no_bad_image(
    tmp_path, monkeypatch, number
):
    def fail(path, flags):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(reading.os, "open", fail)
    with pytest.raises(PipelineError, match=f"Cannot read .*{os.strerror(number)}.*Run the same"):
        list(load([(str(tmp_path / "x.png"), bytes(32), 0)], PRE, batch_size=1, workers=1))


def test_a_guard_is_asked_of_each_image_and_what_it_refuses_is_bad(tmp_path):
    (tmp_path / "x.png").write_bytes(picture(1))
    asked = []

    def guard(digest, data, name):
        assert hashlib.sha256(data).digest() == digest
        asked.append(name)
        return "looks bad" if name.endswith("x.png") else ""

    (batch,) = run([str(tmp_path / "x.png"), picture(2), str(tmp_path / "y.png")], guard=guard)
    assert batch.bad == {0: "looks bad", 2: "no such file"}
    assert sorted(asked) == [str(tmp_path / "x.png"), "a picture"]


def test_views_of_an_image_that_follow_each_other_are_read_once(tmp_path):
    (tmp_path / "x.png").write_bytes(picture(1))
    digest, asked = hashlib.sha256(picture(1)).digest(), []

    def guard(digest, data, name):
        asked.append(name)
        return ""

    files = [(str(tmp_path / "x.png"), digest, number) for number in (0, 1, 2)]
    (batch,) = load(files, PRE, batch_size=4, workers=2, guard=guard)
    assert len(asked) == 1 and batch.crops.shape == (4, 3, 8, 8) and batch.count == 3
    assert not torch.equal(batch.crops[0], batch.crops[1])
