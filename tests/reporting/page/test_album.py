from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.images.thumbnails import Picture
from pipeline.reporting.page import album as albums
from pipeline.reporting.page.album import Album

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def filled(rows, digests, album=None, missing=()):
    """Fill an album with noise; return it and how often each row's picture was asked for."""
    asked = Counter()

    def pictures(part):
        asked.update(part)
        for row in part:
            yield Picture(None, "gone") if row in missing else Picture(NOISE)

    album = album or Album()
    albums.fill(album, rows, digests, pictures, workers=2)
    return album, asked


@given(
    st.integers(1, 30).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.integers(0, n - 1), max_size=20))
    )
)
def test_what_must_be_seen_comes_first_and_every_row_once(given):
    count, first = given
    rows = albums.order(count, first)
    assert sorted(rows) == list(range(count))
    assert rows[: len(set(first))] == list(dict.fromkeys(first))


def test_equal_files_share_one_picture():
    album, asked = filled([0, 1, 2, 3], ["a", "b", "a", "a"])
    assert asked == {0: 1, 1: 1}
    assert len(album.pictures) == 2
    assert album.of == {0: 0, 1: 1, 2: 0, 3: 0}
    assert album.rows == [0, 1, 2, 3]


def test_an_image_without_a_picture_stays_with_its_reason():
    album, _ = filled([0, 1, 2], ["a", "b", "b"], missing={1})
    assert album.rows == [0, 1, 2]
    assert album.missing == {1: "gone", 2: "gone"}
    assert album.left == 0


def test_beyond_the_number_of_images_the_first_in_order_are_shown(monkeypatch):
    monkeypatch.setattr(albums, "MOST", 10)
    rows = albums.order(40, [39, 7])
    album, _ = filled(rows, [str(n) for n in range(40)])
    assert len(album.rows) == 10
    assert {39, 7} <= set(album.rows)
    assert album.rows == sorted(album.rows)
    assert album.left == 30


def test_the_bytes_of_all_pictures_stay_below_the_bound(monkeypatch):
    one = len(filled([0], ["a"])[0].pictures[0])
    monkeypatch.setattr(albums, "MOST_BYTES", 5 * one + one // 2)
    monkeypatch.setattr(albums, "_TOGETHER", 2)
    album, asked = filled(list(range(20)), [str(n) for n in range(20)])
    assert len(album.pictures) == 5
    assert list(album.of) == [0, 1, 2, 3, 4]
    assert (len(album.rows), album.left, album.missing) == (20, 0, {})
    assert sum(asked.values()) < 20  # what has no room is not even read


def test_only_the_first_in_order_are_decoded_and_the_others_have_their_point(monkeypatch):
    monkeypatch.setattr(albums, "PICTURES", 3)
    digests = [str(n) for n in range(9)] + ["8"]
    album, asked = filled([8, 2, 5, 0, 1, 3, 4, 6, 7, 9], digests)
    assert set(asked) == {8, 2, 5}
    assert set(album.of) == {8, 2, 5, 9}  # the last is the same file as one that is shown
    assert album.rows == list(range(10)) and album.left == 0


def test_a_page_of_the_largest_pictures_stays_under_15_mb():
    assert albums.MOST_BYTES * 4 / 3 < 14_000_000
