"""What is told of images that are much smaller than the trunk's input."""

import numpy as np
import pytest
from PIL import Image

from pipeline.extraction import notes as module
from pipeline.extraction.extract import extract_table
from pipeline.extraction.notes import small_notes
from pipeline.extraction.options import ExtractOptions
from pipeline.images.decoding.crops import crops
from pipeline.images.preprocess import Preprocess
from pipeline.store.cache import Cache

USUAL = Preprocess(256, 224)


@pytest.fixture
def folder(tmp_path):
    """Return pictures of two classes, 100 pixels high, and one of a thousand."""
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1200, 3), np.uint8)
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for n in range(6):
            part = Image.fromarray(noise[n : n + 100, :130])
            part.save(tmp_path / "photos" / name / f"{n}{name}.png", compress_level=n)
    Image.fromarray(noise).save(tmp_path / "photos/a/large.jpg")
    return tmp_path / "photos"


def test_the_median_size_is_told_with_what_a_smaller_input_would_cost():
    (note,) = small_notes([100, 90, 3000], USUAL)
    assert "median short side is 100 pixels, enlarged to 256" in note
    assert "--image-size 96 the trunk would take about 18% of its time" in note
    assert "--image-size 160 " in small_notes([170], USUAL)[0]
    assert "--image-size 96 " in small_notes([8], USUAL)[0]


@pytest.mark.parametrize(
    ("sides", "preprocess"),
    [([], USUAL), ([171], USUAL), ([100, 500, 500], USUAL), ([8], Preprocess(109, 96))],
)
def test_nothing_is_told_where_nothing_is_saved_or_known(sides, preprocess):
    assert small_notes(sides, preprocess) == ()


def test_extract_tells_it_once_and_not_where_nothing_was_decoded(tmp_path, fake_trunk, monkeypatch):
    monkeypatch.setattr(module, "_STRIDE", 1)  # for the input of 8 pixels, resized to 10
    monkeypatch.setattr(module, "_LEAST", 1)
    cache, root = Cache.at(tmp_path / "cache"), tmp_path / "tiny"
    for n in range(6):
        (root / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 4), (n, n, n)).save(root / "ab"[n % 2] / f"{n}.png")

    def told(**more):
        notes = extract_table(root, ExtractOptions(precision="fp32", **more), cache).notes
        return [note for note in notes if note.startswith("Small images")]

    (note,) = told()
    assert "median short side is 4 pixels, enlarged to 10. With --image-size 4 the" in note
    assert told() == []  # warm
    assert told(image_size=4) == []
    assert len(told(image_size=6)) == 1  # an input of its own, decoded again


def test_the_side_is_that_of_the_file_however_small_it_was_decoded(folder):
    data = (folder / "a/large.jpg").read_bytes()
    for size in (16, 224):
        assert crops(data, Preprocess(size, size), bytes(32), [0]).side == 1000
    assert crops((folder / "a/0a.png").read_bytes(), USUAL, bytes(32), [0, 1]).side == 100
