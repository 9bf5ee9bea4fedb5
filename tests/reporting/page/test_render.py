import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.reporting.page import render

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)


@given(JSON)
def test_data_come_back_from_a_script_element_and_cannot_end_it(values):
    text = render.embedded(values)
    assert "<" not in text and text.isascii()
    assert json.loads(text) == values


def test_numbers_that_json_lacks_are_refused():
    with pytest.raises(ValueError):
        render.embedded([float("nan")])


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.04, "0.0 s"), (99.94, "99.9 s"), (250, "4 min 10 s"), (7500, "2 h 5 min")],
)
def test_seconds_are_said_for_people(value, text):
    assert render.seconds(value) == text


def test_what_is_unknown_is_a_dash():
    assert (render.percent(None), render.figures(None)) == ("–", "–")
    assert (render.percent(0.1234), render.figures(0.5)) == ("12.3%", "0.500")
