"""Keys, and values by key, without an object for each."""

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.store.index.keys import KeyMap, Keys

#: Digests some of which begin alike, so that their keys have one code.
DIGEST = st.integers(0, 5).map(
    lambda n: hashlib.sha256(bytes([n // 2])).digest()[:8] + bytes([n]) * 24
)
KEYS = st.lists(st.tuples(DIGEST, st.integers(0, 2)), max_size=20)


@given(KEYS)
def test_distinct_are_the_first_of_equal_ones_in_order(keys):
    found = Keys.of(keys).distinct().tolist()
    assert [keys[at] for at in found] == list(dict.fromkeys(keys)) and found == sorted(found)


@given(KEYS, KEYS)
def test_those_among_some_are_found(keys, some):
    found = Keys.of(keys).among(dict.fromkeys(some))
    assert found.tolist() == [key in some for key in keys]


@given(KEYS, KEYS)
def test_a_map_is_the_dictionary(keys, others):
    every = Keys.of(keys)
    first = every.distinct()
    values = [str(at) for at in first.tolist()]
    made, want = (
        KeyMap(every.take(first), values),
        dict(zip(list(dict.fromkeys(keys)), values, strict=True)),
    )
    assert list(made) == list(want) and list(made.items()) == list(want.items())
    assert list(made.values()) == list(want.values()) and len(made) == len(want)
    for key in [*keys, *others]:
        assert made.get(key) == want.get(key) and (key in made) == (key in want)
    np.testing.assert_array_equal(Keys.of(made).raw(), Keys.of(want).raw())
