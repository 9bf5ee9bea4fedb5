import csv

import numpy as np
import pytest
from tables import make_table

from pipeline.errors import DamagedError
from pipeline.heads.metrics import log_loss, softmax
from pipeline.pages import answers
from pipeline.verbs import predictions


@pytest.fixture
def table(tmp_path):
    return make_table(tmp_path / "t.h5", train=30, val=30, test=30)


def stored(folder, table, split="val", temperature=2.0, seed=0):
    """Write predictions as a head does and read them back."""
    rows = table.rows(split)
    logits = np.random.default_rng(seed).normal(0, 3, (len(rows), len(table.classes)))
    predictions.write(folder / f"predictions-{split}.csv", table, rows, softmax(logits))
    info = {
        "metrics": {split: {}},
        "majority": table.classes[0],
        "calibration": None if temperature is None else {"temperature": temperature},
    }
    return rows, logits, info


def test_predictions_come_back_on_the_rows_that_they_are_of(tmp_path, table):
    rows, logits, info = stored(tmp_path, table)
    (said,) = answers.read(tmp_path, info, table)
    assert said.split == "val"
    assert said.rows.tolist() == rows.tolist()
    assert said.labels.tolist() == table.labels[rows].tolist()
    assert said.predicted.tolist() == logits.argmax(1).tolist()


def test_stored_probabilities_are_calibrated_by_the_temperature(tmp_path, table):
    _, logits, info = stored(tmp_path, table, temperature=2.5)
    (said,) = answers.read(tmp_path, info, table)
    assert np.allclose(said.stored, softmax(logits), atol=1e-5)
    assert np.allclose(said.chances, softmax(logits, 2.5), atol=1e-4)
    assert said.after.log_loss == pytest.approx(log_loss(said.labels, said.chances))
    assert said.before.accuracy == said.after.accuracy


def test_without_a_temperature_before_and_after_are_the_same(tmp_path, table):
    _, _, info = stored(tmp_path, table, temperature=None)
    (said,) = answers.read(tmp_path, info, table)
    assert np.allclose(said.stored, said.chances)


def test_a_class_of_probability_zero_keeps_it(tmp_path, table):
    rows = table.rows("val")
    chances = np.zeros((len(rows), 3))
    chances[:, 0] = 1
    _, _, info = stored(tmp_path, table)
    predictions.write(tmp_path / "predictions-val.csv", table, rows, chances)
    (said,) = answers.read(tmp_path, info, table)
    assert said.chances.tolist() == chances.tolist()


def test_the_most_confident_mistakes_come_first_and_are_all_mistakes(tmp_path, table):
    _, _, info = stored(tmp_path, table)
    (said,) = answers.read(tmp_path, info, table)
    found = said.mistakes(5)
    wrong = said.predicted != said.labels
    assert wrong[found].all()
    assert (np.diff(said.confidence[found]) <= 0).all()
    assert said.confidence[found[0]] == said.confidence[wrong].max()
    least = said.least_certain(5)
    assert said.confidence[least[0]] == said.confidence.min()


def test_the_bins_of_the_diagram_hold_every_image_once(tmp_path, table):
    _, _, info = stored(tmp_path, table)
    (said,) = answers.read(tmp_path, info, table)
    for when, figures in (("before", said.before), ("after", said.after)):
        bins = said.bins()[when]
        assert sum(one["images"] for one in bins) == len(said.rows)
        gap = sum(one["images"] * abs(one["accuracy"] - one["confidence"]) for one in bins)
        assert gap / len(said.rows) == pytest.approx(figures.calibration_error)


def test_a_path_that_stands_twice_is_two_rows(tmp_path):
    made = make_table(train=6, val=6)
    table = make_table(tmp_path / "t.h5", train=6, val=6)
    object.__setattr__(table, "paths", ("same.jpg",) * len(made.paths))
    rows, _, info = stored(tmp_path, table)
    (said,) = answers.read(tmp_path, info, table)
    assert len(set(said.rows.tolist())) == len(rows)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("class001", "another"),
        lambda text: text.replace(".jpg", ".png"),
        lambda text: "\n".join([*text.splitlines()[:1], "x,y"]),
        lambda text: text.replace("0.", "nan #", 1),
        lambda text: "",
    ],
)
def test_a_file_that_does_not_fit_the_table_is_named(tmp_path, table, damage):
    _, _, info = stored(tmp_path, table)
    path = tmp_path / "predictions-val.csv"
    path.write_text(damage(path.read_text()))
    with pytest.raises(DamagedError, match=r"predictions-val\.csv is damaged"):
        answers.read(tmp_path, info, table)


def test_a_missing_file_is_named(tmp_path, table):
    _, _, info = stored(tmp_path, table)
    (tmp_path / "predictions-val.csv").unlink()
    with pytest.raises(DamagedError, match=r"predictions-val\.csv is missing"):
        answers.read(tmp_path, info, table)


def test_names_with_quotes_newlines_and_bytes_that_are_no_text_are_found_again(tmp_path):
    table = make_table(tmp_path / "t.h5", train=4, val=4, classes=2, names=('a"b', "c\nd"))
    odd = tuple(f"{name}\n{n},\udcff.jpg" for n, name in enumerate(table.paths))
    object.__setattr__(table, "paths", odd)
    rows, _, info = stored(tmp_path, table)
    (said,) = answers.read(tmp_path, info, table)
    assert said.rows.tolist() == rows.tolist()
    with (tmp_path / "predictions-val.csv").open(errors="surrogateescape", newline="") as file:
        assert next(csv.DictReader(file))["path"] == odd[rows[0]]
