"""The leaderboards of heads and of models."""

from dataclasses import replace

import pytest
from fitting import QUICK, fitted
from records import head_info, model_info, model_scores
from tables import make_table

from pipeline.heads.leaderboard import rank_heads, rank_models, ties
from pipeline.store.results import HEAD

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_leaderboard_is_by_selection_with_the_best_marked_once(cache, table):
    fitted(table, cache, QUICK)
    board = rank_heads(HEAD.every(cache.root)[0], table.table_id)
    top = max((one.info for one in board), key=lambda info: info.score)
    tied = [one.info for one in board if ties(one.info, top)]
    losses, rest = (
        [i.held_out_log_loss for i in tied],
        [one.info.score for one in board[len(tied) :]],
    )
    assert [one.info for one in board[: len(tied)]] == tied and losses == sorted(losses)
    assert rest == sorted(rest, reverse=True) and len(board) == 5
    assert [one.best for one in board] == [True] + [False] * 4


def test_ties_go_to_the_simpler_kind(cache):
    table = make_table(train=60, val=12, apart=9)
    fitted(table, cache, "knn,ridge,ncm,lda")
    board = rank_heads(HEAD.every(cache.root)[0], table.table_id)
    assert {one.info.score for one in board} == {1.0}
    assert [one.info.clf for one in board] == ["ncm", "lda", "ridge", "knn"]


def test_heads_chosen_by_another_measure_are_not_compared(cache, table):
    fitted(table, cache, "lda,ncm")
    fitted(table, cache, "lda", select="log-loss")
    board = rank_heads(HEAD.every(cache.root)[0], table.table_id)
    groups = {one.group for one in board}
    assert len(groups) == 2 and sum(one.best for one in board) == 2


def test_heads_of_another_table_and_damaged_ones_do_not_stand_there(cache, table):
    done = fitted(table, cache, "lda,ncm")
    fitted(make_table(train=30), cache)
    (done.heads[0].folder / "head.json").write_text('{"schema": 1}')
    assert [one.info.clf for one in rank_heads(HEAD.every(cache.root)[0], table.table_id)] == [
        "ncm"
    ]
    assert len(HEAD.every(cache.root)) == 2
    assert rank_heads(HEAD.every(cache.root / "empty")[0], table.table_id) == []


def test_untried_heads_stand_last_and_none_is_best(cache):
    table = make_table(train=2, classes=2)
    fitted(table, cache, "lda,ncm")
    assert [one.best for one in rank_heads(HEAD.every(cache.root)[0], table.table_id)] == [
        False,
        False,
    ]


def model(name, loss, *, beats, table="t", on="same"):
    metrics = {"val": model_scores(model={"log_loss": loss}, selected_on=True)}
    return model_info(id=name, table_id=table, compared_on=on, beats_head=beats, metrics=metrics)


def test_models_that_beat_their_heads_come_first_and_no_other_is_the_best():
    made = [
        model("worse", 0.5, beats=True),
        model("lost accuracy", 0.2, beats=False),
        model("best", 0.4, beats=True),
        model("alone", 0.1, beats=False, on="other images"),
        model("elsewhere", 0.1, beats=True, table="u"),
    ]
    found = [(one.info.id, one.group, one.best) for one in rank_models(made, "t")]
    assert found == [
        ("best", 0, True), ("worse", 0, False), ("lost accuracy", 0, False), ("alone", 1, False),
    ]  # fmt: skip


def test_a_kind_of_another_release_stands_behind_those_of_its_score_and_is_not_left_out():
    made = [
        head_info(id="untried knn", table_id="t", clf="knn", score=None),
        head_info(id="foreign", table_id="t", clf="of another release", score=0.8),
        head_info(id="untried ncm", table_id="t", clf="ncm", score=None),
        head_info(id="knn", table_id="t", clf="knn", score=0.8),
    ]
    found = [(one.info.id, one.best) for one in rank_heads(made, "t")]
    assert found == [
        ("knn", True), ("foreign", False), ("untried knn", False), ("untried ncm", False),
    ]  # fmt: skip


def test_a_place_is_printed_with_all_of_the_file_and_where_it_is(tmp_path):
    (one,) = rank_heads([replace(head_info(table_id="t"), folder=tmp_path)], "t")
    place = {"path": str(tmp_path), "group": 0, "best": True}
    assert one.to_json() == {**one.info.to_json(), **place}
    assert "folder" not in one.to_json()
