import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from tables import clouds

from pipeline.heads.estimators.classifiers import ShrinkageLDA


@settings(max_examples=30)
@given(
    st.integers(2, 5),
    st.integers(1, 12),
    st.sampled_from([0.01, 0.1, 0.5, 0.99, 1.0]),
    st.integers(0, 50),
)
def test_it_is_scikit_learns_least_squares_solution(classes, dim, shrinkage, seed):
    x, y = clouds(40, dim, classes, seed=seed)
    keep = np.random.default_rng(seed).random(40) < 0.7
    keep[: classes * 2] = True
    x, y = x[keep].astype(np.float64), y[keep] * 10
    want = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(x, y)
    got = ShrinkageLDA(shrinkage=shrinkage).fit(x, y)
    np.testing.assert_allclose(got.coef_, want.coef_, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        got.decision_function(x), want.decision_function(x), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_array_equal(got.predict(x), want.predict(x))


def test_balanced_moves_the_boundary_and_does_not_turn_it():
    x, y = clouds(60, 5, 3)
    x, y = x[(y != 2) | (np.arange(60) < 12)], y[(y != 2) | (np.arange(60) < 12)]
    plain, even = (ShrinkageLDA(class_weight=w).fit(x, y) for w in (None, "balanced"))
    np.testing.assert_allclose(even.coef_, plain.coef_)
    shift = even.intercept_ - plain.intercept_
    np.testing.assert_allclose(shift, np.log(1 / 3) - np.log(np.bincount(y) / len(y)))


@pytest.mark.parametrize("shrinkage", [0.01, 0.5, 1.0])
def test_with_more_features_than_images_the_solution_is_the_same(shrinkage):
    x, y = clouds(20, 60, 3)
    x = x.astype(np.float64)
    want = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(x, y)
    got = ShrinkageLDA(shrinkage=shrinkage).fit(x, y)
    np.testing.assert_allclose(got.coef_, want.coef_, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(got.intercept_, want.intercept_, rtol=1e-6, atol=1e-9)


def test_one_image_a_class_and_features_that_never_change_have_a_solution():
    x = np.array([[0.0, 1, 5], [1, 0, 5]])
    found = ShrinkageLDA(shrinkage=0.1).fit(x, np.array(["a", "b"]))
    assert found.predict(x).tolist() == ["a", "b"]
    still = ShrinkageLDA(shrinkage=0.5).fit(np.ones((4, 2)), np.array([0, 0, 0, 1]))
    assert still.predict(np.ones((1, 2))).tolist() == [0]


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="at least two classes"):
        ShrinkageLDA().fit(np.ones((3, 2)), np.zeros(3))


@pytest.mark.parametrize("shrinkage", [0.0, -0.1, 1.5])
def test_a_shrinkage_out_of_range_is_refused_with_what_is_allowed(shrinkage):
    x, y = clouds(20, 3, 2)
    with pytest.raises(ValueError, match=rf"shrinkage {shrinkage} is not above 0 and at most 1"):
        ShrinkageLDA(shrinkage=shrinkage).fit(x, y)
