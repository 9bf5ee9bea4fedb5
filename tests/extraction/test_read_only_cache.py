"""A cache that may only be read serves what it holds, also at another path."""

import errno
import os
import shutil

import pytest
from conftest import make_folder

import pipeline
from pipeline.errors import PipelineError
from pipeline.extraction.extract import extract_table
from pipeline.extraction.options import ExtractOptions
from pipeline.store.cache import Cache

RECIPE = ExtractOptions(precision="fp32")


@pytest.fixture
def read_only(monkeypatch):
    """Refuse every write below a folder, as a file system mounted for reading does."""

    def arrange(folder, number=errno.EROFS):
        def refuse(name, writes=lambda *args: True):
            real = getattr(os, name)

            def guarded(path, *args, **options):
                below = isinstance(path, str | os.PathLike) and str(path).startswith(str(folder))
                if below and writes(*args):
                    raise OSError(number, os.strerror(number), str(path))
                return real(path, *args, **options)

            monkeypatch.setattr(os, name, guarded)

        refuse("open", lambda flags=0, *_: bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)))
        for name in ("unlink", "mkdir", "rename", "replace", "rmdir"):
            refuse(name)
        access = os.access
        monkeypatch.setattr(
            os, "access",
            lambda path, mode: not (mode & os.W_OK and str(path).startswith(str(folder)))
            and access(path, mode),
        )  # fmt: skip

    return arrange


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "photos")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_the_same_command_gives_the_table_and_says_so(folder, cache, fake_trunk, read_only, number):
    first = extract_table(folder, RECIPE, cache)
    read_only(cache.root, number)
    done = extract_table(folder, RECIPE, cache)
    assert done.table.path == first.table.path and done.reused == 20
    assert any("may only be read" in note and "nothing was written" in note for note in done.notes)
    assert pipeline.extract(folder, precision="fp32", cache=cache.root).features.shape == (20, 11)


def test_at_another_path_it_is_the_same_table(folder, cache, fake_trunk, read_only, tmp_path):
    first = extract_table(folder, RECIPE, cache)
    there = Cache.at(shutil.move(cache.root, tmp_path / "elsewhere"))
    read_only(there.root)
    done = extract_table(folder, RECIPE, there)
    assert done.table.table_id == first.table.table_id and done.table.path.parent == there.tables


def test_a_moved_cache_does_not_write_its_table_again(folder, cache, fake_trunk, tmp_path):
    before = extract_table(folder, RECIPE, cache).table.path.stat()
    there = Cache.at(shutil.move(cache.root, tmp_path / "elsewhere"))
    assert extract_table(folder, RECIPE, there).table.path.stat() == before


def test_images_that_lie_elsewhere_now_get_the_table_that_it_holds(
    folder, cache, fake_trunk, read_only, tmp_path
):
    first = extract_table(folder, RECIPE, cache)
    (tmp_path / "other").mkdir()
    other = shutil.copytree(folder, tmp_path / "other" / "photos")
    read_only(cache.root)
    assert extract_table(other, RECIPE, cache).table.path == first.table.path


def test_another_table_of_it_is_served_and_the_current_one_stays(
    folder, cache, fake_trunk, read_only, tmp_path
):
    first = extract_table(folder, RECIPE, cache)
    more = make_folder(tmp_path / "more", start=50)
    second = extract_table(more, RECIPE, cache)
    read_only(cache.root)
    done = extract_table(folder, RECIPE, cache)
    assert done.table.path == first.table.path and cache.current() == second.table.path
    assert any("its current table stays the one before" in note for note in done.notes)


def test_a_list_of_what_was_left_out_that_has_changed_stays_and_is_told(
    folder, cache, fake_trunk, read_only
):
    (folder / "beside.txt").write_text("x")
    extract_table(folder, RECIPE, cache)
    (folder / "beside.txt").unlink()
    read_only(cache.root)
    done = extract_table(folder, RECIPE, cache)
    assert any("list of what was left out stays" in note for note in done.notes)


def test_what_it_does_not_hold_is_refused_with_the_reason(folder, cache, fake_trunk, read_only):
    extract_table(folder, RECIPE, cache)
    make_folder(folder, each=12)
    read_only(cache.root)
    with pytest.raises(PipelineError, match="Read-only file system"):
        extract_table(folder, RECIPE, cache)
