import errno
import hashlib
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pipeline.errors import DamagedError, LockedError, PipelineError
from pipeline.store.atomic import make_folder
from pipeline.store.cache import Cache
from pipeline.store.shards import RowStore

FINGERPRINT = "f" * 64


def digest(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


@pytest.fixture
def store(tmp_path) -> RowStore:
    return Cache.at(tmp_path / "cache").rows(FINGERPRINT)


def commit(store: RowStore, numbers: range, **kwargs) -> str:
    rows = np.array([[n, n + 0.5] for n in numbers], np.float32)
    return store.commit([(digest(n), 0) for n in numbers], rows, engine="test", **kwargs)


def test_rows_come_back_under_their_digest_whatever_the_order(store):
    commit(store, range(3))
    commit(store, range(3, 5))
    out = np.empty((3, 2), np.float32)
    index = store.index()
    store.gather(index, [(digest(4), 0), (digest(0), 0), (digest(2), 0)], out)
    assert out[:, 0].tolist() == [4, 0, 2]


@settings(max_examples=30)
@given(
    arrays(
        st.sampled_from([np.float32, np.float16, np.uint8]),
        array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5),
    )
)
def test_any_shape_and_dtype_makes_the_round_trip_bit_for_bit(tmp_path_factory, rows):
    store = RowStore(tmp_path_factory.mktemp("rows") / FINGERPRINT)
    keys = [(digest(n), n % 3) for n in range(len(rows))]
    name = store.commit(keys, rows, engine="test")
    back = store.rows(name)
    assert back.dtype == rows.dtype and back.tobytes() == rows.tobytes()
    assert set(store.index().rows) == set(keys)


def test_a_shard_is_named_by_its_bytes_and_equal_shards_are_one(store):
    name = commit(store, range(3))
    assert name == commit(store, range(3))
    data = store.path(name).read_bytes()
    assert name == hashlib.sha256(data).hexdigest() + ".h5"


def test_of_two_rows_for_one_key_the_smallest_shard_wins(store):
    names = [
        store.commit([(digest(1), 0)], np.full((1, 2), v, np.float32), engine="test")
        for v in range(4)
    ]
    assert store.index().rows[(digest(1), 0)] == (min(names), 0)


def test_views_of_an_image_are_rows_of_their_own(store):
    store.commit([(digest(1), 0), (digest(1), 7)], np.eye(2, dtype=np.float32), engine="test")
    assert set(store.index().rows) == {(digest(1), 0), (digest(1), 7)}


def test_bad_images_are_remembered_until_a_row_exists(store):
    commit(store, range(2), bad=[((digest(9), 0), "truncated")])
    assert store.index().bad == {(digest(9), 0): "truncated"}
    assert (digest(9), 0) in store.index()
    commit(store, range(9, 10))
    assert store.index().bad == {}


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_flipped_byte_is_named_and_its_rows_are_not_read(store, where):
    name, other = commit(store, range(3)), commit(store, range(3, 5))
    path = store.path(name)
    data = bytearray(path.read_bytes())
    data[{"first": 0, "middle": len(data) // 2, "last": -1}[where]] ^= 1
    path.write_bytes(data)
    index = store.index()
    assert list(index.damaged) == [name] and "its sha256 is not its name" in index.damaged[name]
    assert {shard for shard, _ in index.rows.values()} == {other}


def test_a_truncated_shard_is_damaged_and_a_missing_one_is_missing(store):
    name = commit(store, range(3))
    path = store.path(name)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DamagedError, match="is damaged"):
        store.check(name)
    path.unlink()
    with pytest.raises(DamagedError, match="is missing"):
        store.check(name)


def test_a_shard_of_another_fingerprint_is_refused(store, tmp_path):
    name = commit(store, range(2))
    other = RowStore(store.folder.parent / ("e" * 64))
    make_folder(other.path(name).parent)
    os.link(store.path(name), other.path(name))
    assert name in other.index().damaged


def test_temporary_and_foreign_files_are_not_read(store):
    commit(store, range(2))
    (store.folder / ".tmp-1-abc").write_bytes(b"half")
    (store.folder / "notes.txt").write_text("mine")
    assert len(store.index().rows) == 2 and not store.index().damaged


def test_the_second_lock_fails_at_once_and_names_the_holder(store):
    with (
        store.lock(),
        pytest.raises(LockedError, match=f"pid {os.getpid()}.*Wait for it to end"),
        store.lock(),
    ):
        pass
    with store.lock():
        pass


@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace"])
def test_a_failing_step_names_shard_and_reason_and_leaves_nothing(store, monkeypatch, step):
    commit(store, range(2))
    for number in range(256):
        (store.folder / f"{number:02x}").mkdir(exist_ok=True)
    real = getattr(os, step)

    def fail(*args, **kwargs):
        if step == "open" and args[1] == os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC:
            return real(*args, **kwargs)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(PipelineError, match=r"the shard .*\.h5: No space left on device"):
            commit(store, range(2, 4))
    assert len(store.index().rows) == 2
    assert list(store.folder.rglob(".tmp*")) == []
    commit(store, range(2, 4))
    assert len(store.index().rows) == 4


def test_a_commit_writes_syncs_renames_and_syncs_the_folder_in_this_order(store, monkeypatch):
    commit(store, range(1, 2))
    steps = []
    for name in ("write", "fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _n=name, _r=real: (steps.append(_n), _r(*a))[1])
    commit(store, range(1, 2))
    assert steps == ["write", "fsync", "replace", "fsync"]


def test_the_rows_of_a_shard_are_contiguous_and_unfiltered(store):
    with h5py.File(store.path(commit(store, range(3)))) as file:
        assert file["rows"].chunks is None and file["rows"].compression is None
        assert sorted(file) == ["digests", "meta", "rows", "views"]


def test_a_damaged_shard_that_another_process_made_good_meanwhile_is_not_removed(store):
    names = [commit(store, range(3)), commit(store, range(3, 5))]
    whole = [store.path(name).read_bytes() for name in names]
    for name in names:
        store.path(name).write_bytes(b"damaged")
    damaged = store.index().damaged
    store.path(names[0]).write_bytes(whole[0])
    store.discard_damaged(damaged)
    assert store.names() == [names[0]] and len(store.index().rows) == 3


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EACCES])
def test_a_shard_that_the_system_cannot_open_now_is_not_taken_for_damaged(
    store, monkeypatch, number
):
    name = commit(store, range(3))

    def refuse(self, *args, **kwargs):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        for read in (store.index, lambda: store.discard_damaged([name])):
            with pytest.raises(
                PipelineError, match="system error; the file may be intact"
            ) as caught:
                read()
            assert not isinstance(caught.value, DamagedError)
    with monkeypatch.context() as patch:
        patch.setattr("h5py.File", refuse)
        with pytest.raises(PipelineError, match=os.strerror(number)) as caught:
            store.rows(name)
        assert not isinstance(caught.value, DamagedError)
    assert store.names() == [name] and len(store.index().rows) == 3


def test_a_shard_that_the_disk_does_not_give_back_is_damaged(store, monkeypatch):
    name = commit(store, range(3))

    def fail(self, *args, **kwargs):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "open", fail)
    assert "cannot be read: Input/output error" in store.index().damaged[name]


def test_a_lock_is_held_on_a_disk_that_is_full(store, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with store.lock(), pytest.raises(LockedError, match="pid unknown"), store.lock():
        pass
