"""The leaderboard of heads."""

import pytest
from fitting import QUICK, fitted
from tables import make_table

from pipeline.heads.leaderboard import leaderboard
from pipeline.store.results import HEAD

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_leaderboard_is_by_selection_with_the_best_marked_once(cache, table):
    fitted(table, cache, QUICK)
    board = leaderboard(HEAD.every(cache.root)[0], table.table_id)
    scores = [info["score"] for info in board]
    assert scores == sorted(scores, reverse=True) and len(board) == 5
    assert [info["best"] for info in board] == [True] + [False] * 4


def test_ties_go_to_the_simpler_kind(cache):
    table = make_table(train=60, val=12, apart=9)
    fitted(table, cache, "knn,ridge,ncm,lda")
    board = leaderboard(HEAD.every(cache.root)[0], table.table_id)
    assert {info["score"] for info in board} == {1.0}
    assert [info["clf"] for info in board] == ["ncm", "lda", "ridge", "knn"]


def test_heads_chosen_by_another_measure_are_not_compared(cache, table):
    fitted(table, cache, "lda,ncm")
    fitted(table, cache, "lda", select="log-loss")
    board = leaderboard(HEAD.every(cache.root)[0], table.table_id)
    groups = {info["group"] for info in board}
    assert len(groups) == 2 and sum(info["best"] for info in board) == 2


def test_heads_of_another_table_and_damaged_ones_do_not_stand_there(cache, table):
    done = fitted(table, cache, "lda,ncm")
    fitted(make_table(train=30), cache)
    (done.heads[0].folder / "head.json").write_text('{"schema": 1}')
    assert [info["clf"] for info in leaderboard(HEAD.every(cache.root)[0], table.table_id)] == [
        "ncm"
    ]
    assert len(HEAD.every(cache.root)) == 2
    assert leaderboard(HEAD.every(cache.root / "empty")[0], table.table_id) == []


def test_untried_heads_stand_last_and_none_is_best(cache):
    table = make_table(train=2, classes=2)
    fitted(table, cache, "lda,ncm")
    assert [info["best"] for info in leaderboard(HEAD.every(cache.root)[0], table.table_id)] == [
        False,
        False,
    ]
