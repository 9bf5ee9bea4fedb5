import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
from tables import provenance

from pipeline.errors import DamagedError, PipelineError
from pipeline.store.columns.checked import Unread
from pipeline.store.hdf5 import Streamed
from pipeline.store.table import FeatureTable


def table(**changes) -> FeatureTable:
    values = {
        "features": np.arange(12, dtype=np.float32).reshape(4, 3),
        "labels": np.array([0, 1, 1, -1]),
        "splits": ("train", "train", "val", ""),
        "paths": ("a/1.jpg", "b/ü.jpg", "b/\udcff.jpg", "x.jpg"),
        "digests": tuple(c * 64 for c in "abcd"),
        "classes": ("ants", "bees"),
        "groups": None,
        "shards": ("s.h5",),
        "provenance": provenance(command="pipeline extract photos"),
    }
    return FeatureTable(**{**values, **changes})


def test_a_table_comes_back_as_it_was_written(tmp_path):
    want = table(groups=("g", "g", "h", ""))
    back = want.write(tmp_path / "t.h5")
    for name in ("splits", "paths", "digests", "classes", "groups", "shards", "table_id"):
        assert getattr(back, name) == getattr(want, name), name
    np.testing.assert_array_equal(back.features, want.features)
    np.testing.assert_array_equal(back.labels, want.labels)
    assert back.provenance.command == "pipeline extract photos"
    assert back.split_counts == {"train": 2, "val": 1, "": 1}
    assert back.rows("train").tolist() == [0, 1]


@pytest.mark.parametrize(
    ("given", "kept"), [(np.float16, np.float16), (np.float32, np.float32), (float, np.float32)]
)
def test_features_are_kept_in_float16_where_they_are_given_so(tmp_path, given, kept):
    want = table()
    back = replace(want, features=want.features.astype(given)).write(tmp_path / "t.h5")
    assert back.features.dtype == kept and isinstance(back.features, np.memmap)
    np.testing.assert_allclose(back.features, want.features, rtol=1e-3)


def test_views_come_back_mapped_and_leave_the_id_alone(tmp_path):
    views = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    back = table(views=views).write(tmp_path / "t.h5")
    np.testing.assert_array_equal(back.views, views)
    assert isinstance(back.views, np.memmap) and back.training_rows.tolist() == [0, 1]
    assert back.table_id == table().table_id and table().write(tmp_path / "u.h5").views is None
    with h5py.File(tmp_path / "t.h5") as file:
        np.testing.assert_array_equal(file["views"][:], views)


@pytest.mark.parametrize("shape", [(3, 2, 3), (2, 2, 4), (2, 3)])
def test_views_that_fit_no_images_are_damage(tmp_path, shape):
    with pytest.raises(DamagedError, match="its views fit no images"):
        table(views=np.zeros(shape, np.float32)).write(tmp_path / "t.h5")


