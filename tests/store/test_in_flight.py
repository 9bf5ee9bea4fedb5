import errno
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.errors import PipelineError
from pipeline.store.in_flight import InFlightJournal, claimed

NAME = "decoding"
A, B, C = (bytes([n]) * 32 for n in (1, 2, 3))


def raising(number):
    def call(*given):
        raise OSError(number, os.strerror(number))

    return call


def crashed(path, *noted):
    """Make the notes of a run that was never left: the process is gone."""
    flight = InFlightJournal(path).__enter__()
    for digest in noted:
        flight.note(digest)
    return flight


def test_what_a_thread_noted_last_is_held_after_a_crash(tmp_path):
    flight = crashed(tmp_path / NAME)
    with ThreadPoolExecutor(1) as pool:
        list(pool.map(flight.note, [A, B]))
    flight.note(C)
    with InFlightJournal(tmp_path / NAME) as after:
        assert after.held == {B, C} and after.crashing == set()


def test_what_is_held_and_what_crashes_is_kept_whatever_the_end(tmp_path):
    path = tmp_path / NAME
    crashed(path, A)
    with pytest.raises(KeyboardInterrupt), InFlightJournal(path) as second:
        second.judge(A, crashes=True)
        second.note(B)
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), InFlightJournal(path) as third:
        assert (third.crashing, third.held) == ({A}, set())  # B was in no hand any more
        raise KeyboardInterrupt
    crashed(path, B)
    crashed(path, C)  # it ends before it meets B again
    with pytest.raises(KeyboardInterrupt), InFlightJournal(path) as last:
        assert (last.crashing, last.held) == ({A}, {B, C})
        last.judge(B, crashes=False)
        raise KeyboardInterrupt
    with InFlightJournal(path) as end:
        assert (end.crashing, end.held) == ({A}, {C})
        end.judge(C, crashes=False)
    with InFlightJournal(path) as again:
        assert (again.crashing, again.held) == ({A}, set())
        again.doubt()
        assert (again.crashing, again.held) == (set(), {A})
        again.judge(A, crashes=False)
    assert not path.exists()


def test_a_verdict_outlives_a_crash_that_follows_it(tmp_path):
    path = tmp_path / NAME
    crashed(path, A)
    with pytest.raises(KeyboardInterrupt), InFlightJournal(path) as flight:
        flight.note(B)
        raise KeyboardInterrupt
    crashed(path, B)
    flight = crashed(path)
    for digest, crashes in ((A, True), (B, False)):
        flight.judge(digest, crashes=crashes)
    flight.note(C)
    with InFlightJournal(path) as after:
        assert (after.crashing, after.held) == ({A}, {C})


def test_an_orderly_end_leaves_nothing_where_nothing_crashes(tmp_path):
    with pytest.raises(ValueError, match="x"), InFlightJournal(tmp_path / NAME) as flight:
        flight.note(A)
        raise ValueError("x")
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("data", [b"?", b"junk" * 100, bytes(33 * 3), b"?" + A + b"!"])
def test_notes_that_make_no_sense_are_passed_over(tmp_path, data):
    (tmp_path / NAME).write_bytes(data)
    with InFlightJournal(tmp_path / NAME) as flight:
        assert flight.crashing == set() and flight.held <= {A}


def test_notes_that_cannot_be_opened_are_told_and_those_that_cannot_be_written_are_not_missed(
    tmp_path, monkeypatch
):
    def full(*args):
        raise OSError(28, "No space left on device")

    crashed(tmp_path / NAME, A)
    with InFlightJournal(tmp_path / NAME) as flight, monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        flight.note(B)
        flight.judge(A, crashes=True)
        assert flight.crashing == {A}
        with (
            pytest.raises(PipelineError, match="No space left"),
            InFlightJournal(tmp_path / "other"),
        ):
            pass
    monkeypatch.setattr(os, "open", full)
    with (
        pytest.raises(PipelineError, match=r"Cannot write the journal .*No space left"),
        InFlightJournal(tmp_path / NAME),
    ):
        pass


def ended(folder, *noted):
    """Leave the notes of a process that claimed a file and crashed: its lock died with it."""
    with claimed(folder) as path:
        data = crashed(path, *noted)
        kept = path.read_bytes()
    path.write_bytes(kept)
    assert data.path == path


def test_a_process_takes_over_what_ended_ones_left_and_leaves_what_crashes(tmp_path):
    ended(tmp_path, A, B)
    ended(tmp_path, C)
    with claimed(tmp_path) as path, InFlightJournal(path) as flight:
        assert flight.held == {B, C} and list(tmp_path.iterdir()) == [path]
        flight.judge(B, crashes=True)
        flight.judge(C, crashes=False)
    with claimed(tmp_path) as path, InFlightJournal(path) as flight:
        assert (flight.crashing, flight.held) == ({B}, set())
    assert len(list(tmp_path.iterdir())) == 1
    with claimed(tmp_path / "none") as path, InFlightJournal(path):
        pass
    assert not (tmp_path / "none").exists()


def test_what_a_living_process_decodes_is_no_suspect_but_what_it_found_is_known(tmp_path):
    ended(tmp_path, A)
    with claimed(tmp_path) as path, InFlightJournal(path) as one:
        one.judge(A, crashes=True)
        one.note(B)
        with claimed(tmp_path) as other, InFlightJournal(other) as two:
            assert (two.crashing, two.held) == ({A}, set())
            assert path.exists() and other != path
        assert one.path.exists()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_without_locks_what_an_ended_process_left_is_taken_over_all_the_same(
    tmp_path, monkeypatch, number
):
    monkeypatch.setattr("fcntl.flock", raising(number))
    ended(tmp_path, A)
    with claimed(tmp_path) as path, InFlightJournal(path) as flight:
        assert flight.held == {A}
        flight.judge(A, crashes=False)
    assert list(tmp_path.iterdir()) == []


def test_a_claim_that_fails_leaves_no_file_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", raising(errno.EIO))
    with pytest.raises(PipelineError, match="Input/output error"), claimed(tmp_path / "folder"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PipelineError, match="file"), claimed(tmp_path / "file"):
        pass
