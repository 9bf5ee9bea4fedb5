import json

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, LinearSVC

from pipeline.errors import UsageError
from pipeline.heads.estimators.described import build, describe, short, split


class Own(ClassifierMixin, BaseEstimator):
    def fit(self, X, y): ...


ESTIMATORS = [
    RandomForestClassifier(),
    RandomForestClassifier(np.int64(7), max_features=0.5, class_weight="balanced"),
    MLPClassifier((5, 3)),
    CalibratedClassifierCV(LinearSVC(C=2)),
    make_pipeline(PCA(2, whiten=True), LogisticRegression(C=np.float32(0.25))),
    VotingClassifier([("a", GaussianNB()), ("b", SVC(probability=True))], voting="soft"),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda one: type(one).__name__)
def test_an_estimator_comes_back_from_its_text(estimator):
    text = describe(estimator)
    assert repr(build(text)) == repr(build(describe(build(text))))
    assert repr(build(text)).replace("0.25", "") == (
        repr(estimator).replace("np.float32(0.25)", "").replace("np.int64(7)", "7")
    ).replace("0.25", "")
    assert short(text) == type(estimator).__name__
    assert split(f"ncm, {text} ,lda,") == ["ncm", text, "lda"]


def test_only_what_differs_from_the_defaults_is_written_under_the_public_place():
    assert describe(RandomForestClassifier()) == "sklearn.ensemble:RandomForestClassifier"
    assert describe(SVC(C=2.0)) == 'sklearn.svm:SVC{"C": 2.0}'
    text = describe(MLPClassifier((5,)))
    assert json.loads(text[text.index("{") :]) == {"hidden_layer_sizes": {"()": [5]}}


@pytest.mark.parametrize(
    ("estimator", "why"),
    [
        (Own(), "Own is not scikit-learn's own"),
        (make_pipeline(Own()), "Own is not scikit-learn's own"),
        (SVC(kernel=np.dot), "is a parameter that cannot be kept with a head"),
        (GaussianNB(priors=np.array([0.5, 0.5])), "is a parameter that cannot be kept"),
        (RandomForestClassifier(class_weight={0: 1}), "is a parameter that cannot be kept"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_no_text_can_hold_is_refused(estimator, why):
    with pytest.raises(UsageError, match=why):
        describe(estimator)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("os:system", "is no estimator of scikit-learn"),
        ("sklearn.os:system", "is no estimator"),
        ("sklearn.svm:Nope", "has no attribute 'Nope'"),
        ("sklearn.nope:SVC", "No module named"),
        ("sklearn.base:clone", "is no estimator"),
        ("sklearn.svm:SVC{", "is no estimator"),
        ('sklearn.svm:SVC{"nope": 1}', "unexpected keyword argument 'nope'"),
        ('sklearn.calibration:CalibratedClassifierCV{"estimator": {"os:system": {}}}', "os:system"),
        ("sklearn.svm:SVC" + '{"C": {"()": [' * 5000, "is no estimator"),
        (describe(LinearRegression()), "must be a classifier, and LinearRegression is none"),
        (describe(VotingClassifier([("a", GaussianNB())])), "VotingClassifier has neither"),
        (describe(SVC(decision_function_shape="ovo")), "a score for each class"),
    ],
)
def test_a_text_that_no_classifier_is_made_from_is_refused(text, why):
    with pytest.raises(UsageError, match=why):
        build(text)


@pytest.mark.parametrize("place", ["stranger:Own", "sklearn_stranger:Own"])
def test_no_module_but_scikit_learns_is_even_imported(place, tmp_path, monkeypatch):
    name = place.split(":")[0]
    (tmp_path / f"{name}.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(tmp_path)
    nested = json.dumps({"estimator": {place: {}}})
    for text in (place, f"sklearn.calibration:CalibratedClassifierCV{nested}"):
        with pytest.raises(UsageError, match="is no estimator of scikit-learn"):
            build(text)
