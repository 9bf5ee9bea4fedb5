import numpy as np
import pytest
from tables import digest, make_table

from pipeline.heads.cross_validation import near_duplicates


def find(table):
    pairs = near_duplicates.find_near_duplicates(table.features, table.digests, table.splits)
    note = near_duplicates.too_many(len(table.splits), False)
    return near_duplicates.leaks(pairs, table.paths, table.splits), note


def table(**changes):
    return make_table(**{"train": 60, "val": 30, "test": 30, "dim": 64, **changes})


def test_random_features_are_no_leak():
    for seed in range(3):
        assert find(table(seed=seed)) == ([], None)


def test_planted_copies_are_reported_with_their_pairs():
    made = table()
    digests = list(made.digests)
    digests[61], digests[95], digests[96] = digests[3], digests[4], digests[62]
    leaks, _ = find(table(digests=tuple(digests)))
    pairs = {(leak.split, leak.path, leak.other_split, leak.other) for leak in leaks}
    path = made.paths
    assert pairs == {
        ("val", path[61], "train", path[3]),
        ("test", path[95], "train", path[4]),
        ("test", path[96], "val", path[62]),
    }
    assert all(leak.same_file and leak.cosine == 1.0 for leak in leaks)


def test_nearly_identical_features_are_reported_with_their_pairs():
    made = table()
    x = made.features.copy()
    noise = np.random.default_rng(1).normal(0, 0.05, x.shape[1]).astype(np.float32)
    x[70], x[100] = x[5] + noise, x[6] - noise
    leaks, _ = find(table(features=x, splits=made.splits))
    assert {(leak.path, leak.other) for leak in leaks} == {
        (made.paths[70], made.paths[5]),
        (made.paths[100], made.paths[6]),
    }
    assert all(not leak.same_file and leak.cosine > near_duplicates.SURE for leak in leaks)


def test_a_re_encoded_picture_is_told_by_being_far_nearer_than_any_other():
    made = table(apart=0.2)
    x = made.features.copy()
    spread = x[:60].std(0)
    x[70] = x[5] + np.random.default_rng(1).normal(0, 0.4, x.shape[1]) * spread
    (leak,), _ = find(table(features=x, splits=made.splits))
    assert (leak.path, leak.other) == (made.paths[70], made.paths[5])
    assert near_duplicates.LIKELY <= leak.cosine < near_duplicates.SURE


def test_pictures_of_simple_things_with_many_as_near_are_no_leak():
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(0, 1, (3, 64)), 40, axis=0) + rng.normal(0, 0.35, (120, 64))
    splits = tuple(("train", "train", "val", "test")[n % 4] for n in range(120))
    cosines = (
        near_duplicates.unit_length(x - x.mean(0)) @ near_duplicates.unit_length(x - x.mean(0)).T
    )
    assert np.sort(cosines, axis=1)[:, -2].min() > 0.8
    assert find(make_table(features=x, splits=splits))[0] == []


def test_the_blocks_of_a_large_table_find_what_one_block_finds(monkeypatch):
    made = table()
    x = made.features.copy()
    x[[70, 88, 100, 119]] = x[[5, 59, 6, 75]] * 1.0001
    whole = find(table(features=x, splits=made.splits))
    monkeypatch.setattr(near_duplicates, "_ROWS", 7)
    parts = find(table(features=x, splits=made.splits))
    pairs = [{(leak.path, leak.other) for leak in leaks} for leaks, _ in (whole, parts)]
    assert pairs[0] == pairs[1] and len(pairs[0]) == 4


def test_a_table_too_large_to_compare_says_so_and_still_finds_equal_files(monkeypatch):
    monkeypatch.setattr(near_duplicates, "MOST_IMAGES", 119)
    digests = list(table().digests)
    digests[61] = digests[3]
    leaks, note = find(table(digests=tuple(digests)))
    assert len(leaks) == 1 and leaks[0].same_file
    assert note == (
        "The features of 120 images were not compared for near-copies, only their files: "
        "--compare-all does, in time that grows with their square."
    )
    x = table().features.copy()
    x[70] = x[5]
    made = table(features=x, splits=table().splits)
    assert duplicates(made) == []
    assert [(one.row, one.other) for one in duplicates(made, compare_all=True)] == [(70, 5)]


def test_equal_files_come_first_then_the_nearest():
    x = table().features.copy()
    x[70], x[71] = x[5] + 0.01, x[6]
    x[71, 0] += 0.5
    digests = list(table().digests)
    digests[61] = digests[3]
    leaks, _ = find(table(features=x, splits=table().splits, digests=tuple(digests)))
    assert [leak.same_file for leak in leaks] == [True, False, False]
    assert leaks[1].cosine >= leaks[2].cosine