def test_anyone_can_read_it_with_h5py_alone(tmp_path):
    table().write(tmp_path / "t.h5")
    with h5py.File(tmp_path / "t.h5") as file:
        assert file["features"][:].shape == (4, 3)
        assert file["classes"].asstr()[:].tolist() == ["ants", "bees"]
        assert file["splits"].asstr()[:].tolist() == ["train", "train", "val", ""]
        assert json.loads(file["provenance"][()])["fingerprint"] == "f" * 64


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": np.array([1, 1, 1, -1])},
        {"splits": ("val", "train", "val", "")},
        {"digests": ("e" * 64, *table().digests[1:])},
        {"groups": ("a", "b", "c", "d")},
        {"classes": ("ants", "wasps")},
        {"provenance": provenance("0" * 64)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_id_changes_with_everything_that_a_head_depends_on(changes):
    assert table(**changes).table_id != table().table_id


def test_the_id_stays_when_a_file_is_renamed():
    assert table(paths=("w", "x", "y", "z")).table_id == table().table_id


def test_every_flipped_byte_of_a_table_is_noticed_or_harmless(tmp_path):
    path = tmp_path / "t.h5"
    want = table().write(path)
    data = path.read_bytes()
    noticed = 0
    for position in range(0, len(data), 29):
        flipped = bytearray(data)
        flipped[position] ^= 0x10
        path.write_bytes(flipped)
        try:
            back = FeatureTable.open(path)
            assert back.table_id == want.table_id and back.paths == want.paths
            assert back.features is not None
        except DamagedError:
            noticed += 1
            continue
        np.testing.assert_array_equal(back.features, want.features)
    assert noticed > 10


def test_a_truncated_table_is_refused(tmp_path):
    path = tmp_path / "t.h5"
    table().write(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DamagedError):
        FeatureTable.open(path)


def test_damaged_features_tell_the_command_that_makes_them_again(tmp_path):
    path = tmp_path / "t.h5"
    opened = table().write(path)
    data = path.read_bytes()
    place = data.index(np.asarray(opened.features).tobytes())
    path.write_bytes(data[:place] + b"\xff" + data[place + 1 :])
    back = FeatureTable.open(path)
    assert (back.table_id, back.splits, back.dim) == (opened.table_id, opened.splits, 3)
    for _ in range(2):
        with pytest.raises(DamagedError, match=r"features differs.*pipeline extract photos"):
            _ = back.features
    assert list(back.damaged()) == [path]


def test_labels_are_there_before_features_are_hashed(tmp_path, monkeypatch):
    opened = table(views=np.ones((2, 1, 3), np.float32)).write(tmp_path / "t.h5")
    hashed = []
    real = Unread.read
    monkeypatch.setattr(Unread, "read", lambda self: hashed.append(self.name) or real(self))
    back = FeatureTable.open(opened.path)
    facts = (back.labels.tolist(), back.dim, back.view_count, back.training_rows.tolist())
    assert facts == ([0, 1, 1, -1], 3, 1, [0, 1]) and back.nbytes == opened.path.stat().st_size
    assert hashed == []
    for _ in range(2):
        np.testing.assert_array_equal(back.features, table().features)
    assert hashed == ["features"]


def test_a_missing_table_says_where_tables_come_from(tmp_path):
    with pytest.raises(PipelineError, match="`pipeline extract DATA` makes one"):
        FeatureTable.open(tmp_path / "none.h5")


def test_a_table_of_another_schema_says_what_to_do(tmp_path):
    made = table()
    other = replace(made, provenance=replace(made.provenance, schema=99))
    with pytest.raises(DamagedError, match="schema"):
        other.write(tmp_path / "t.h5")


def test_columns_of_different_length_are_refused(tmp_path):
    with pytest.raises(DamagedError, match="differ in length"):
        replace(table(), splits=("train",)).write(tmp_path / "t.h5")


def test_a_table_whose_features_come_in_blocks_is_the_same_file(tmp_path):
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    crops = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    asked = []

    def of(array, blocks):
        def give():
            for block in np.array_split(array, blocks):
                asked.append(len(block))
                yield block

        return Streamed(array.shape, array.dtype, give)

    whole = table(features=rows, views=crops).write(tmp_path / "a.h5")
    none = np.empty((0, 0), np.float32)
    parts = table(features=none).write(tmp_path / "b.h5", features=of(rows, 3), views=of(crops, 2))
    assert asked == [2, 1, 1, 1, 1]
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert parts.table_id == whole.table_id
    np.testing.assert_array_equal(parts.views, crops)


def test_blocks_that_fail_leave_no_table(tmp_path):
    def fail():
        yield np.zeros((2, 3), np.float32)
        raise PipelineError("The shard is gone.")

    features = Streamed((4, 3), np.dtype(np.float32), fail)
    with pytest.raises(PipelineError, match="The shard is gone"):
        table().write(tmp_path / "t.h5", features=features)
    assert list(tmp_path.iterdir()) == []
