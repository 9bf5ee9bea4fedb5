import os
import socket

import pytest
from conftest import make_folder

from pipeline.errors import PipelineError
from pipeline.images.datasets.folders import CIRCLE
from pipeline.images.datasets.scan import scan


def by_class(images):
    """Return class → paths, "" for what has none."""
    names = [*images.classes, ""]
    found = {}
    for path, label in zip(images.paths, images.labels, strict=True):
        found.setdefault(names[label], []).append(path)
    return found


def test_a_folder_for_each_class(make):
    images = scan(make("b/2.jpg", "b/1.jpg", "a/1.jpg", "a/3.png"))
    assert images.name == "data"
    assert images.paths == ("a/1.jpg", "a/3.png", "b/1.jpg", "b/2.jpg")
    assert images.labels.tolist() == [0, 0, 1, 1]
    assert images.labels.dtype == "int64"
    assert images.classes == ("a", "b")
    assert (images.splits, images.groups, images.left_out, images.notes) == (None, None, (), ())


def test_splits_with_a_folder_for_each_class(make):
    images = scan(make("train/a/1", "train/a/2", "train/b/1", "train/b/2", "val/b/3", "val/a/4"))
    assert images.paths[-2:] == ("val/a/4", "val/b/3")
    assert images.splits == ("train",) * 4 + ("val",) * 2
    assert by_class(images)["a"] == ["train/a/1", "train/a/2", "val/a/4"]


@pytest.mark.parametrize(
    ("folder", "split"),
    [("Train", "train"), ("valid", "val"), ("VALIDATION", "val"), ("testing", "test")],
)
def test_other_names_of_splits_are_understood(make, folder, split):
    assert set(scan(make(f"{folder}/a/1", f"{folder}/b/2")).splits) == {split}


def test_two_folders_of_one_split_are_merged_and_told(make):
    images = scan(make("val/a/1", "val/b/1", "valid/a/2", "valid/b/2"))
    assert images.splits == ("val",) * 4
    assert "The folders 'val' and 'valid' make up val together." in images.notes


def test_a_folder_of_images_alone_has_no_labels_and_no_splits(make):
    images = scan(make("1.jpg", "2.jpg"))
    assert images.labels.tolist() == [-1, -1]
    assert (images.classes, images.splits) == ((), ("", ""))
    assert images.notes == ("No image has a label.",)


def test_a_split_without_class_folders_is_unlabelled(make):
    images = scan(make("train/a/1", "train/a/2", "train/b/1", "train/b/2", "test/1", "test/2"))
    assert by_class(images)[""] == ["test/1", "test/2"]
    assert images.splits[:2] == ("test", "test")
    assert images.notes == ("2 of 6 images have no label.",)


def test_a_class_called_train_is_a_class(make):
    assert scan(make("bus/1", "car/1", "train/1")).classes == ("bus", "car", "train")


def test_folders_beside_the_splits_are_left_out_and_told(make):
    images = scan(make("train/a/1", "train/b/1", "masks/1", "readme.txt"))
    assert len(images.paths) == 2
    assert images.left_out == (
        ("masks", "beside the split folders"),
        ("readme.txt", "beside the split folders"),
    )
    assert (
        "Left out: 2 entries beside the split folders ('masks' and 'readme.txt')." in images.notes
    )


def test_files_beside_the_class_folders_are_left_out_and_told(make):
    images = scan(make("a/1", "a/2", "b/1", "b/2", "x.jpg"))
    assert images.left_out == (("x.jpg", "beside the class folders"),)
    assert images.notes == ("Left out: 1 entry beside the class folders ('x.jpg').",)


def test_folders_inside_a_class_belong_to_it_at_any_depth(make):
    images = scan(make("a/1", "a/x/y/2", "b/1", "b/z/3"))
    assert by_class(images) == {"a": ["a/1", "a/x/y/2"], "b": ["b/1", "b/z/3"]}


