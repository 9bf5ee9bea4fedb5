import numpy as np
import pytest
from tables import clouds
from threadpoolctl import threadpool_limits

from pipeline.reporting.page import embedding


@pytest.fixture(autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


def test_both_maps_place_every_image_within_bounds():
    features, _ = clouds(60, 12, 3)
    found = embedding.layouts(features)
    assert [one.name for one in found] == ["pca", "tsne"]
    for one in found:
        assert one.points.shape == (60, 2)
        assert np.abs(one.points).max() == pytest.approx(1)


def test_classes_that_lie_apart_lie_apart_on_both_maps():
    features, labels = clouds(90, 12, 3, apart=12)
    for one in embedding.layouts(features):
        centres = np.stack([one.points[labels == k].mean(0) for k in range(3)])
        nearest = ((one.points[:, None] - centres) ** 2).sum(2).argmin(1)
        assert (nearest == labels).mean() > 0.95


def test_the_same_features_give_the_same_maps():
    features, _ = clouds(40, 8, 2)
    for one, again in zip(*(embedding.layouts(features) for _ in range(2)), strict=True):
        assert (one.points == again.points).all()


@pytest.mark.parametrize(
    "features",
    [np.zeros((0, 4)), np.ones((4, 4)), np.ones((50, 4))],
    ids=["none", "few", "all equal"],
)
def test_there_is_no_map_of_nothing(features):
    assert embedding.layouts(features.astype(np.float32)) == []


def test_features_of_one_number_are_a_line():
    found = embedding.layouts(np.arange(20, dtype=np.float32)[:, None])
    assert (found[0].points[:, 1] == 0).all()


def test_of_many_images_some_are_placed_and_the_others_between_their_nearest(monkeypatch):
    features, labels = clouds(120, 12, 3, apart=12)
    whole = embedding.layouts(features)[1]
    monkeypatch.setattr(embedding, "MOST", 60)
    pca, tsne = embedding.layouts(features)
    assert "60 images were placed so" in tsne.note and "placed so" not in whole.note
    assert pca.points.shape == tsne.points.shape == (120, 2)
    centres = np.stack([tsne.points[labels == k].mean(0) for k in range(3)])
    nearest = ((tsne.points[:, None] - centres) ** 2).sum(2).argmin(1)
    assert (nearest == labels).mean() > 0.95


def test_an_image_equal_to_a_placed_one_has_its_place():
    features, _ = clouds(60, 12, 3)
    components = np.concatenate([features, features[:5]])
    places = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    found = embedding._between(components, np.arange(60), places)
    assert (found[:60] == places).all()
    assert found[60:] == pytest.approx(places[:5], abs=1e-5)
