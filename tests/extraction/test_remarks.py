"""What decoding converts, assumes or passes over, and what is not read, reaches the person."""

import csv
import io

import numpy as np
import pytest
from conftest import make_folder
from PIL import Image

import pipeline
from pipeline.errors import PipelineError
from pipeline.extraction.extract import extract_table
from pipeline.extraction.options import ExtractOptions
from pipeline.images.decoding import formats
from pipeline.images.decoding.colour import matrix_profile
from pipeline.images.remarks import Remarks
from pipeline.store.cache import Cache

RECIPE = ExtractOptions(precision="fp32")
WIDE = matrix_profile(((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), (0.3127, 0.3290), 1.8)
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.fixture
def cache(tmp_path):
    return Cache.at(tmp_path / "cache")


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "photos")


@pytest.fixture
def without_heic(monkeypatch):
    monkeypatch.setattr(formats, "_has", lambda module: module != "pillow_heif")


def saved(path, kind, samples=None, **options):
    noise = np.random.default_rng(len(str(path))).integers(0, 256, (40, 48, 3)).astype(np.uint8)
    image = Image.fromarray(noise if samples is None else samples)
    image.save(path, kind, **options)


@pytest.fixture
def odd(folder):
    saved(folder / "ants/a.jpg", "JPEG", icc_profile=WIDE)
    saved(folder / "ants/b.png", "PNG", icc_profile=WIDE)
    saved(folder / "ants/c.png", "PNG", icc_profile=b"broken")
    dark = np.full((30, 30), 4000, np.uint16)
    saved(folder / "bees/d.png", "PNG", dark)
    saved(folder / "bees/e.tif", "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    return folder


def test_remarks_are_counted_on_the_screen_and_listed_beside_the_table(odd, cache, fake_trunk):
    done = extract_table(odd, RECIPE, cache)
    assert [
        note for note in done.notes if note.startswith(("Conv", "Col", "Dark", "Only the"))
    ] == [
        "Converted to sRGB: 2 images, such as 'ants/a.jpg' (without a name).",
        "Colour profile ignored: 1 image, 'ants/c.png' (damaged).",
        "Dark 16-bit samples, taken as they are: 1 image, 'bees/d.png' (largest 4,000 of 65,535).",
        "Only the first page read: 1 image, 'bees/e.tif' (2 pages).",
    ]
    with done.listing.open() as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    assert rows[0] == ("ants/a.jpg", "taken", "Converted to sRGB (without a name)")
    assert [row[0] for row in rows] == [path for path, _ in done.remarks] and len(rows) == 5
    assert done.to_json()["remarks"][-1] == {
        "path": "bees/e.tif", "remark": "Only the first page read (2 pages)",
    }  # fmt: skip


def test_a_warm_run_says_the_same_and_keeps_the_list(odd, cache, fake_trunk):
    first = extract_table(odd, RECIPE, cache)
    content = first.listing.read_bytes()
    second = extract_table(odd, RECIPE, Cache.at(cache.root))
    assert second.extracted == 0 and second.remarks == first.remarks
    assert set(first.notes) <= set(second.notes) and second.listing.read_bytes() == content


def test_the_transformer_warns(odd, cache, fake_trunk):
    features = pipeline.TrunkFeatures(precision="fp32", cache=cache.root)
    with pytest.warns(UserWarning, match=r"Dark 16-bit samples, taken as they are: 1 image"):
        features.fit_transform([str(odd / "bees/d.png")])


def test_kinds_that_are_not_read_are_named_with_a_way(folder, cache, fake_trunk, without_heic):
    for n in range(9):
        (folder / f"ants/IMG_{n}.heic").write_bytes(HEIC + bytes([n]))
    (folder / "bees/called.jpg").write_bytes(HEIC)
    (folder / "bees/x.pdf").write_bytes(b"%PDF-1.7")
    done = extract_table(folder, RECIPE, cache)
    heic, pdf = (note for note in done.notes if "left out" in note)
    assert heic.startswith(
        "10 HEIC files were left out ('ants/IMG_0.heic' and 'ants/IMG_1.heic', …): "
        "`pip install pillow-heif` (the extra `formats`)"
    )
    assert pdf.startswith("1 PDF file was left out ('bees/x.pdf'): make a picture of each page")
    assert done.bad == (("bees/called.jpg", "HEIC, which is not read"),)
    assert ("ants/IMG_0.heic", "HEIC, which is not read") in done.left_out


def test_a_loud_line_where_more_is_left_out_than_taken(folder, cache, fake_trunk, without_heic):
    for n in range(20):
        (folder / f"ants/IMG_{n:02}.heic").write_bytes(HEIC + bytes([n]))
    assert not any("WARNING" in note for note in extract_table(folder, RECIPE, cache).notes)
    (folder / "bees/one more.heic").write_bytes(HEIC)
    done = extract_table(folder, RECIPE, cache)
    assert done.notes[0] == (
        "WARNING: MORE FILES IN CLASS FOLDERS WERE LEFT OUT THAN TAKEN: 21 of 41 files."
    )


def test_where_nothing_is_read_the_error_says_what_it_is_and_how(tmp_path, cache, without_heic):
    (tmp_path / "d/a").mkdir(parents=True)
    (tmp_path / "d/a/x.heic").write_bytes(HEIC)
    with pytest.raises(PipelineError, match=r"holds no images.*1 HEIC file was left out.*formats"):
        extract_table(tmp_path / "d", RECIPE, cache)
    with pytest.raises(PipelineError, match=r"x\.heic: HEIC, which is not read \(`pip install"):
        pipeline.TrunkFeatures(cache=cache.root).fit([str(tmp_path / "d/a/x.heic")])


def test_a_kind_that_can_be_read_meanwhile_is_looked_at_again(
    folder, cache, fake_trunk, monkeypatch
):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), "teal").save(buffer, "PNG")
    (folder / "ants/new.avif").write_bytes(buffer.getvalue())  # PNG under a name of AVIF
    monkeypatch.setattr(formats, "sniff", lambda head, name="": "png")
    from pipeline.images import digest

    monkeypatch.setattr(digest, "sniff", lambda head, name="": "avif" if "avif" in name else "png")
    monkeypatch.setattr(digest, "RACY_NS", 0)
    monkeypatch.setattr(formats, "_has", lambda module: False)
    assert len(extract_table(folder, RECIPE, cache).left_out) == 1
    monkeypatch.setattr(formats, "_has", lambda module: True)
    done = extract_table(folder, RECIPE, cache)
    assert (done.images, done.left_out) == (21, ())


def test_remarks_are_counted_by_kind_with_the_first_image():
    given = [("a", "Kind (first)"), ("b", "Other (x)"), ("c", "Kind (second)")]
    assert Remarks(given).notes == [
        "Kind: 2 images, such as 'a' (first).",
        "Other: 1 image, 'b' (x).",
    ]
