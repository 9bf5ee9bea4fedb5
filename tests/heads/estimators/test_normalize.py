import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler
from tables import clouds

from pipeline.heads.estimators import normalize
from pipeline.heads.estimators.normalize import FLOOR, NORMALIZATIONS, Normalizer


def test_the_scale_of_a_feature_has_a_floor_from_all_features():
    x, _ = clouds(50, 8, 2)
    x[:, 3] *= 1e-6
    rows = np.arange(0, 50, 2)
    got = Normalizer.fit("standard", x, rows)
    want = StandardScaler().fit(x[rows].astype(np.float64))
    rms = np.sqrt(want.var_.mean())
    np.testing.assert_allclose(got.mean, want.mean_, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(got.scale, np.hypot(want.scale_, FLOOR * rms), rtol=1e-5)
    assert got.apply(x, rows)[:, 3].std() < 1e-5


@pytest.mark.parametrize("unit", [1e-12, 1e-6, 1e6, 1e12])
def test_the_unit_of_the_features_changes_nothing(unit):
    x, _ = clouds(50, 8, 2)
    x[:, 3] *= 0.1
    want = Normalizer.fit("standard", x, np.arange(50)).apply(x)
    x = x * np.float32(unit)
    got = Normalizer.fit("standard", x, np.arange(50)).apply(x)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_one_feature_in_another_unit_does_not_make_all_others_small():
    x, _ = clouds(50, 20, 2)
    want = Normalizer.fit("standard", x, np.arange(50)).apply(x).std(0)
    x[:, 0] *= 1e6
    got = Normalizer.fit("standard", x, np.arange(50)).apply(x).std(0)
    assert got[0] == pytest.approx(1, abs=1e-3) and (got[1:] > want[1:] / 8).all()


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_other_rows_change_nothing(kind):
    x, _ = clouds(50, 8, 2)
    rows = np.arange(30)
    changed = x.copy()
    changed[30:] += 1e6
    one, other = (Normalizer.fit(kind, values, rows) for values in (x, changed))
    assert one.apply(x, rows).tobytes() == other.apply(changed, rows).tobytes()


def test_a_feature_that_never_changes_is_only_shifted():
    x = np.tile(np.array([[0.0, 3.7, 1e5, -2e-9]], np.float32), (30, 1))
    found = Normalizer.fit("standard", x, np.arange(30))
    np.testing.assert_array_equal(found.scale, np.ones(4))
    np.testing.assert_allclose(found.apply(x), 0, atol=1e-2)


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_the_transformer_for_scikit_learn_does_the_same(kind):
    x, _ = clouds(40, 6, 2)
    x[:, 2] = 1.5
    found = Normalizer.fit(kind, x, np.arange(25))
    step = found.step()
    got = x if step == "passthrough" else step.transform(x)
    np.testing.assert_allclose(got, found.apply(x), rtol=1e-4, atol=1e-5)


@given(st.integers(1, 30), st.integers(1, 9), st.sampled_from(NORMALIZATIONS))
def test_blocks_of_rows_do_not_matter(count, block, kind):
    x, _ = clouds(count, 5, 2)
    rows = np.random.default_rng(count).permutation(count)
    whole = Normalizer.fit(kind, x, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(normalize, "_ROWS", block)
        parts = Normalizer.fit(kind, x, rows)
        got = parts.apply(x, rows)
    want = whole.apply(x, rows)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_l2_makes_lengths_one_and_leaves_zeros():
    x = np.array([[3, 4], [0, 0]], np.float32)
    np.testing.assert_allclose(Normalizer("l2").apply(x), [[0.6, 0.8], [0, 0]], rtol=1e-6)


def test_the_features_themselves_are_never_changed():
    x, _ = clouds(20, 4, 2)
    x.flags.writeable = False
    for kind in NORMALIZATIONS:
        found = Normalizer.fit(kind, x, np.arange(20)).apply(x)
        assert not np.shares_memory(found, x)
