"""The index beside the shards: never wrong, lost at any time, and no reason to read them again."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.store import shards
from pipeline.store.cache import Cache
from pipeline.store.index import index as index_module
from pipeline.store.index import kept
from pipeline.store.index.keys import Keys
from pipeline.store.shards import INDEX, RowStore
from pipeline.store.upkeep import collect, garbage, verify

FINGERPRINT = "f" * 64
DIGESTS = [hashlib.sha256(bytes([n])).digest() for n in range(40)]


@pytest.fixture
def store(tmp_path, monkeypatch) -> RowStore:
    monkeypatch.setattr(shards, "RACY", -1e9)  # shards of this very moment count as settled
    return Cache.at(tmp_path / "cache").rows(FINGERPRINT)


def commit(store: RowStore, numbers, value: float = 0.0, index=None, **given) -> str:
    """Commit a shard, and enter it into an index where one is given; return its name."""
    rows = np.array([[n, value] for n in numbers], np.float32).reshape(-1, 2)
    keys = [(DIGESTS[n], 0) for n in numbers]
    name = store.commit(keys, rows, engine="test", **given)
    if index is not None:
        said = {"bad": (), "remarks": {}, **given}
        store.enter(index, name, keys, engine="test", **said)
    return name


def held(store: RowStore) -> list[Path]:
    return sorted((store.folder / INDEX).glob("*.h5"))


def content(store: RowStore) -> dict:
    """Return everything that an index says, by name of shard."""
    index = store.index()
    said = index.remarked(keys := list(index.keys()))
    return {
        "rows": dict(index.rows),
        "bad": index.bad,
        "remarks": {keys[at]: remarks for at, remarks in said.items()},
        "engines": index.engines,
        "damaged": index.damaged,
    }


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    """Return the names of the shards that are hashed from here on."""
    names, check = [], RowStore.check
    monkeypatch.setattr(
        RowStore, "check", lambda self, name: (names.append(name), check(self, name))[1]
    )
    return names


def test_a_shard_that_was_found_whole_is_not_read_again(store, hashed):
    names = {commit(store, range(3)), commit(store, range(3, 5))}
    want = content(store)
    assert {*hashed} == names and len(held(store)) == 1
    hashed.clear()
    assert content(store) == want and hashed == []
    third = commit(store, [7])
    assert (DIGESTS[7], 0) in store.index() and hashed == [third]


def test_what_a_process_commits_it_need_not_hash(store, hashed):
    index = store.index()
    commit(store, range(3), index=index)
    commit(store, range(3, 6), index=index, bad=[((DIGESTS[9], 0), "truncated")])
    assert index.having([(DIGESTS[n], 0) for n in range(7)]).tolist() == [True] * 6 + [False]
    store.keep(index)
    again = store.index()
    assert hashed == [] and dict(again.rows) == dict(index.rows)
    assert again.bad == {(DIGESTS[9], 0): "truncated"}


@pytest.mark.parametrize("times", ["other", "same"])
def test_a_byte_that_flips_is_found_by_its_times_and_else_by_verify(store, times, monkeypatch):
    """What changes no time is what disks do by themselves; reading all every time found it too."""
    name, other = commit(store, range(3)), commit(store, range(3, 5))
    store.index()
    path = store.path(name)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    stamp = store._stamp(name)
    path.write_bytes(data)
    if times == "same":
        real = RowStore._stamps
        monkeypatch.setattr(RowStore, "_stamps", lambda self: real(self) | {name: stamp})
        assert store.index().damaged == {}
        assert list(verify(Cache.at(store.folder.parents[1])).problems) == [str(path)]
    index = store.index()
    assert list(index.damaged) == [name]
    assert index.shards(index.keys()) == [other]


def test_a_shard_that_came_this_moment_is_hashed_until_it_is_settled(store, hashed, monkeypatch):
    monkeypatch.setattr(shards, "RACY", 1e9)
    name = commit(store, range(3))
    for _ in range(2):
        assert len(store.index().keys()) == 3
    assert hashed == [name] * 2 and held(store) == []


def spoil_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def spoil_gone(path: Path) -> None:
    path.unlink()


def spoil_text(path: Path) -> None:
    path.write_bytes(b"no HDF5")


@pytest.mark.parametrize("spoil", [spoil_cut, spoil_gone, spoil_text])
def test_a_segment_that_is_lost_or_damaged_is_made_again(store, spoil):
    commit(
        store, range(4), bad=[((DIGESTS[9], 0), "truncated")], remarks={(DIGESTS[1], 0): ["CMYK"]}
    )
    want = content(store)
    spoil(held(store)[0])
    assert content(store) == want and content(store) == want


def test_no_flipped_byte_of_a_segment_changes_what_is_found(store):
    commit(
        store, range(4), bad=[((DIGESTS[9], 0), "truncated")], remarks={(DIGESTS[1], 0): ["CMYK"]}
    )
    want = content(store)
    (path,) = held(store)
    whole = path.read_bytes()
    for at in range(7, len(whole), 389):
        shutil.rmtree(path.parent)
        path.parent.mkdir()
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        assert content(store) == want, at


def test_a_segment_knows_nothing_of_shards_that_are_gone(store):
    names = [commit(store, range(4), value) for value in range(3)]  # the same keys three times
    for name in sorted(names):
        assert store.index().shards([(DIGESTS[0], 0)]) == [name]  # the smallest there is
        store.path(name).unlink()
    assert len(store.index().keys()) == 0


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 39), min_size=1, max_size=6, unique=True), st.booleans(),
                  st.booleans()),
        min_size=1, max_size=12,
    )
)  # fmt: skip
def test_any_order_of_commits_and_losses_gives_what_the_shards_say(tmp_path_factory, steps):
    """Compared with a store that has no index: the same shards, read each time."""
    root = tmp_path_factory.mktemp("rows")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "RACY", -1e9)
        patch.setattr(index_module, "MOST", 2)
        store, index = RowStore(root / FINGERPRINT), None
        for number, (images, keeps, loses) in enumerate(steps):
            index = store.index() if index is None or loses else index
            bad = [((DIGESTS[images[0]], 0), f"bad {number}")]
            name = commit(store, images[1:], number, index=index, bad=bad)
            if keeps:
                store.keep(index)
            if loses:
                store.path(name).unlink()
        found = content(store)
        shutil.rmtree(store.folder / INDEX, ignore_errors=True)
        assert found == content(store)


def test_many_segments_are_merged_into_one(store, monkeypatch):
    monkeypatch.setattr(kept, "OLD", -1e9)  # nobody else has the old ones mapped
    for number in range(12):
        commit(store, [number])
        store.index()
    assert len(held(store)) <= 4
    assert len(store.index().keys()) == 12


def test_a_segment_that_others_may_have_mapped_stays_and_is_passed_over(store, monkeypatch):
    commit(store, [0])
    store.index()
    (first,) = held(store)
    commit(store, [1])
    store.index()
    assert len(held(store)) == 2
    first.write_bytes(b"it would be noticed")
    assert [len(one.segment.names) for one in store.index().attached] == [2]


def test_a_cache_for_reading_only_is_read_without_its_index(store, monkeypatch):
    commit(store, range(3))

    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        for call in ("open", "mkdir", "replace"):
            patch.setattr(os, call, refuse)
        assert len(store.index().keys()) == 3
    assert held(store) == []


def test_processes_that_commit_and_index_at_once_lose_nothing(store):
    program = (
        "import sys, hashlib, numpy as np\n"
        "from pathlib import Path\n"
        "from pipeline.store import shards\n"
        "shards.RACY = -1e9\n"
        "store, first = shards.RowStore(Path(sys.argv[1])), int(sys.argv[2])\n"
        "for n in range(first, first + 10):\n"
        "    index = store.index()\n"
        "    keys = [(hashlib.sha256(bytes([n])).digest(), 0)]\n"
        "    name = store.commit(keys, np.full((1, 2), n, np.float32), engine='e')\n"
        "    store.enter(index, name, keys, bad=(), remarks={}, engine='e')\n"
        "    store.keep(index)\n"
    )
    folder = str(store.folder)
    several = [
        subprocess.Popen([sys.executable, "-c", program, folder, str(start)])
        for start in (0, 10, 20)
    ]
    assert [process.wait() for process in several] == [0, 0, 0]
    index = store.index()
    keys = [(digest, 0) for digest in DIGESTS[:30]]
    out = np.empty((30, 2), np.float32)
    store.gather(index, keys, out)
    assert out[:, 0].tolist() == list(range(30)) and not index.damaged


def test_the_collector_takes_the_index_of_a_store_without_shards(store):
    cache = Cache.at(store.folder.parents[1])
    commit(store, range(3))
    store.index()
    assert held(store)
    collect(cache, garbage(cache))
    assert not store.folder.exists()


def test_keys_are_a_sequence_of_pairs_in_either_form():
    pairs = [(DIGESTS[n], n % 3) for n in (5, 1, 4)]
    keys = Keys.of(pairs)
    assert list(keys) == pairs and keys[1] == pairs[1] and list(keys[1:]) == pairs[1:]
    assert Keys.of(keys) is keys and len(Keys.of([])) == 0
    assert list(keys.take(np.array([2, 0]))) == [pairs[2], pairs[0]]


def test_keys_whose_codes_are_equal_are_told_apart(store):
    """The first eight bytes are what is searched for; the others decide."""
    same = [DIGESTS[0][:8] + bytes([n] * 24) for n in range(5)]
    for n in (3, 1, 2):
        store.commit([(same[n], 0)], np.full((1, 2), n, np.float32), engine="e")
    index = store.index()
    assert index.having([(digest, 0) for digest in same]).tolist() == [
        False, True, True, True, False,
    ]  # fmt: skip
    out = np.empty((3, 2), np.float32)
    store.gather(index, [(same[n], 0) for n in (1, 2, 3)], out)
    assert out[:, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("block", [1, 8 * 3, 1 << 20])
def test_rows_that_are_streamed_are_those_that_are_gathered(store, monkeypatch, block):
    monkeypatch.setattr(shards, "BLOCK", block)
    index = store.index()
    for start in (0, 7, 14):
        commit(store, range(start, start + 7), 0.5, index=index)
    keys = [(DIGESTS[n], 0) for n in np.random.default_rng(0).permutation(21)]
    want = np.empty((21, 2), np.float32)
    store.gather(index, keys, want)
    streamed = store.stream(index, keys)
    assert (streamed.shape, streamed.dtype) == ((21, 2), np.float32)
    np.testing.assert_array_equal(np.concatenate(list(streamed.blocks())), want)
    assert store.stream(index, keys, (7, 3)).shape == (7, 3, 2)
