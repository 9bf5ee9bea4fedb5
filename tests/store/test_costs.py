"""What rows took is added up, and lost without harm."""

import pytest

from pipeline.store import timings as costs


def test_the_rate_is_the_mean_over_all_runs(tmp_path):
    memo = tmp_path / "memo.sqlite"
    assert costs.rate(memo, "f" * 64) is None
    costs.note(memo, "f" * 64, 100, 20.0)
    costs.note(memo, "f" * 64, 2, 10.2)  # a few images, and the start of the engine
    costs.note(memo, "e" * 64, 1, 7.0)
    assert costs.rate(memo, "f" * 64) == pytest.approx(30.2 / 102)
    assert costs.rate(memo, "e" * 64) == 7.0


def test_nothing_computed_has_no_rate(tmp_path):
    costs.note(tmp_path / "memo.sqlite", "a", 0, 1.0)
    assert costs.rate(tmp_path / "memo.sqlite", "a") is None


def test_a_memo_that_is_damaged_or_cannot_be_written_is_no_trouble(tmp_path):
    (tmp_path / "memo.sqlite").write_bytes(b"no database at all, and long enough to tell" * 50)
    for memo in (tmp_path / "memo.sqlite", tmp_path / "nowhere" / "memo.sqlite"):
        costs.note(memo, "a", 1, 1.0)
        assert costs.rate(memo, "a") is None


def test_asking_makes_no_memo(tmp_path):
    assert costs.rate(tmp_path / "memo.sqlite", "a") is None
    assert list(tmp_path.iterdir()) == []
