from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.images.datasets.imageset import Entry, ImageSet
from pipeline.images.datasets.scan import scan
from pipeline.sequences import Digests


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


def test_digests_go_with_their_images(make):
    one, two, three = (digit * 32 for digit in (b"1", b"2", b"3"))
    images = replace(scan(make("a/1", "a/2", "b/1")), digests=Digests.of((one, two, three)))
    assert images.take([2, 0]).digests == (three, one)
    assert images.without({1: "x"}).digests == (one, three)
    assert scan(images.root).take([1]).digests == ()


def test_rows_are_those_of_a_split_and_of_classes(make):
    images = scan(make("train/a/1", "train/b/1", "val/a/2", "val/b/2"))
    assert images.split_names == ["train", "val"]
    assert images.rows().tolist() == images.rows(split="all").tolist() == [0, 1, 2, 3]
    assert images.rows(split="val").tolist() == [2, 3]
    assert images.rows(split="val", labels=[1]).tolist() == [3]
    assert images.rows(labels=images.find_classes(["b"])).tolist() == [1, 3]
    assert (images.file(3), images.title(1)) == (f"{images.root}/val/b/2", "b")
    assert images.title(-1) == "(no label)"


def test_a_split_or_class_that_there_is_not_is_a_usage_error(make):
    images = scan(make("train/a/1", "train/ants/1", "test/x"))
    with pytest.raises(UsageError, match=r"--split val: data has train and test; or give all\."):
        images.rows(split="val")
    with pytest.raises(UsageError, match="No image of data is of these classes and in this split"):
        images.rows(split="test", labels=[0])
    with pytest.raises(UsageError, match=r"--class 'ant' is no class of data: it has a and ants\."):
        images.find_classes(["a", "ant"])
    with pytest.raises(UsageError, match="--split val: other has no splits"):
        scan(make("a/1", "b/2", root="other")).rows(split="val")


def test_the_same_bytes_in_two_classes_are_told_once_the_digests_are_known():
    entries = [Entry("a/1", "a"), Entry("a/2", "a"), Entry("b/1", "b"), Entry("b/2", "b")]
    entries += [Entry("c/1", "b"), Entry("x", "")]
    images = ImageSet.of_entries("d", Path("/d"), entries, ())
    one, two, three = b"1" * 32, b"2" * 32, b"3" * 32
    told = replace(images, digests=Digests.of((one, two, one, three, one, two))).noted(images)
    assert [note for note in told.notes if "same bytes" in note] == [
        "1 image stands in two classes with the same bytes, such as 'a/1' and 'b/1': "
        "`pipeline audit` lists them."
    ]
    both = replace(images, digests=Digests.of((one, two, one, two, one, two))).noted(images)
    assert any(note.startswith("2 images stand in two classes") for note in both.notes)
    within = replace(images, digests=Digests.of((one, one, two, two, two, three))).noted(images)
    assert not any("same bytes" in note for note in within.notes)