def test_images_without_a_split_are_passed_over():
    made = make_table(
        train=4, features=np.ones((4, 8)), splits=("train", "", "", "train"),
        digests=(digest("a"),) * 4,
    )  # fmt: skip
    assert find(made) == ([], None)


@pytest.mark.parametrize("rows", [(1, 1, 0), (1, 0, 1), (0, 3, 2)])
def test_tables_of_a_few_rows_are_compared_too(rows):
    train, val, test = rows
    leaks, _ = find(make_table(train=train, val=val, test=test))
    assert isinstance(leaks, list)


def duplicates(table, *, within=False, **options):
    if within:
        options["pairs"] = near_duplicates.ACROSS + near_duplicates.WITHIN
    return near_duplicates.find_near_duplicates(
        table.features, table.digests, table.splits, **options
    )


def test_within_a_split_each_two_are_told_once():
    x, digests = table().features.copy(), list(table().digests)
    x[20], x[90] = x[8] * 1.0001, x[95] * 1.0001
    x[30], digests[30] = x[3], digests[3]
    x[31], digests[31] = x[3], digests[3]
    made = table(features=x, digests=tuple(digests), splits=table().splits)
    found = {(one.row, one.other, one.same_file) for one in duplicates(made, within=True)}
    assert found == {(8, 20, False), (90, 95, False), (30, 3, True), (31, 3, True)}
    assert duplicates(made) == []


def test_within_too_images_without_a_split_are_compared_with_each_other():
    x = np.random.default_rng(0).normal(0, 1, (12, 8)).astype(np.float32)
    x[7] = x[2]
    made = make_table(features=x, splits=("",) * 12, labels=np.full(12, -1))
    assert [(one.row, one.other) for one in duplicates(made, within=True)] == [(2, 7)]


def test_blocks_within_a_split_find_what_one_block_finds(monkeypatch):
    x = table().features.copy()
    x[[20, 40, 59]] = x[[8, 41, 0]] * 1.0001
    made = table(features=x, splits=table().splits)
    whole = [(one.row, one.other) for one in duplicates(made, within=True)]
    monkeypatch.setattr(near_duplicates, "_ROWS", 7)
    assert [(one.row, one.other) for one in duplicates(made, within=True)] == whole
    assert sorted(whole) == [(0, 59), (8, 20), (40, 41)]


def test_two_pairs_are_one_set_where_one_of_each_are_near_copies_too():
    """Each is nearest to the other of its pair, so nearest images alone join no pair to another."""
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (60, 64)).astype(np.float32)
    towards = rng.normal(0, 1, (2, 64)).astype(np.float32)
    x[[21, 33, 50]] = x[3] + np.array([[0.05, 0], [0, 0.15], [0.05, 0.15]]) @ towards
    made = make_table(features=x, splits=("train",) * 60)
    found = [(one.row, one.other) for one in duplicates(made, pairs=[("train", "train")])]
    (joining,) = set(found) - {(3, 21), (33, 50)}
    assert len(found) == 3 and joining in [(3, 33), (3, 50), (21, 33), (21, 50)]
    kept, large = near_duplicates.ties(
        duplicates(made, pairs=[("train", "train")]), np.zeros(60, np.int64), np.arange(60)
    )
    assert sorted(kept) == sorted(found) and not large


def test_a_picture_that_was_saved_again_several_times_is_told_in_train_and_across():
    made = table(apart=0.2)
    x = made.features.copy()
    spread, rng = x[:60].std(0), np.random.default_rng(1)
    x[[20, 40, 70, 100]] = x[5] + rng.normal(0, 0.3, (4, x.shape[1])) * spread
    made = table(features=x, splits=made.splits)
    assert {one.row for one in duplicates(made) if made.splits[one.other] == "train"} == {70, 100}
    within = duplicates(made, pairs=[("train", "train")])
    assert {row for one in within for row in (one.row, one.other)} == {5, 20, 40}
    assert all(near_duplicates.SEVERAL <= one.cosine < near_duplicates.SURE for one in within)


def test_a_few_images_of_a_compact_class_are_no_copies():
    rng = np.random.default_rng(0)
    labels = np.arange(30) // 3
    x = rng.normal(0, 1, (10, 64))[labels] + rng.normal(0, 0.4, (30, 64))
    made = make_table(features=x, splits=("train",) * 30)
    left = near_duplicates.unit_length(x - x.mean(0))
    assert np.median(np.sort(left @ left.T, axis=1)[:, -2]) > near_duplicates.LIKELY
    assert duplicates(made, pairs=[("train", "train")]) == []
