import os
import shutil

import numpy as np
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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_from_windows_or_another_disk_names_the_same_files(folder, monkeypatch, encoding):
    monkeypatch.chdir(folder)
    (folder / "é.png").write_bytes(picture(1))
    lines = [r"ants\001.png", r"ants\002.png", "e\u0301.png", r"no\x.png"]
    picks = Picks(["-"], lambda: "\n".join(lines).encode(encoding).splitlines(True), None)
    assert [pick.path for pick in picks] == ["ants/001.png", "ants/002.png", "é.png", lines[-1]]
    assert picks.notes == [
        f"Found, though written with backslashes: 2 paths ('{lines[0]}' is ants/001.png).",
        "Found, though written in another Unicode form (NFC or NFD): 1 path ('e\u0301.png' is "
        "é.png).",
    ]


def test_a_name_in_another_encoding_is_found_where_the_file_is_there(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "Käfer.png").write_bytes(picture(1))
    picks = Picks(["-"], lambda: [b"K\xe4fer.png\n", b"ants/000.png\n"], None)
    assert [pick.path for pick in picks] == ["Käfer.png", "ants/000.png"]
    assert picks.notes[0].startswith("Found, though written in cp1252: 1 path ('K")


def test_pictures_in_memory_are_named_by_their_place(folder):
    shown = np.zeros((4, 5, 3), np.uint8)
    picks = Picks([f"{folder}/ants", shown, picture(1)], tuple, None)
    *_, second, third = picks
    assert (second.path, third.path) == ("picture 1", "picture 2")
    assert third.source == picture(1) and second.source.startswith(b"\x89PNG")
    with pytest.raises(UsageError, match=r"not float64 \[2, 2\]"):
        Picks(["a.png", np.zeros((2, 2))], tuple, None)


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
