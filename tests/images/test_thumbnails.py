import contextlib
import hashlib
import io
import os
import socket

import numpy as np
import pytest
from conftest import picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import PipelineError
from pipeline.images.decoding import reading
from pipeline.images.decoding.formats import NOT_AN_IMAGE
from pipeline.images.decoding.pillow import TRUNCATED
from pipeline.images.thumbnails import AHEAD, CHANGED, pictures, shrink, thumbnail


def noise(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def opened(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@settings(max_examples=40)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 96))
def test_a_small_picture_fits_and_keeps_its_proportions(height, width, side):
    small = shrink(noise(height, width), side)
    h, w = small.shape[:2]
    assert small.dtype == np.uint8 and min(h, w) >= 1 and max(h, w) <= side
    if max(height, width) <= side and max(height, width) <= 8 * min(height, width):
        assert (h, w) == (height, width)
    elif max(height, width) <= 8 * min(height, width):
        assert max(h, w) == side
        assert abs(h * width - w * height) <= max(width, height)  # half a pixel of rounding


def test_of_a_strip_the_middle_is_shown():
    strip = noise(2, 1000)
    assert (shrink(strip, 16) == strip[:, 492:508]).all()


def test_a_thumbnail_is_a_picture_of_the_same_colours():
    smooth = np.zeros((200, 300, 3), np.uint8)
    smooth[:, :150] = (200, 40, 40)
    shown = opened(thumbnail(smooth, 96))
    assert shown.shape == (64, 96, 3)
    assert abs(shown[32, 10].astype(int) - (200, 40, 40)).max() < 8
    assert shown[32, 90].max() < 8


def test_a_tiny_picture_is_kept_to_the_bit():
    digit = noise(8, 8)
    assert (opened(thumbnail(digit, 96)) == digit).all()


def test_a_photo_takes_a_few_kilobytes():
    ramp = np.add.outer(np.arange(400), np.arange(500)) % 256
    photo = np.stack([ramp, ramp.T[:400, :400].repeat(2, 1)[:, :500], ramp], axis=-1)
    assert len(thumbnail(photo.astype(np.uint8), 96)) < 6000


@pytest.fixture
def files(tmp_path):
    """Eight pictures with their digests."""
    found = []
    for n in range(8):
        path, data = tmp_path / f"{n}.png", picture(n, size=(40, 30))
        path.write_bytes(data)
        found.append((str(path), hashlib.sha256(data).digest()))
    return found


def test_pictures_come_in_order_whatever_the_threads(files):
    one = [found.rgb for found in pictures(files, side=20, workers=1)]
    many = [found.rgb for found in pictures(files, side=20, workers=5)]
    assert len(one) == 8 and all((a == b).all() for a, b in zip(one, many, strict=True))
    assert all(rgb.shape == (15, 20, 3) for rgb in one)
    assert not (one[0] == one[1]).all()


def test_what_cannot_be_shown_has_a_reason_and_costs_no_other(files, tmp_path):
    (path, digest), rest = files[0], files[1:]
    broken = tmp_path / "broken.png"
    broken.write_bytes(picture(9)[:200])
    text = tmp_path / "text.jpg"
    text.write_text("not a picture")
    odd = [
        (str(tmp_path / "gone.png"), None),
        (str(broken), None),
        (str(text), None),
        (str(tmp_path), None),
        (files[2][0], digest),
        ("a\0b", None),
    ]
    found = list(pictures([*odd, (path, digest), *rest], side=20, workers=3))
    assert [one.reason for one in found[:6]] == [
        reading.ABSENT, TRUNCATED, NOT_AN_IMAGE, "not a regular file", CHANGED, reading.NOT_A_PATH,
    ]  # fmt: skip
    assert all(one.rgb is None for one in found[:6])
    assert all(one.rgb is not None and not one.reason for one in found[6:])


def test_a_changed_file_is_not_shown_as_if_it_were_the_old_one(files):
    path, digest = files[0]
    with open(path, "wb") as file:
        file.write(picture(99))
    (found,) = pictures([(path, digest)], side=20, workers=1)
    assert found.rgb is None and found.reason == CHANGED


def test_only_a_bounded_number_of_files_is_ahead(files):
    asked = []

    def endless():
        while True:
            asked.append(1)
            yield files[0]

    stream_of = pictures(endless(), side=20, workers=2)
    for _ in range(3):
        next(stream_of)
    stream_of.close()
    assert len(asked) <= 2 * AHEAD + 3


def test_trouble_of_the_machine_is_no_bad_image(files, monkeypatch):
    def full(path):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(reading, "read_unknown", full)
    with pytest.raises(PipelineError, match=r"Cannot show .*0\.png: Too many open files\."):
        list(pictures(files, side=20, workers=1))


def test_a_fifo_a_socket_or_a_folder_in_the_place_of_a_file_is_a_reason_and_no_hang(tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    with contextlib.chdir(tmp_path), socket.socket(socket.AF_UNIX) as end:
        end.bind("socket.png")
    (tmp_path / "folder.png").mkdir()
    names = ("fifo.png", "socket.png", "folder.png", "none.png")
    shown = pictures([(str(tmp_path / name), bytes(32)) for name in names], side=8, workers=2)
    assert [one.reason for one in shown] == [*["not a regular file"] * 3, "no such file"]
