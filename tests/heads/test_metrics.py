import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn import metrics as theirs

from pipeline.heads import uncertainty
from pipeline.heads.metrics import SELECTIONS, fit_temperature, log_loss, measure, score, softmax
from pipeline.heads.uncertainty import Z, draws, interval, mcnemar, wilson


@st.composite
def guesses(draw, most=9):
    """Labels [N] and probabilities [N, K], some classes without an image."""
    classes, count = draw(st.integers(2, most)), draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    labels = rng.integers(0, draw(st.integers(1, classes)), count)
    scores = rng.normal(0, draw(st.floats(0.1, 5)), (count, classes))
    scores[np.arange(count), labels] += draw(st.floats(0, 4))
    return labels, softmax(scores)


def measured(labels, p):
    return measure(labels, p, tuple(f"c{k}" for k in range(p.shape[1])), 0)


def test_the_quantile_is_the_normal_distributions():
    assert pytest.approx(norm.ppf(0.975), abs=1e-12) == Z


@given(st.integers(1, 5000), st.floats(0, 1))
def test_wilsons_interval_holds_the_shares_that_a_score_test_would_not_reject(total, part):
    right = round(part * total)
    low, high = wilson(right, total)
    assert 0 <= low <= right / total + 1e-12 and right / total - 1e-12 <= high <= 1
    for share in (low, high):
        if 1e-6 < share < 1 - 1e-6:  # its ends solve |p̂ − p| = z √(p(1−p)/n)
            distance = Z * math.sqrt(share * (1 - share) / total)
            assert abs(right / total - share) == pytest.approx(distance, rel=1e-6, abs=1e-12)


@given(st.integers(1, 500), st.floats(0, 1))
def test_wilsons_interval_is_symmetric_and_shrinks_with_more_images(total, part):
    right = round(part * total)
    low, high = wilson(right, total)
    assert wilson(total - right, total) == pytest.approx((1 - high, 1 - low))
    more = wilson(right * 10, total * 10)
    assert more[1] - more[0] < high - low


def test_no_images_leave_any_accuracy_possible():
    assert wilson(0, 0) == (0.0, 1.0)


@given(guesses())
def test_accuracies_and_f1_are_scikit_learns(data):
    labels, p = data
    found, predicted = measured(labels, p), p.argmax(1)
    assert found.images == len(labels)
    assert found.accuracy == pytest.approx(theirs.accuracy_score(labels, predicted))
    named = np.union1d(labels, predicted)
    recall = theirs.recall_score(labels, predicted, labels=np.unique(labels), average="macro")
    assert found.balanced_accuracy == pytest.approx(recall)
    f1 = theirs.f1_score(labels, predicted, average="macro", zero_division=0)
    assert found.f1_macro == pytest.approx(f1)
    confusion = theirs.confusion_matrix(labels, predicted, labels=range(p.shape[1]))
    assert [list(row) for row in found.confusion] == confusion.tolist()
    each = theirs.precision_recall_fscore_support(
        labels, predicted, labels=range(p.shape[1]), zero_division=np.nan
    )
    for k, (row, *want) in enumerate(zip(found.classes, *each, strict=True)):
        assert row["class"] == f"c{k}" and row["images"] == want[3]
        for name, value in zip(("precision", "recall"), want[:2], strict=True):
            got = row[name]
            assert math.isnan(value) if got is None else got == pytest.approx(value)
        if k in named:
            assert row["f1"] == pytest.approx(float(np.nan_to_num(want[2])))
        else:
            assert row["f1"] is None


@given(guesses())
def test_log_loss_and_top5_are_scikit_learns(data):
    labels, p = data
    known = range(p.shape[1])
    found = measured(labels, p)
    clipped = np.clip(p, np.finfo(np.float32).eps, 1)  # ties that `top5` does not see
    want = -np.log(clipped[np.arange(len(p)), labels]).mean()
    assert found.log_loss == pytest.approx(want)
    if len(p) and p[np.arange(len(p)), labels].min() > 1e-6:
        even = clipped / clipped.sum(1, keepdims=True)
        want = theirs.log_loss(labels, even, labels=known)
        assert found.log_loss == pytest.approx(want, rel=1e-4, abs=1e-6)
    if len(known) > 5:
        top = theirs.top_k_accuracy_score(labels, p, k=5, labels=known)
        assert found.top5 == pytest.approx(top)
    else:
        assert found.top5 is None


@given(guesses())
def test_balanced_accuracy_is_scikit_learns_where_every_class_occurs(data):
    labels, p = data
    labels = np.concatenate([labels, np.arange(p.shape[1])])
    p = np.concatenate([p, np.eye(p.shape[1])])
    want = theirs.balanced_accuracy_score(labels, p.argmax(1))
    assert measured(labels, p).balanced_accuracy == pytest.approx(want)


@given(guesses())
def test_what_selects_is_what_is_reported(data):
    labels, p = data
    found = measured(labels, p)
    want = (found.accuracy, found.balanced_accuracy, -found.log_loss, found.f1_macro)
    assert [score(name, labels, p) for name in SELECTIONS] == pytest.approx(want)


def test_the_calibration_error_is_the_gap_of_confidence_and_accuracy():
    p = np.array([[0.8, 0.2]] * 10)
    labels = np.array([0] * 5 + [1] * 5)
    assert measured(labels, p).calibration_error == pytest.approx(0.3)
    sure = np.array([[1.0, 0.0]] * 4)
    assert measured(np.zeros(4, int), sure).calibration_error == 0


def test_the_baseline_is_the_accuracy_of_the_training_majority():
    labels, p = np.array([0, 0, 0, 1]), np.full((4, 2), 0.5)
    assert measure(labels, p, ("a", "b"), 0).baseline == 0.75
    assert measure(labels, p, ("a", "b"), 1).baseline == 0.25


