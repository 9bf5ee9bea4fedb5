import numpy as np
import pytest
from tables import clouds

from pipeline.analysis.auditing import noise as module
from pipeline.analysis.auditing.noise import distances, outliers


def tight(count=120, dim=32, classes=3, seed=0):
    """Classes that point each in its own direction."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    x = 6 * rng.normal(0, 1, (classes, dim))[labels] + rng.normal(0, 1, (count, dim))
    return x.astype(np.float32), labels


def test_foreign_images_come_first_and_hardly_any_other():
    x, labels = tight()
    rng = np.random.default_rng(5)
    x[[7, 50, 90]] = 6 * rng.normal(0, 1, (3, 32))
    found = outliers(x, labels, np.arange(120))
    assert {row for row, _, _ in found[:3]} == {7, 50, 90} and len(found) <= 5
    assert found[0][1] >= found[1][1] > module.FAR and found[0][2] > 2


def test_an_image_among_another_class_is_far_from_its_own():
    x, labels = tight()
    labels = labels.copy()
    labels[4] = (labels[4] + 1) % 3
    assert outliers(x, labels, np.arange(120))[0][0] == 4


def test_copies_of_an_outlier_hide_it_not():
    x, labels = tight()
    labels = labels.copy()
    x[100:112], labels[100:112] = 6 * np.random.default_rng(5).normal(0, 1, 32), 0
    same = np.arange(120)
    same[100:112] = 100
    assert {row for row, _, _ in outliers(x, labels, same)} >= set(range(100, 112))
    assert not {row for row, _, _ in outliers(x, labels, np.arange(120))} & set(range(100, 112))


def test_the_mean_of_the_nearest_is_what_a_plain_loop_finds():
    x, labels = clouds(60, 8, 2)
    same = np.arange(60)
    same[2] = 0
    far = distances(x, labels, same)
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    for row in (0, 2, 17):
        others = {same[r]: r for r in range(59, -1, -1) if labels[r] == labels[row]}
        others.pop(same[row])
        nearest = sorted(1 - float(u[row] @ u[r]) for r in others.values())[:10]
        assert far[row] == pytest.approx(np.mean(nearest), rel=1e-4)


def test_blocks_change_nothing(monkeypatch):
    x, labels = tight()
    whole = distances(x, labels, np.arange(120))
    monkeypatch.setattr(module, "_ROWS", 7)
    assert distances(x, labels, np.arange(120)) == pytest.approx(whole, abs=1e-6)


def test_a_sample_of_a_large_class_serves(monkeypatch):
    x, labels = tight(600)
    x[7] = 6 * np.random.default_rng(5).normal(0, 1, 32)
    monkeypatch.setattr(module, "REFERENCES", 50)
    assert outliers(x, labels, np.arange(600))[0][0] == 7


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_few_images_have_no_outliers(count):
    x, labels = clouds(max(count, 1), 8, 2)
    assert outliers(x[:count], labels[:count], np.arange(count)) == []


def test_images_that_are_all_the_same_have_no_outliers():
    assert outliers(np.ones((30, 8), np.float32), np.zeros(30, int), np.arange(30)) == []


def test_an_image_alone_in_its_class_is_compared_with_all():
    x, labels = tight(61)
    labels = labels.copy()
    labels[60] = 9
    assert distances(x, labels, np.arange(61))[60] > 0
