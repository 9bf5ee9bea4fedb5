import numpy as np
import pytest
from records import calibration, head_info, split_metrics
from tables import make_table

from pipeline.heads.metrics import log_loss, softmax
from pipeline.reporting.page import answers


@pytest.fixture
def table():
    return make_table(train=30, val=30, test=30)


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(0, 3, (30, 3))


def answers_of(table, logits, temperature=2.0):
    """Return the answers whose stored probabilities are those of logits, to six digits."""
    stored = np.array([[float(f"{p:.6g}") for p in row] for row in softmax(logits)])
    fitted = None if temperature is None else calibration(temperature)
    info = head_info(
        classes=table.classes,
        majority=table.classes[0],
        calibration=fitted,
        metrics={"val": split_metrics()},
    )
    return answers.of("val", table.rows("val"), stored, table=table, info=info)


def test_labels_and_predictions_are_of_the_rows(table, logits):
    found = answers_of(table, logits)
    assert found.labels.tolist() == table.labels[table.rows("val")].tolist()
    assert found.predicted.tolist() == logits.argmax(1).tolist()


def test_stored_probabilities_are_calibrated_by_the_temperature(table, logits):
    found = answers_of(table, logits, 2.5)
    assert np.allclose(found.stored, softmax(logits), atol=1e-5)
    assert np.allclose(found.probabilities, softmax(logits, 2.5), atol=1e-4)
    assert found.after.log_loss == pytest.approx(log_loss(found.labels, found.probabilities))
    assert found.before.accuracy == found.after.accuracy


def test_without_a_temperature_before_and_after_are_the_same(table, logits):
    found = answers_of(table, logits, None)
    assert np.allclose(found.stored, found.probabilities)


def test_a_class_of_probability_zero_keeps_it(table, logits):
    logits[:, 1:] = -np.inf
    found = answers_of(table, logits)
    assert found.probabilities.tolist() == [[1.0, 0.0, 0.0]] * 30


def test_the_most_confident_mistakes_come_first_and_are_all_mistakes(table, logits):
    found = answers_of(table, logits)
    first = found.mistakes(5)
    wrong = found.predicted != found.labels
    assert wrong[first].all()
    assert (np.diff(found.confidence[first]) <= 0).all()
    assert found.confidence[first[0]] == found.confidence[wrong].max()
    least = found.least_certain(5)
    assert found.confidence[least[0]] == found.confidence.min()


def test_the_bins_of_the_diagram_hold_every_image_once(table, logits):
    found = answers_of(table, logits)
    for when, figures in (("before", found.before), ("after", found.after)):
        bins = found.bins()[when]
        assert sum(one["images"] for one in bins) == len(found.rows)
        gap = sum(one["images"] * abs(one["accuracy"] - one["confidence"]) for one in bins)
        assert gap / len(found.rows) == pytest.approx(figures.calibration_error)


def test_the_commonest_confusions_come_first_and_each_class_has_its_own(table, logits):
    found = answers_of(table, logits)
    confusion = np.array(found.after.confusion)
    counts = [count for count, _, _ in found.confusions]
    assert counts == sorted(counts, reverse=True) and 0 not in counts
    assert sum(counts) == len(found.wrong) == 30 - confusion.trace()
    for count, label, predicted in found.confusions:
        assert confusion[label, predicted] == count and label != predicted
    np.fill_diagonal(confusion, 0)
    assert found.mostly == {k: (row.max(), row.argmax()) for k, row in enumerate(confusion)}
