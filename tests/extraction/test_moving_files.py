"""Files that vanish, or become something else, between hashing and reading."""

import csv
import os
import shutil

import pytest
from conftest import make_folder

from pipeline.errors import PipelineError
from pipeline.extraction import extract, plan
from pipeline.extraction.extract import extract_table
from pipeline.extraction.options import ExtractOptions
from pipeline.images.decoding import reading

RECIPE = ExtractOptions(precision="fp32")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "SHARD_ROWS", 4)
    return make_folder(tmp_path / "photos", each=8)


@pytest.fixture
def act(monkeypatch):
    """Do something to the files when all are hashed and none is read."""

    gather = extract.gather

    def arrange(work):
        def first(*args):
            found = gather(*args)
            work()
            return found

        monkeypatch.setattr(extract, "gather", first)

    return arrange


def test_one_file_that_vanishes_costs_its_own_row_is_told_and_never_recorded(
    folder, cache, fake_trunk, act
):
    lost = folder / "bees" / "003.png"
    data = lost.read_bytes()
    act(lost.unlink)
    done = extract_table(folder, RECIPE, cache)
    assert (done.images, done.extracted) == (16, 15)
    assert done.bad == (("bees/003.png", reading.VANISHED),)
    assert any(
        "vanished or changed while the run read them: 1 image ('bees/003.png')" in n
        and "Run the same command again" in n
        for n in done.notes
    )
    with done.listing.open() as file:
        assert ["bees/003.png", "bad image", reading.VANISHED] in list(csv.reader(file))
    act(lambda: None)
    lost.write_bytes(data)
    again = extract_table(folder, RECIPE, cache)
    assert (again.extracted, again.reused, again.bad) == (1, 15, ())


def test_a_class_that_vanishes_whole_is_no_class_and_the_run_goes_on(
    folder, cache, fake_trunk, act
):
    act(lambda: shutil.rmtree(folder / "bees"))
    done = extract_table(folder, RECIPE, cache)
    assert done.table.classes == ("ants",) and len(done.bad) == 8
    assert any("No image of 'bees'" in note for note in done.notes)
    act(lambda: None)
    again = extract_table(folder, RECIPE, cache)
    assert (again.extracted, again.reused) == (0, 8) and again.table.path == done.table.path


def test_a_disk_that_goes_away_stops_the_run_and_is_not_a_million_bad_images(
    folder, cache, fake_trunk, act
):
    act(lambda: folder.rename(folder.with_name("away")))
    with pytest.raises(PipelineError, match=r"4 images in a row vanished .*their disk still"):
        extract_table(folder, RECIPE, cache)
    folder.with_name("away").rename(folder)
    act(lambda: None)
    assert extract_table(folder, RECIPE, cache).extracted == 16


def test_a_fifo_in_the_place_of_an_image_hangs_nothing(folder, cache, fake_trunk, act):
    path = folder / "ants" / "000.png"

    def replace():
        path.unlink()
        os.mkfifo(path)

    act(replace)
    assert extract_table(folder, RECIPE, cache).bad == (("ants/000.png", reading.REPLACED),)


def test_max_bad_counts_what_vanishes(folder, cache, fake_trunk, act):
    act((folder / "ants" / "000.png").unlink)
    with pytest.raises(PipelineError, match="--max-bad allows 0"):
        extract_table(folder, ExtractOptions(precision="fp32", max_bad=0), cache)


def test_a_training_image_that_vanishes_before_its_views_are_cut_has_no_place_in_the_table(
    folder, cache, fake_trunk
):
    extract_table(folder, RECIPE, cache)
    paths = list(extract_table(folder, RECIPE, cache).table.paths)
    splits = extract_table(folder, RECIPE, cache).table.splits
    first = next(p for p, split in zip(paths, splits, strict=True) if split == "train")
    wanted = ExtractOptions(precision="fp32", views=2)
    original = extract.gather

    def gather(*args):
        found = original(*args)
        (folder / first).unlink()
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extract, "gather", gather)
        done = extract_table(folder, wanted, cache)
    assert done.bad == ((first, reading.VANISHED),) and first not in done.table.paths
    assert done.table.views.shape[0] == len(done.table.training_rows)
    again = extract_table(folder, wanted, cache)
    assert again.table.path == done.table.path and again.views_computed == 0


def test_a_folder_that_vanishes_while_the_data_set_is_listed_is_left_out(tmp_path, monkeypatch):
    from pipeline.images.datasets import folders
    from pipeline.images.datasets.scan import scan

    root = make_folder(tmp_path / "x", classes=("ants", "bees", "cats"), each=2)
    entries = folders.Walk.entries

    def racing(self, folder):
        if folder == "cats":
            shutil.rmtree(root / "cats", ignore_errors=True)
        return entries(self, folder)

    monkeypatch.setattr(folders.Walk, "entries", racing)
    found = scan(root)
    assert found.classes == ("ants", "bees")
    assert ("cats", "vanished") in found.left_out