def test_what_is_hidden_is_left_out_and_counted(make):
    hidden = [
        ".DS_Store",
        "__MACOSX/._1.jpg",
        "a/.ipynb_checkpoints/1.jpg",
        "a/Thumbs.db",
        "b/desktop.ini",
    ]
    images = scan(make("a/1", "a/2", "b/1", "b/2", *hidden))
    assert images.paths == ("a/1", "a/2", "b/1", "b/2")
    assert {path for path, reason in images.left_out if reason == "hidden"} == {
        ".DS_Store",
        "__MACOSX",
        "a/.ipynb_checkpoints",
        "a/Thumbs.db",
        "b/desktop.ini",
    }


def test_a_hidden_folder_given_by_name_is_read(make):
    assert len(scan(make("a/1", "b/1", root=".secret")).paths) == 2


def test_a_class_without_images_is_told_and_is_no_class(make):
    root = make("a/1", "a/2", "b/1", "b/2")
    (root / "empty").mkdir()
    images = scan(root)
    assert images.classes == ("a", "b")
    assert images.notes == ("No image of 'empty': not among the classes.",)


def test_empty_folders_beside_images_do_not_hide_the_images(make):
    root = make("1.jpg", "2.jpg")
    (root / "new").mkdir()
    assert scan(root).paths == ("1.jpg", "2.jpg")


def test_classes_that_differ_between_splits_are_told_with_a_class_of_one_image(make):
    images = scan(make("train/a/1", "train/a/2", "train/b/1", "val/a/3", "val/c/1", "val/c/2"))
    assert images.notes == (
        "Only one image of 'b'.",
        "The classes differ between the splits: train lacks 'c'; val lacks 'b'.",
    )


def test_a_single_class_is_told(make):
    images = scan(make("a/1", "a/2"))
    assert images.notes == ("There is only one class, 'a': nothing to tell apart.",)


def test_classes_match_by_name_however_a_disk_composes_it(make):
    images = scan(make("train/caf\u00e9/1", "train/b/1", "val/cafe\u0301/2", "val/b/2"))
    assert images.classes == ("b", "caf\u00e9")
    assert images.labels.tolist() == [0, 1, 0, 1]


def test_names_of_any_script_and_names_that_are_not_utf8_work(make):
    odd = os.fsdecode(b"\xff\xfe.jpg")
    images = scan(make(f"日本/{odd}", "日本/2 ü.jpg", "Ж/1.jpg", "Ж/2\n.jpg", root="données 🙂"))
    assert images.classes == ("Ж", "日本")
    assert f"日本/{odd}" in images.paths
    assert images.name == "données"
    assert all((images.root / path).is_file() for path in images.paths)


def test_the_order_is_that_of_the_bytes_of_the_paths(make):
    names = ["a/é", "a/Z", "a/10", "a/9", "a/z", "A/1"]
    images = scan(make(*names))
    assert list(images.paths) == sorted(names, key=os.fsencode)


def test_links_to_files_and_folders_are_followed(make, tmp_path):
    root = make("a/1", "b/1")
    other = make("x/1", "x/2", root="elsewhere")
    (root / "c").symlink_to(other / "x")
    (root / "a/2").symlink_to(other / "x/1")
    assert scan(root).paths == ("a/1", "a/2", "b/1", "c/1", "c/2")


def test_links_in_a_circle_end_and_are_left_out(make):
    root = make("a/1", "a/sub/2", "b/1")
    (root / "a/sub/up").symlink_to(root / "a")
    (root / "b/root").symlink_to(root)
    (root / "b/self").symlink_to(root / "b/self")
    images = scan(root)
    assert by_class(images)["a"] == ["a/1", "a/sub/2"]
    assert {("a/sub/up", CIRCLE), ("b/root", CIRCLE)} < set(images.left_out)
    assert ("b/self", "broken link") in images.left_out
    assert by_class(images)["b"] == ["b/1"]


