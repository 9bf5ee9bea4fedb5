"""Parts of a stream: all that has come, in order, and what went wrong at its end."""

from threading import Semaphore

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.inference.bursts import bursts


@given(st.lists(st.integers(), max_size=30), st.integers(1, 7))
def test_every_item_comes_once_in_order_and_no_part_is_empty_or_too_long(items, most):
    parts = list(bursts(items, most))
    assert [item for part in parts for item in part] == items
    assert all(0 < len(part) <= most for part in parts)


def test_what_comes_at_once_comes_together():
    assert list(bursts(range(40), 100, patience=5)) == [list(range(40))]


def test_nobody_is_kept_waiting_for_what_has_not_come():
    go = Semaphore(0)

    def items():
        for number in range(3):
            yield number
            assert go.acquire(timeout=60)

    for number, part in enumerate(bursts(items(), 100)):
        assert part == [number]
        go.release()


def test_what_reading_raises_comes_after_what_was_read():
    def items():
        yield 1
        raise OSError("gone")

    found = bursts(items(), 10)
    assert next(found) == [1]
    with pytest.raises(OSError, match="gone"):
        next(found)
