import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.errors import PipelineError
from pipeline.store.flight import NAME, Flight

A, B, C = (bytes([n]) * 32 for n in (1, 2, 3))


def test_what_a_thread_noted_last_is_held_after_a_crash(tmp_path):
    flight = Flight(tmp_path).__enter__()  # and never left: the process is gone
    flight.begin([])
    with ThreadPoolExecutor(1) as pool:
        list(pool.map(flight.note, [A, B]))
    flight.note(C)
    with Flight(tmp_path) as after:
        assert after.held == {B, C} and after.crashing == set()


def test_what_is_known_to_crash_is_kept_until_a_run_ends_well(tmp_path):
    first = Flight(tmp_path).__enter__()
    first.begin([A])
    first.note(B)
    with pytest.raises(KeyboardInterrupt), Flight(tmp_path) as second:
        assert (second.crashing, second.held) == ({A}, {B})
        second.begin([B])
        second.note(C)
        raise KeyboardInterrupt
    with Flight(tmp_path) as third:
        assert (third.crashing, third.held) == ({A, B}, set())
        third.begin([])
    assert not (tmp_path / NAME).exists()


def test_an_orderly_end_leaves_nothing_where_nothing_crashes(tmp_path):
    with pytest.raises(ValueError, match="x"), Flight(tmp_path) as flight:
        flight.begin([])
        flight.note(A)
        raise ValueError("x")
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("data", [b"?", b"junk" * 100, bytes(33 * 3), b"?" + A + b"!"])
def test_notes_that_make_no_sense_are_passed_over(tmp_path, data):
    (tmp_path / NAME).write_bytes(data)
    with Flight(tmp_path) as flight:
        assert flight.crashing == set() and flight.held <= {A}


def test_notes_that_cannot_be_opened_are_told_and_those_that_cannot_be_written_are_not_missed(
    tmp_path, monkeypatch
):
    def full(*args):
        raise OSError(28, "No space left on device")

    with Flight(tmp_path) as flight:
        flight.begin([])
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            flight.note(A)
            with pytest.raises(PipelineError, match="No space left on device"):
                flight.begin([A])
    monkeypatch.setattr(os, "open", full)
    with (
        pytest.raises(PipelineError, match=r"Cannot write the notes .*No space left"),
        Flight(tmp_path),
    ):
        pass
