"""Digests and texts in arrays behave as tuples of them."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import sequences
from pipeline.sequences import Digests, HexDigests, Texts
from pipeline.store import hdf5

DIGESTS = st.lists(st.integers(0, 9), max_size=12).map(
    lambda numbers: tuple(hashlib.sha256(bytes([n])).digest() for n in numbers)
)
#: What a file system gives for a name: text without zero bytes, some of it no UTF-8.
NAMES = st.binary(max_size=9).map(
    lambda b: b.replace(b"\0", b"").decode("utf-8", "surrogateescape")
)
CUTS = st.builds(slice, *[st.one_of(st.none(), st.integers(-14, 14))] * 2)


def alike(made, want, cut):
    assert len(made) == len(want) and tuple(made) == want and made == want and want == made
    assert made[cut] == want[cut] and type(made[cut]) is type(made)
    assert [made[at] for at in range(-len(want), len(want))] == [*want, *want]
    with pytest.raises(IndexError):
        made[len(want)]
    assert made != (*want, "more") and (made == "text") is False


@given(DIGESTS, CUTS)
def test_digests_are_those_that_were_given(digests, cut):
    made = Digests.of(digests)
    alike(made, digests, cut)
    assert Digests.of(made) is made and made == Digests.of(list(digests))
    names = tuple(digest.hex() for digest in digests)
    alike(HexDigests(made), names, cut)
    assert HexDigests(made) == HexDigests(Digests.of_hex(names)) and Digests.of_hex(names) == made
    assert HexDigests(made).array.tolist() == [name.encode() for name in names]


def test_some_digests_are_taken():
    digests = Digests.of([bytes([n]) * 32 for n in range(5)])
    assert digests.take(np.array([4, 0])) == (b"\4" * 32, b"\0" * 32)
    assert digests.take([]) == ()


def test_what_is_no_digest_is_refused():
    for wrong in (["zz" * 32], ["ab"]):
        with pytest.raises(ValueError):
            Digests.of_hex(wrong)


@given(st.lists(NAMES, max_size=12).map(tuple), CUTS)
def test_texts_are_those_that_were_written(names, cut):
    array = hdf5.strings(names)
    alike(Texts(array), names, cut)
    assert Texts(array) == Texts(hdf5.strings(Texts(array)))
    assert hdf5.to_strings(array) == names


def test_more_than_are_made_at_once_come_in_order(monkeypatch):
    monkeypatch.setattr(sequences, "_AT_ONCE", 3)
    monkeypatch.setattr(hdf5, "_AT_ONCE", 3)
    names = tuple("x" * n for n in range(11))
    assert tuple(Texts(hdf5.strings(names))) == names
    digests = tuple(bytes([n]) * 32 for n in range(11))
    assert tuple(Digests.of(digests)) == digests


def test_equal_texts_are_one_object():
    first, second = hdf5.to_strings(hdf5.strings(("train", "train")))
    assert first is second
