import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness
from tables import clouds

from pipeline.reporting.page import tsne as module
from pipeline.reporting.page.tsne import components, tsne


@pytest.mark.parametrize("shape", [(200, 30), (40, 90), (60, 3)])
def test_components_are_those_of_scikit_learn(shape):
    stretched = np.random.default_rng(0).normal(size=shape) * 0.7 ** np.arange(shape[1])
    features = (stretched + 3).astype(np.float32)
    found, shares = components(features, 3, seed=1)
    pca = PCA(3, svd_solver="full").fit(features)
    want = pca.transform(features)
    assert np.abs(found) == pytest.approx(np.abs(want), abs=1e-3)
    assert shares == pytest.approx(pca.explained_variance_ratio_, abs=1e-5)


def test_components_do_not_depend_on_the_draw_of_directions():
    features = np.random.default_rng(0).normal(size=(80, 20)).astype(np.float32)
    features *= np.float32(0.7) ** np.arange(20, dtype=np.float32)
    one, other = (components(features, 4, seed=seed)[0] for seed in (0, 1))
    assert one == pytest.approx(other, abs=1e-3)  # their signs too


def test_neighbours_stay_neighbours_as_often_as_with_scikit_learn():
    features, _ = clouds(300, 20, 6, apart=3)
    start, _ = components(features, 20, seed=0)
    want = TSNE(perplexity=30, init="pca", random_state=0, max_iter=500).fit_transform(start)
    kept = [trustworthiness(start, places, n_neighbors=10) for places in (tsne(start, 30), want)]
    assert kept[0] > kept[1] - 0.01


def test_the_gradient_is_that_of_the_divergence(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 7)  # which 20 rows do not fill
    random = np.random.default_rng(0)
    pulls = module._affinities(random.normal(size=(20, 5)).astype(np.float32), 4.0)
    places = random.normal(size=(20, 2))

    def divergence(places):
        kernel = 1 / (1 + np.square(places[:, None] - places[None]).sum(2))
        np.fill_diagonal(kernel, 0)
        there = pulls > 0
        return (pulls[there] * np.log(pulls[there] / (kernel / kernel.sum())[there])).sum()

    found = module._gradient(pulls, places.astype(np.float32), 1.0)
    for at in ((0, 0), (7, 1), (19, 0)):
        step = np.zeros_like(places)
        step[at] = 1e-4
        slope = (divergence(places + step) - divergence(places - step)) / 2e-4
        assert found[at] == pytest.approx(slope, rel=1e-2, abs=1e-5)


def test_affinities_have_the_perplexity_that_was_asked_for():
    points = np.random.default_rng(0).normal(size=(100, 5)).astype(np.float32)
    near = points[np.argsort(np.square(points - points[0]).sum(1))]
    pulls = module._affinities(near, 10.0)
    assert pulls.sum() == pytest.approx(1, abs=1e-5) and (pulls == pulls.T).all()
    assert (np.diag(pulls) == 0).all() and pulls[0, 1] == pulls[0].max()


@pytest.mark.parametrize("count", [5, 6, 40])
def test_equal_points_have_finite_places(count):
    points = np.zeros((count, 2), np.float32)
    points[0] = 1
    for given in (points, np.zeros_like(points)):
        assert np.isfinite(tsne(given, min(30.0, (count - 1) / 3))).all()
