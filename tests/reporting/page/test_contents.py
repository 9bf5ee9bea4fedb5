import pytest
from tables import make_table

from pipeline.errors import DamagedError
from pipeline.reporting.page import contents


@pytest.fixture
def table(tmp_path):
    return make_table(tmp_path / "t.h5", train=30, val=6, test=3)


def test_classes_are_counted_by_split(table):
    found = contents.classes(table)
    assert [line["class"] for line in found] == list(table.classes)
    assert [line["counts"] for line in found] == [[10, 2, 1]] * 3
    assert sum(line["images"] for line in found) == len(table.labels)


def test_samples_are_of_the_class_of_train_first_and_do_not_depend_on_the_order_of_rows(table):
    found = contents.samples(table)
    for label, rows in found.items():
        assert len(rows) == contents.EACH
        assert set(table.labels[rows]) == {label}
        assert {table.splits[row] for row in rows} == {"train"}
    turned = make_table(
        features=table.features[::-1],
        labels=table.labels[::-1],
        splits=table.splits[::-1],
        digests=table.digests[::-1],
    )
    again = contents.samples(turned)
    for label, rows in found.items():
        assert {table.digests[r] for r in rows} == {turned.digests[r] for r in again[label]}


def test_equal_files_are_one_sample():
    table = make_table(train=12, digests=("a" * 64,) * 6 + ("b" * 64,) * 6)
    assert all(len(rows) == 2 for rows in contents.samples(table).values())


def test_many_classes_share_the_room_and_the_first_alone_have_any():
    table = make_table(train=900, classes=300)
    found = contents.samples(table)
    assert len(found) == contents.SAMPLES
    assert {len(rows) for rows in found.values()} == {1}


def test_a_table_without_labels_has_no_samples():
    table = make_table(features=[[1.0], [2.0]], labels=[-1, -1], splits=("", ""), names=())
    assert contents.samples(table) == {}
    assert contents.classes(table) == []


def test_left_out_files_are_counted_by_reason(table):
    listing = table.path.with_name("t.left-out.csv")
    listing.write_bytes(
        b'path,kind,reason\na.png,bad image,truncated\n"b\n\xff.png",bad image,truncated\n'
        b".DS_Store,left out,hidden\n"
    )
    found = contents.left_out(table)
    assert found["total"] == 3
    assert found["reasons"][0] == {"kind": "bad image", "reason": "truncated", "files": 2}
    assert found["files"][1]["path"] == "b\n\udcff.png"


def test_images_with_a_remark_are_not_left_out(table):
    listing = table.path.with_name("t.left-out.csv")
    listing.write_text(
        "path,kind,reason\na.txt,left out,hidden\n"
        "b.gif,taken,Only the first frame read (2 frames)\n"
    )
    found = contents.left_out(table)
    assert found["total"] == len(found["files"]) == 1
    assert found["remarks"] == ["Only the first frame read: 1 image, 'b.gif' (2 frames)."]


def test_without_the_list_nothing_was_left_out(table):
    assert contents.left_out(table) == {"total": 0, "reasons": [], "files": [], "remarks": []}


@pytest.mark.parametrize("text", ["path,kind\na,b\n", "", "path,kind,reason\na,b\n"])
def test_a_damaged_list_is_named(table, text):
    table.path.with_name("t.left-out.csv").write_text(text)
    with pytest.raises(DamagedError, match=r"t\.left-out\.csv is damaged"):
        contents.left_out(table)
