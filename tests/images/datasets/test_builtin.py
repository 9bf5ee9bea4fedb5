import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import PipelineError, UsageError
from pipeline.images.datasets import builtin as module
from pipeline.images.datasets.builtin import BUILTIN, builtin, png
from pipeline.images.datasets.scan import scan
from pipeline.images.decoding.decode import decode


@pytest.mark.parametrize("name", BUILTIN)
def test_every_built_in_set_is_a_data_set_of_images(name, tmp_path):
    images = scan(builtin(name, tmp_path))
    assert images.name == name
    assert len(images.classes) > 1
    assert images.notes == ()
    for path in images.paths[:: len(images.paths) // 20]:
        assert decode((images.root / path).read_bytes()).shape[0] == 3


def test_the_digits_are_those_of_scikit_learn(tmp_path):
    images = scan(builtin("digits", tmp_path))
    assert (len(images.paths), images.classes) == (1797, tuple("0123456789"))
    first = decode((images.root / "0/0000.png").read_bytes())[0].numpy()
    from sklearn.datasets import load_digits

    assert np.array_equal(np.rint((255 - first) / 255 * 16), load_digits().images[0])


def test_a_set_that_is_whole_is_not_made_again(tmp_path, monkeypatch):
    folder = builtin("digits", tmp_path)
    monkeypatch.setitem(BUILTIN, "digits", lambda: pytest.fail("made again"))
    assert builtin("digits", tmp_path) == folder


def test_a_set_that_lost_a_file_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setitem(BUILTIN, "digits", three)
    folder = builtin("digits", tmp_path)
    (folder / "a/0000.png").unlink()
    builtin("digits", tmp_path)
    assert len(scan(folder).paths) == 3
    assert sorted(os.listdir(tmp_path)) == ["digits", "digits.complete"]


def test_an_interrupted_making_leaves_nothing_that_looks_whole(tmp_path, monkeypatch):
    def breaks():
        yield "a", np.zeros((2, 2), np.uint8)
        raise KeyboardInterrupt

    monkeypatch.setitem(BUILTIN, "digits", breaks)
    with pytest.raises(KeyboardInterrupt):
        builtin("digits", tmp_path)
    assert os.listdir(tmp_path) == []


def test_another_process_that_was_first_is_not_disturbed(tmp_path, monkeypatch):
    def slow():
        yield from three()
        monkeypatch.setitem(BUILTIN, "digits", three)
        builtin("digits", tmp_path)
        (tmp_path / "digits/a/kept").write_text("")

    monkeypatch.setitem(BUILTIN, "digits", slow)
    monkeypatch.setattr(module.os, "getpid", iter([1, 1, 2, 2]).__next__)
    # both make the folder at once; the one that comes second finds it there
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert (builtin("digits", tmp_path) / "a/kept").is_file()


def three():
    for label in "aab":
        yield label, np.zeros((2, 3), np.uint8)


def test_a_name_that_is_not_built_in_gives_the_nearest(tmp_path):
    with pytest.raises(UsageError) as caught:
        builtin("digit", tmp_path)
    assert str(caught.value) == (
        "There is no built-in set 'digit'. Did you mean digits? Built in: digits."
    )


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PipelineError, match=r"Cannot write the built-in set 'digits' to .*: "):
        builtin("digits", tmp_path / "file")


def test_a_picture_survives_our_png():
    picture = np.arange(60, dtype=np.uint8).reshape(5, 12)
    assert np.array_equal(decode(png(picture))[1].numpy(), picture)
