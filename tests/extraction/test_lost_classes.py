"""A class of which no image could be decoded is no class, as if its files were no images."""

import numpy as np
from conftest import make_folder, picture

from pipeline.extraction.extract import extract_table
from pipeline.extraction.options import ExtractOptions
from pipeline.store.cache import Cache

RECIPE = ExtractOptions(precision="fp32")


def test_its_files_may_be_cut_short_or_no_images_and_the_table_is_the_same(
    tmp_path, cache, fake_trunk
):
    folder = make_folder(tmp_path / "photos", classes=("ants", "bees", "cats", "dogs"), each=8)
    for path in (folder / "bees").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    done = extract_table(folder, RECIPE, cache)
    table = done.table
    assert table.classes == ("ants", "cats", "dogs") and len(done.bad) == 8
    for path, label in zip(table.paths, table.labels, strict=True):
        assert path.startswith(table.classes[label])
    assert sum("No image of 'bees'" in note for note in done.notes) == 1
    assert not any("bees" in note for note in done.notes if "No image" not in note)
    for path in (folder / "bees").iterdir():
        path.write_text("text")
    other = extract_table(folder, RECIPE, Cache.at(tmp_path / "other"))
    assert other.table.table_id == table.table_id
    assert [n for n in other.notes if "bees" in n] == [n for n in done.notes if "bees" in n]
    again = extract_table(folder, RECIPE, cache)
    assert again.table.path == table.path


def test_classes_that_lose_some_images_are_counted_by_those_that_are_left(
    tmp_path, cache, fake_trunk
):
    folder = make_folder(tmp_path / "photos", each=9)
    for path in sorted((folder / "bees").iterdir())[1:]:
        path.write_bytes(path.read_bytes()[:100])
    done = extract_table(folder, RECIPE, cache)
    assert any("Only one image of 'bees'" in note for note in done.notes)
    assert any("'bees' (1 image)" in note for note in done.notes)


def test_the_views_of_what_is_left_stand_with_their_images(tmp_path, cache, fake_trunk):
    folder = make_folder(tmp_path / "photos", each=9)
    for path in (folder / "ants").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    done = extract_table(folder, ExtractOptions(precision="fp32", views=2), cache)
    assert done.table.classes == ("bees",) and set(done.table.labels.tolist()) == {0}
    assert done.table.views.shape == (len(done.table.training_rows), 2, 11)


def test_the_same_bytes_in_two_classes_are_told(tmp_path, cache, fake_trunk):
    folder = make_folder(tmp_path / "photos", each=3)
    for name in ("ants", "bees"):
        (folder / name / "same.png").write_bytes(picture(77))
    done = extract_table(folder, RECIPE, cache)
    assert any(
        "1 image stands in two classes with the same bytes, such as 'ants/same.png' and "
        "'bees/same.png'" in note
        for note in done.notes
    )
    listing = tmp_path / "list.csv"
    listing.write_text("path,label\nphotos/ants/000.png,a\nphotos/ants/same.png,a\n"
                       "photos/bees/same.png,b\nphotos/bees/000.png,b\n")  # fmt: skip
    assert any("same bytes" in note for note in extract_table(listing, RECIPE, cache).notes)


def test_features_that_are_all_the_same_are_told(tmp_path, cache, fake_trunk, monkeypatch):
    folder = make_folder(tmp_path / "photos", each=3)
    monkeypatch.setattr(
        type(fake_trunk), "run", lambda self, xs: (np.zeros((len(x), 11), np.float32) for x in xs)
    )
    done = extract_table(folder, RECIPE, cache)
    assert any(note.startswith("Every feature of every image is zero") for note in done.notes)
