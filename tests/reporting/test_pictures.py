import hashlib

import pytest
from conftest import picture
from tables import make_table

from pipeline.errors import PipelineError
from pipeline.extraction.scan import of_table
from pipeline.images.decoding.reading import ABSENT
from pipeline.images.thumbnails import CHANGED, pictures


@pytest.fixture
def shown(tmp_path):
    """A folder of six pictures, and a table of them that says it lies elsewhere."""
    made = make_table(train=6, classes=2)
    digests = []
    for n, path in enumerate(made.paths):
        data = picture(n)
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
        digests.append(hashlib.sha256(data).hexdigest())
    return tmp_path, make_table(train=6, classes=2, digests=tuple(digests))


def of_rows(table, rows, *, side, data=None):
    """Return pictures of some rows' images."""
    images = of_table(table, data)
    files = [(images.file(row), images.digests[row]) for row in rows]
    return list(pictures(files, side=side, workers=2))


def test_rows_are_shown_in_the_order_asked_for(shown):
    root, table = shown
    found = list(of_rows(table, [4, 0, 4], side=12, data=root))
    assert [one.reason for one in found] == ["", "", ""]
    assert (found[0].rgb == found[2].rgb).all() and not (found[0].rgb == found[1].rgb).all()


def test_moved_and_changed_images_are_told_and_the_others_shown(shown):
    root, table = shown
    (root / table.paths[1]).unlink()
    (root / table.paths[2]).write_bytes(picture(77))
    found = list(of_rows(table, range(4), side=12, data=root))
    assert [one.reason for one in found] == ["", ABSENT, CHANGED, ""]


def test_without_a_folder_the_recorded_one_is_looked_in(shown):
    _, table = shown
    assert {one.reason for one in of_rows(table, range(6), side=12)} == {ABSENT}


def test_a_folder_that_is_none_is_refused(shown):
    root, table = shown
    with pytest.raises(PipelineError, match="is not a folder"):
        of_rows(table, [0], side=12, data=root / "elsewhere")