def test_many_folders_that_link_to_each_other_are_each_read_once(make):
    names = [f"d{n}" for n in range(12)]
    root = make(*(f"a/{name}/1" for name in names), "b/1")
    for one in names:
        for other in names:
            if one != other:
                (root / "a" / one / f"to {other}").symlink_to(root / "a" / other)
    assert len(scan(root).paths) == 13


def test_what_is_no_regular_file_is_never_opened(make):
    root = make("a/1", "b/1")
    os.mkfifo(root / "a/fifo")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(root / "a")  # a socket's path must be short
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
    (root / "b/null").symlink_to("/dev/null")
    (root / "b/gone").symlink_to("nowhere")
    assert dict(scan(root).left_out) == {
        "a/fifo": "not a regular file",
        "a/socket": "not a regular file",
        "b/null": "not a regular file",
        "b/gone": "broken link",
    }


def test_a_folder_without_files_is_refused(make):
    root = make()
    with pytest.raises(PipelineError) as caught:
        scan(root)
    assert str(caught.value) == (
        f"{root} holds no files. Put images there, in a folder for each class, or in train/ and "
        "val/ with a folder for each class."
    )


def test_a_folder_of_hidden_files_says_so(make):
    with pytest.raises(PipelineError, match="holds no files; 2 entries left out as hidden or odd"):
        scan(make(".a", ".b/1"))


def test_the_folder_around_a_data_set_is_refused_with_the_right_one(make):
    root = make("photos/train/a/1", "photos/val/a/1")
    with pytest.raises(PipelineError) as caught:
        scan(root)
    assert str(caught.value) == (
        f"{root} holds only the folder 'photos', which holds the folders 'train' and 'val'. If "
        f"these are the classes or splits, give {root}/photos."
    )


def test_so_is_the_folder_around_one_of_a_split(make):
    root = make("photos/train/a/1", "photos/train/b/1")
    with pytest.raises(PipelineError, match=r"'photos', which holds the folder 'train'\. If these"):
        scan(root)
    assert set(scan(root / "photos").splits) == {"train"}


def test_all_folders_that_cannot_be_read_come_in_one_sentence(make, monkeypatch):
    root = make("a/1", "b/1", "c/1")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith(("/a", "/c")):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PipelineError) as caught:
        scan(root)
    assert str(caught.value) == (
        f"Cannot read 2 folders of {root} (a: Permission denied; c: Permission denied). Allow "
        "reading them, or move them elsewhere."
    )


def test_no_image_is_opened(make, monkeypatch):
    root = make("a/1", "b/1")

    def opened(*args, **options):
        raise AssertionError(f"opened {args}")

    monkeypatch.setattr("builtins.open", opened)
    monkeypatch.setattr(os, "open", opened)
    assert len(scan(root).paths) == 2


@pytest.mark.parametrize("link", ["ants/loop", "ants/deep/loop", "loop"])
@pytest.mark.parametrize("target", ["", "..", "ants"])
def test_a_link_to_a_folder_that_contains_it_gives_no_image_twice(tmp_path, link, target):
    root = make_folder(tmp_path / "x", each=2)
    (root / "ants" / "deep").mkdir()
    (root / link).symlink_to(root / target)
    found = scan(root)
    if (link, target) == ("loop", "ants"):  # a link beside its target is another class, as ever
        assert found.classes == ("ants", "bees", "loop")
        return
    assert len(found.paths) == 4 and found.classes == ("ants", "bees")
    assert (link, CIRCLE) in found.left_out
    assert any(f"1 entry {CIRCLE} ('{link}')" in note for note in found.notes)


def test_a_link_back_from_a_folder_elsewhere_is_in_a_circle_too(tmp_path):
    root = make_folder(tmp_path / "x", each=2)
    other = make_folder(tmp_path / "other", classes=("more",), each=2, start=50)
    (other / "back").symlink_to(root)
    (root / "ants" / "far").symlink_to(other)
    found = scan(root)
    assert len(found.paths) == 6 and ("ants/far/back", CIRCLE) in found.left_out
