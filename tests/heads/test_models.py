"""The leaderboard of models."""

from pipeline.heads.models import board


def model(name, loss, *, beats, table="t", on="same"):
    metrics = {"val": {"model": {"log_loss": loss}}}
    return {"id": name, "table_id": table, "compared_on": on, "selected_on": "val",
            "beats_head": beats, "metrics": metrics}  # fmt: skip


def test_those_that_beat_their_heads_come_first_and_no_other_is_the_best():
    made = [
        model("worse", 0.5, beats=True),
        model("lost accuracy", 0.2, beats=False),
        model("best", 0.4, beats=True),
        model("alone", 0.1, beats=False, on="other images"),
        model("elsewhere", 0.1, beats=True, table="u"),
    ]
    found = [(info["id"], info["group"], info["best"]) for info in board(made, "t")]
    assert found == [
        ("best", 0, True), ("worse", 0, False), ("lost accuracy", 0, False), ("alone", 1, False),
    ]  # fmt: skip
