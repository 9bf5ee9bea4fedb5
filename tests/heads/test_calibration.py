import numpy as np
import pytest
from tables import make_table

from pipeline.heads.fit_head import fit_heads
from pipeline.heads.head import Head
from pipeline.heads.metrics import calibrate, log_loss, softmax
from pipeline.heads.options import FitHeadOptions
from pipeline.store.cache import Cache


def noisy(n: int = 4000, *, temperature: float = 1.0):
    """Return logits that are `temperature` times too large, and labels of the right ones."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (n, 3))
    labels = np.array([rng.choice(3, p=p) for p in softmax(logits)])
    return logits * temperature, labels


@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
def test_it_finds_by_how_much_logits_are_too_large(temperature):
    found = calibrate(*noisy(temperature=temperature), on="cv")
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    assert found.after <= found.before and (found.on, found.images) == ("cv", 4000)


def test_faultless_images_give_no_certainty():
    labels = np.arange(30) % 3
    logits = 4.0 * np.eye(3)[labels]
    found = calibrate(logits, labels, on="val")
    wrong = 1 - softmax(logits, found.temperature).max()
    assert 1 / 1000 < wrong < 1 / 10  # about one image in thirty, shared by the classes


def test_a_temperature_that_does_not_help_is_none():
    logits, labels = noisy(40)
    found = calibrate(np.zeros_like(logits), labels, on="cv")
    assert found.temperature == 1.0 and found.before == found.after


def test_a_class_that_was_never_seen_stays_impossible():
    logits, labels = noisy(300, temperature=3)
    logits[:, 2] = -np.inf
    found = calibrate(logits, labels % 2, on="cv")
    p = softmax(logits, found.temperature)
    assert np.isfinite(found.temperature) and (p[:, 2] == 0).all()


@pytest.mark.parametrize("clf", ["logreg", "lda", "nb", "knn", "linear"])
@pytest.mark.parametrize("select_on", ["cv", "val"])
def test_a_head_keeps_the_temperature_of_images_that_it_was_not_fitted_on(tmp_path, clf, select_on):
    table = make_table(tmp_path / "t.h5", train=240, val=60, test=300, dim=12, apart=0.9)
    cache = Cache.at(tmp_path / "cache")
    done = fit_heads(table, FitHeadOptions(clf=clf, folds=3, jobs=1, select_on=select_on), cache)
    head = Head.open(done.heads[0].folder)
    fitted = head.info.calibration
    assert (fitted.on, fitted.images) == (select_on, 60 if select_on == "val" else 240)
    test = table.rows("test")
    x, y = np.asarray(table.features[test]), table.labels[test]
    plain, better = head.predict_proba(x, calibrated=False), head.predict_proba(x)
    np.testing.assert_array_equal(plain.argmax(1), better.argmax(1))
    np.testing.assert_allclose(softmax(head.logits(x)), plain, atol=1e-12)
    np.testing.assert_allclose(softmax(head.logits(x), fitted.temperature), better, atol=1e-12)
    assert log_loss(y, better) <= log_loss(y, plain) + 0.05
    if select_on == "val":  # chosen and fitted on these very images
        val = table.rows("val")
        p = head.predict_proba(table.features[val], calibrated=False)
        held = log_loss(table.labels[val], p)
        assert fitted.before == pytest.approx(held, abs=1e-3)


def test_without_held_out_images_there_is_no_temperature(tmp_path):
    table = make_table(tmp_path / "t.h5", train=2, classes=2)
    done = fit_heads(table, FitHeadOptions(clf="lda", jobs=1), Cache.at(tmp_path / "cache"))
    assert done.heads[0].info.calibration is None
    x = np.asarray(table.features)
    plain = done.heads[0].predict_proba(x, calibrated=False)
    np.testing.assert_array_equal(plain, done.heads[0].predict_proba(x))


def test_naive_bayes_is_calibrated_where_its_probabilities_are_zero_in_floating_point(tmp_path):
    few = make_table(train=300, test=300, dim=8, apart=1.0)
    table = make_table(
        tmp_path / "t.h5", features=np.tile(few.features, (1, 400)), labels=few.labels,
        splits=few.splits,
    )  # fmt: skip
    head = fit_heads(
        table, FitHeadOptions(clf="nb", folds=3, jobs=1), Cache.at(tmp_path / "c")
    ).heads[0]
    assert np.isfinite(head.logits(table.features)).all()
    plain, better = (head.predict_proba(table.features, calibrated=on) for on in (False, True))
    assert plain.max(1).mean() > 0.99 and (plain == 0).any()
    assert better.max(1).mean() < 0.95 and (better > 0).all()