def test_what_is_not_defined_is_null_in_the_json():
    p = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]])
    text = json.dumps(measured(np.array([0, 0]), p).to_json(), allow_nan=False)
    last = json.loads(text)["classes"][2]
    assert (last["precision"], last["recall"], last["f1"]) == (None, None, None)


@given(guesses(), st.floats(1e-3, 1e3), st.floats(-1e4, 1e4))
def test_softmax_gives_probabilities_that_a_common_term_does_not_change(data, temperature, term):
    scores = np.log(data[1])
    p = softmax(scores, temperature)
    assert (p >= 0).all() and p.sum(1) == pytest.approx(np.ones(len(p)))
    np.testing.assert_allclose(softmax(scores + term, temperature), p, rtol=1e-6, atol=1e-9)


def test_softmax_gives_a_class_that_cannot_be_nothing():
    p = softmax(np.array([[0.0, -np.inf, 1e5]]))
    np.testing.assert_array_equal(p, [[0, 0, 1]])


@settings(max_examples=50)
@given(guesses(), st.floats(1e-2, 1e2))
def test_no_temperature_fits_better_than_the_one_that_is_found(data, scale):
    scores, labels = np.log(data[1]) * scale, data[0]

    def loss(temperature):  # not clipped: what one image costs has no end
        z = scores / temperature
        top = z.max(1)
        return (np.log(np.exp(z - top[:, None]).sum(1)) + top - z[np.arange(len(z)), labels]).mean()

    found = fit_temperature(scores, labels)
    assert found > 0
    for other in np.geomspace(found / 50, found * 50, 41):
        assert loss(found) <= loss(other) + 1e-3


def test_the_temperature_of_scores_that_say_the_commonest_class_alone_is_that_of_its_share():
    """Clipped probabilities would have a second minimum, of certainty."""
    labels = (np.arange(800) % 200 == 0).astype(np.int64)
    scores = np.tile([0.5, -0.5], (800, 1))
    found = fit_temperature(scores, labels)
    assert softmax(scores, found)[0, 1] == pytest.approx(1 / 200, rel=1e-3)


def test_a_temperature_is_found_where_a_fold_never_saw_a_class():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    scores = rng.normal(0, 1, (60, 3)) + 2 * np.eye(3)[labels]
    scores[:20, 2] = -np.inf
    found = fit_temperature(scores, labels)
    assert 0 < found < np.inf


def test_scores_that_are_all_equal_have_a_temperature():
    assert 0 < fit_temperature(np.zeros((5, 3)), np.array([0, 1, 2, 0, 1])) < np.inf


def test_an_interval_over_groups_is_as_wide_as_their_number_makes_it():
    group_ids = draws([f"person {row // 20}" for row in range(400)])
    right = np.arange(400) // 20 % 4 > 0  # 15 of 20 groups, each all right or all wrong
    low, high = interval(right, group_ids)
    alone = wilson(300, 400)
    of_groups = wilson(15, 20)
    assert high - low > 3 * (alone[1] - alone[0])
    assert high - low == pytest.approx(of_groups[1] - of_groups[0], rel=0.15)
    assert interval(right, None) == alone
    assert interval(np.ones(400, bool), group_ids) == wilson(20, 20)


def test_groups_of_one_image_give_the_interval_of_images():
    right = np.random.default_rng(0).random(500) < 0.8
    found = interval(right, np.arange(500))
    assert found == pytest.approx(interval(right, None), abs=0.01)


def test_images_without_a_group_are_draws_of_their_own():
    assert draws(None) is None
    assert draws(["", ""]) is None
    assert draws(["a", "", "a", ""]).tolist() == [0, 1, 0, 2]


def test_a_test_over_groups_takes_a_group_for_one_draw():
    group_ids = np.arange(300) // 30
    first, second = np.ones(300, bool), group_ids > 0  # all 30 differences in one group
    over_images = mcnemar(first, second)
    over_groups = mcnemar(first, second, group_ids)
    assert over_images.p < 1e-6
    assert over_groups.p == 1.0
    assert (over_groups.first_alone, over_groups.groups) == (30, 10)
    assert mcnemar(second, first, group_ids).p == over_groups.p


def test_a_test_over_groups_of_one_image_is_near_mcnemars():
    rng = np.random.default_rng(1)
    first, second = rng.random(200) < 0.8, rng.random(200) < 0.9
    exact, flipped = mcnemar(first, second).p, mcnemar(first, second, np.arange(200)).p
    assert flipped == pytest.approx(exact, abs=0.02)


def test_of_many_groups_sums_are_taken_as_normal(monkeypatch):
    rng = np.random.default_rng(3)
    group_ids = np.repeat(np.arange(1500), 2)
    first, second = (rng.random(1500).repeat(2) < share for share in (0.80, 0.77))
    resampled = interval(first, group_ids), mcnemar(first, second, group_ids)
    monkeypatch.setattr(uncertainty, "MANY_GROUPS", 100)
    monkeypatch.setattr(uncertainty, "RESAMPLED", None)  # is not drawn any more
    assert interval(first, group_ids) == pytest.approx(resampled[0], abs=2e-3)
    normal = mcnemar(first, second, group_ids)
    assert normal.p == pytest.approx(resampled[1].p, abs=0.02)
    assert (normal.groups, normal.first_alone) == (1500, resampled[1].first_alone)


def test_losses_are_weighed_by_class():
    labels, p = np.array([0, 0, 0, 1]), np.array([[0.9, 0.1]] * 3 + [[0.8, 0.2]])
    even = log_loss(labels, p, np.array([4 / 6, 2.0]))
    assert even == pytest.approx((-np.log(0.9) - np.log(0.2)) / 2)
