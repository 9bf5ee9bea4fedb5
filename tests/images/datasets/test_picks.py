import os
import shutil

import pytest
from conftest import make_folder, picture

from pipeline.errors import UsageError
from pipeline.images.datasets.picks import Picks


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "photos", each=3)


def paths(*words, lines=(), home=None):
    return [pick.path for pick in Picks([str(w) for w in words], lambda: lines, home)]


def test_a_folder_is_all_files_below_it_by_name_without_hidden_ones(folder):
    (folder / ".hidden").write_text("x")
    (folder / "ants" / "deep").mkdir()
    (folder / "ants" / "deep" / "x.png").write_bytes(picture(1))
    found = paths(folder)
    assert found == sorted(found) and len(found) == 7
    assert str(folder / "ants" / "deep" / "x.png") in found


def test_files_keep_the_order_and_the_form_in_which_they_are_named(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert paths("bees/001.png", "./ants/000.png", "bees/001.png") == [
        "bees/001.png", "./ants/000.png", "bees/001.png",
    ]  # fmt: skip


def test_a_pattern_is_what_it_fits_and_a_file_of_that_very_name_comes_first(folder):
    assert len(paths(f"{folder}/**/*.png")) == 6
    assert len(paths(f"{folder}/ants/*")) == 3
    (folder / "ants" / "0*.png").write_bytes(picture(1))
    assert paths(f"{folder}/ants/0*.png") == [f"{folder}/ants/0*.png"]


def test_a_list_is_one_path_a_line_whatever_its_bytes(folder):
    lines = [b"a b.png\n", b"na\xefve.png\r\n", b"\n", b"last.png"]
    assert paths("-", lines=lines) == ["a b.png", os.fsdecode(b"na\xefve.png"), "last.png"]
    with pytest.raises(UsageError, match="once"):
        Picks(["-", "-"], lambda: [], folder)


def test_nothing_is_read_before_it_is_asked_for():
    def endless():
        while True:
            yield b"x.png\n"

    picks = iter(Picks(["-"], endless, None))
    assert [next(picks).path for _ in range(3)] == ["x.png"] * 3


def test_a_link_to_a_folder_above_is_not_followed(folder):
    (folder / "ants" / "again").symlink_to(folder)
    (folder / "bees" / "round").symlink_to(folder / "bees" / "round")
    found = paths(folder)
    assert len([path for path in found if path.endswith(".png")]) == 6


def test_a_path_that_is_not_there_is_given_so_that_it_is_told(tmp_path):
    assert paths("nothere.png", home=tmp_path) == ["nothere.png"]


def test_what_gave_nothing_is_remembered(tmp_path):
    (tmp_path / "empty").mkdir()
    picks = Picks([f"{tmp_path}/empty", f"{tmp_path}/*.jpg", "-"], lambda: [], tmp_path)
    assert list(picks) == []
    assert picks.empty == [f"{tmp_path}/empty", f"{tmp_path}/*.jpg", "the list on standard input"]


def test_a_built_in_set_goes_by_its_name(tmp_path):
    found = paths("digits", home=tmp_path / "data")
    assert len(found) == 1797 and found[0].endswith("data/digits/0/0000.png")


def test_a_folder_that_vanishes_on_the_way_is_reported_by_itself(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"x")
    walk = iter(Picks([str(tmp_path)], tuple, tmp_path))
    first = next(walk)
    shutil.rmtree(tmp_path / "b")
    assert [pick.path for pick in (first, *walk)] == [
        str(tmp_path / "a" / "1.jpg"), str(tmp_path / "b"), str(tmp_path / "c" / "1.jpg"),
    ]  # fmt: skip
