import os

import pytest
import torch
from conftest import picture

from pipeline.errors import PipelineError
from pipeline.images import stream as module
from pipeline.images.loader import AHEAD, load
from pipeline.images.preprocess import Preprocess
from pipeline.images.stream import stream

PRE = Preprocess(10, 8)


def run(sources, batch_size=4):
    return list(stream(sources, PRE, batch_size=batch_size, workers=2))


def test_the_crops_are_those_of_extraction_bit_for_bit(tmp_path):
    import hashlib

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

    monkeypatch.setattr(module.os, "open", guarded)
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

    monkeypatch.setattr(module.os, "open", broken)
    with pytest.raises(PipelineError, match=r"Cannot read .*x\.png: Too many open files"):
        run([str(tmp_path / "x.png")])


def test_it_reads_only_so_far_ahead_as_its_memory_allows():
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield picture(0)

    batches = stream(endless(), PRE, batch_size=4, workers=2)
    for n in range(1, 5):
        next(batches)
        assert taken <= 4 * (n + AHEAD)
    batches.close()
