import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.images.datasets import split

DIGESTS = st.lists(st.binary(min_size=32, max_size=32), max_size=60)
FRACTIONS = st.floats(0, 0.49)


def assign(digests, groups=None, **options):
    return split.assign(digests, np.zeros(len(digests), int), groups, **options)


@given(DIGESTS, DIGESTS, FRACTIONS, FRACTIONS, st.integers(-3, 3))
def test_adding_images_moves_none(before, added, val, test, seed):
    options = {"val": val, "test": test, "seed": seed}
    assert assign(before + added, **options)[: len(before)] == assign(before, **options)


@given(DIGESTS, st.randoms())
def test_the_order_of_images_does_not_matter(digests, random):
    order = list(range(len(digests)))
    random.shuffle(order)
    splits = assign(digests)
    assert assign([digests[row] for row in order]) == [splits[row] for row in order]


@given(st.lists(st.sampled_from([bytes([n]) * 32 for n in range(5)]), max_size=40))
def test_equal_files_land_in_one_split(digests):
    splits = assign(digests)
    for digest in set(digests):
        assert len({s for d, s in zip(digests, splits, strict=True) if d == digest}) == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.sampled_from(["", "a", "b", "c", "d", "é", "f"])),
        max_size=60,
    )
)
def test_a_group_never_crosses_splits_and_nor_do_equal_files(rows):
    digests = [bytes([number]) * 32 for number, _ in rows]
    groups = [group for _, group in rows]
    splits = assign(digests, groups, val=0.3, test=0.3)
    for keys in (digests, groups):
        for key in set(keys) - {""}:
            assert len({s for k, s in zip(keys, splits, strict=True) if k == key}) == 1


@given(st.integers(0, 2**32), st.integers(0, 100))
def test_adding_images_that_tie_no_groups_moves_no_group(start, seed):
    digests = [(start + n).to_bytes(32, "big") for n in range(40)]
    groups = [f"group {n % 7}" for n in range(30)] + ["later 1"] * 5 + [""] * 5
    options = {"val": 0.3, "test": 0.3, "seed": seed}
    assert assign(digests, groups, **options)[:30] == assign(digests[:30], groups[:30], **options)


def test_equal_files_tie_groups_over_any_number_of_steps():
    digests = [bytes([n]) * 32 for n in (0, 1, 1, 2, 2, 3, 3, 4)]
    groups = ["e", "e", "d", "d", "c", "c", "b", "b"]
    for seed in range(30):
        assert len(set(assign(digests, groups, val=0.3, test=0.3, seed=seed))) == 1


def test_a_file_without_a_group_goes_with_an_equal_one_that_has_a_group():
    same = b"s" * 32
    others = [bytes([n]) * 32 for n in range(9)]
    for seed in range(30):
        splits = assign([same, same, *others], ["", "g", *["g"] * 9], val=0.3, test=0.3, seed=seed)
        assert len(set(splits)) == 1


def test_groups_are_spread_over_the_splits():
    digests = [n.to_bytes(32, "big") for n in range(3000)]
    splits = assign(digests, [f"{n // 3}" for n in range(3000)])
    assert 0.11 < splits.count("val") / 3000 < 0.19


def test_the_fractions_are_met_about():
    splits = assign([n.to_bytes(32, "big") for n in range(10_000)], val=0.2, test=0.1)
    assert splits.count("val") == pytest.approx(2000, abs=150)
    assert splits.count("test") == pytest.approx(1000, abs=120)


def test_the_splits_of_a_seed_never_change():
    splits = assign([n.to_bytes(32, "big") for n in range(16)], val=0.25, test=0.25)
    assert " ".join(splits) == (
        "train train val train val train val val train train train train test val test train"
    )


def test_another_seed_gives_another_split():
    digests = [n.to_bytes(32, "big") for n in range(100)]
    assert assign(digests, seed=0) != assign(digests, seed=1)


@given(DIGESTS, FRACTIONS, FRACTIONS, FRACTIONS)
def test_test_images_stay_test_images_whatever_is_taken_for_validation(digests, one, two, test):
    first, second = assign(digests, val=one, test=test), assign(digests, val=two, test=test)
    assert [s == "test" for s in first] == [s == "test" for s in second]


def test_an_image_without_a_label_gets_no_split():
    assert split.assign([b"a" * 32, b"b" * 32], [-1, -1], None) == ["", ""]


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"val": -0.1}, "--val-fraction must be at least 0 and below 1, not -0.1."),
        ({"test": 1.5}, "--test-fraction must be at least 0 and below 1, not 1.5."),
        ({"val": float("nan")}, "--val-fraction must be at least 0 and below 1, not nan."),
        (
            {"val": -1, "test": 2},
            "--val-fraction must be at least 0 and below 1, not -1; "
            "--test-fraction must be at least 0 and below 1, not 2.",
        ),
        (
            {"val": 0.5, "test": 0.5},
            "--val-fraction 0.5 and --test-fraction 0.5 leave nothing to train on: "
            "together they must be below 1.",
        ),
    ],
)
def test_senseless_fractions_are_refused(fractions, message):
    with pytest.raises(UsageError) as caught:
        assign([b"a" * 32], **fractions)
    assert str(caught.value) == message


def test_no_fractions_at_all_leave_everything_to_train_on():
    assert set(assign([n.to_bytes(32, "big") for n in range(50)], val=0, test=0)) == {"train"}


def test_a_class_too_small_for_every_split_is_told_by_name():
    splits = ["train", "val", "test", "train", "train"]
    told = split.notes(splits, [0, 0, 0, 1, 1], ["ants", "bees"])
    assert told == (
        "Too few images of a class to be in every split: val has no image of 'bees' (2 images); "
        "test has no image of 'bees' (2 images). Images are split by a hash of their content; add "
        "images, give a split column, or try another --seed.",
    )


def test_a_split_that_nobody_asked_for_is_not_missed():
    assert split.notes(["train", "test"], [0, 0], ["ants"], val=0) == ()


def test_equal_files_in_given_splits_are_told():
    digests = [b"a", b"b", b"a", b"b", b"c"]
    files = ["d/a.png", "d/b.png", "d/a b's.png", "d/b2.png", "d/c.png"]
    assert split.leaks(digests, ["train", "train", "val", "test", "test"], files) == (
        "1 image of val is also in train, byte for byte (possible leak), such as "
        """'d/a b'"'"'s.png' d/a.png.""",
        "1 image of test is also in train, byte for byte (possible leak), such as d/b2.png "
        "d/b.png.",
    )
    assert split.leaks(digests[2:], ["train", "val", "test"], files[2:]) == ()
