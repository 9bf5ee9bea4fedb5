import numpy as np

from pipeline.images.datasets.sources import scan


def test_rows_are_taken_with_all_that_belongs_to_them(make):
    images = scan(make("train/a/1", "train/b/1", "val/a/2", "val/b/2"))
    taken = images.take([3, 0])
    assert taken.paths == ("val/b/2", "train/a/1")
    assert taken.labels.tolist() == [1, 0]
    assert taken.splits == ("val", "train")
    assert taken.classes == images.classes


def test_what_is_left_out_later_has_its_reason_and_changes_the_notes(make):
    images = scan(make("a/1", "a/2", "a/3", "b/1", "b/2", "readme"))
    found = images.without({3: "not an image"})
    assert found.paths == ("a/1", "a/2", "a/3", "b/2")
    assert found.left_out == (*images.left_out, ("b/1", "not an image"))
    assert found.notes == (*images.notes, "Only one image of 'b'.")
    assert found.without({0: "x"}).notes == found.notes


def test_a_class_that_loses_all_its_images_is_no_class_and_the_labels_follow(make):
    images = scan(make("a/1", "b/1", "b/2", "c/1", "c/2"))
    found = images.without({1: "x", 2: "x"})
    assert found.classes == ("a", "c")
    assert found.labels.tolist() == [0, 1, 1]
    assert found.labels.dtype == np.int64
    assert found.notes == ("No image of 'b': not among the classes.", "Only one image of 'a'.")


def test_labels_that_are_unknown_stay_unknown(make):
    images = scan(make("train/a/1", "train/b/1", "test/1", "test/2"))
    found = images.without({0: "x"})
    assert found.labels.tolist() == [-1, 0, 1]


def test_without_reasons_nothing_changes(make):
    images = scan(make("a/1", "b/1"))
    assert images.without({}) is images
