import subprocess
import sys

import pytest

from pipeline.errors import UsageError
from pipeline.images.datasets.scan import scan
from pipeline.images.names import safe


def refusal(data):
    with pytest.raises(UsageError) as caught:
        scan(data)
    return str(caught.value)


def test_a_missing_folder_is_named_with_its_neighbour(make):
    make("a/1", root="flowers")
    wrong = make(root="x").parent / "flower"
    assert refusal(wrong) == f"There is no folder or file {wrong}. Did you mean flowers?"


def test_a_bare_name_may_be_meant_for_a_built_in_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal("digit") == (
        "There is no folder or file digit, nor a built-in set of that name (there is digits). "
        "Did you mean digits?"
    )


def test_a_link_to_nothing_is_called_one(tmp_path):
    (tmp_path / "link").symlink_to("gone")
    assert refusal(tmp_path / "link").endswith("link is a link to a place that does not exist.")


def test_nothing_and_what_is_neither_folder_nor_file_are_refused():
    assert refusal("") == "DATA is empty. Give a folder of images or a CSV file."
    assert refusal("/dev/null") == "/dev/null is neither a folder nor a file."
    assert refusal("a\0b") == "DATA must be a text or a path, and 'a\\x00b' has a zero byte."


def test_a_folder_is_named_as_given_and_rooted_where_it_really_is(make, monkeypatch):
    root = make("a/1", "b/1", root="real")
    link = root.parent / "my link"
    link.symlink_to(root)
    images = scan(link)
    assert (images.name, images.root) == ("my-link", root.resolve())
    monkeypatch.chdir(root)
    assert scan(".").name == "real"
    assert scan("a/..").name == "real"


@pytest.mark.parametrize(
    ("name", "file_name"),
    [
        ("flowers", "flowers"),
        ("my photos (2024)", "my-photos-2024"),
        ("../../etc", "etc"),
        ("a--b", "a-b"),
        ("été", "été"),
        ("\udcff", "images"),
        ("", "images"),
        ("x" * 300, "x" * 100),
        ("é" * 99, "é" * 50),
    ],
)
def test_a_name_is_made_safe_for_a_file(name, file_name):
    assert safe(name) == file_name


def test_scanning_and_hashing_import_nothing_heavy(make, tmp_path):
    root = make("a/1", "b/1")
    code = f"""
import sys
from pathlib import Path
from pipeline.images import digest
from pipeline.images.datasets import split
from pipeline.images.datasets.scan import scan
images = scan({str(root)!r})
digest.digest_all(images.root, images.paths, digest.StatMemo(Path({str(tmp_path / "m")!r})))
split.assign([b"a"], images.labels[:1])
heavy = {{"torch", "torchvision", "PIL", "sklearn"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_real_sets_are_read(shared):
    images = scan(shared("hymenoptera"))
    assert images.classes == ("ants", "bees")
    assert (images.splits.count("train"), images.splits.count("val")) == (245, 153)
    assert images.notes == ()
    flowers = scan(shared("flowers"))
    assert len(flowers.paths) == 4317
    assert flowers.left_out == ((".DS_Store", "hidden"),)
