import numpy as np
import pytest
from records import calibration, head_info
from tables import make_table

from pipeline.heads.metrics import log_loss, softmax
from pipeline.reporting.page import answers


@pytest.fixture
def table():
    return make_table(train=30, val=30, test=30)


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(0, 3, (30, 3))


def said_of(table, logits, temperature=2.0):
    """Return the answers whose stored probabilities are those of logits, to six digits."""
    chances = np.array([[float(f"{p:.6g}") for p in row] for row in softmax(logits)])
    fitted = None if temperature is None else calibration(temperature)
    info = head_info(classes=table.classes, majority=table.classes[0], calibration=fitted)
    return answers.of("val", table.rows("val"), chances, table=table, info=info)


def test_labels_and_predictions_are_of_the_rows(table, logits):
    said = said_of(table, logits)
    assert said.labels.tolist() == table.labels[table.rows("val")].tolist()
    assert said.predicted.tolist() == logits.argmax(1).tolist()


def test_stored_probabilities_are_calibrated_by_the_temperature(table, logits):
    said = said_of(table, logits, 2.5)
    assert np.allclose(said.stored, softmax(logits), atol=1e-5)
    assert np.allclose(said.chances, softmax(logits, 2.5), atol=1e-4)
    assert said.after.log_loss == pytest.approx(log_loss(said.labels, said.chances))
    assert said.before.accuracy == said.after.accuracy


def test_without_a_temperature_before_and_after_are_the_same(table, logits):
    said = said_of(table, logits, None)
    assert np.allclose(said.stored, said.chances)


def test_a_class_of_probability_zero_keeps_it(table, logits):
    logits[:, 1:] = -np.inf
    said = said_of(table, logits)
    assert said.chances.tolist() == [[1.0, 0.0, 0.0]] * 30


def test_the_most_confident_mistakes_come_first_and_are_all_mistakes(table, logits):
    said = said_of(table, logits)
    found = said.mistakes(5)
    wrong = said.predicted != said.labels
    assert wrong[found].all()
    assert (np.diff(said.confidence[found]) <= 0).all()
    assert said.confidence[found[0]] == said.confidence[wrong].max()
    least = said.least_certain(5)
    assert said.confidence[least[0]] == said.confidence.min()


def test_the_bins_of_the_diagram_hold_every_image_once(table, logits):
    said = said_of(table, logits)
    for when, figures in (("before", said.before), ("after", said.after)):
        bins = said.bins()[when]
        assert sum(one["images"] for one in bins) == len(said.rows)
        gap = sum(one["images"] * abs(one["accuracy"] - one["confidence"]) for one in bins)
        assert gap / len(said.rows) == pytest.approx(figures.calibration_error)
