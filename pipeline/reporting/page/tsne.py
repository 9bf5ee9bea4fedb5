"""t-SNE of up to some thousand points, and the principal components that it starts from.

scikit-learn's take as long to import as these to run, and its Barnes-Hut tree costs more than all
pairs of a thousand points do.
"""

from __future__ import annotations

import numpy as np

#: Steps with every pull so many times as strong, and steps in all.
EARLY, STEPS, EXAGGERATION = 100, 300, 12.0
#: Rows of all pairs that are worked on at a time: they stay in the processor's cache.
_BLOCK = 128
#: Halvings of the search for a point's bandwidth.
_HALVINGS = 60


def components(features: np.ndarray, count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return principal components and the share of the variance of each.

    By subspace iteration from random directions: Halko, Martinsson & Tropp 2011, "Finding structure
    with randomness", algorithm 4.4. The largest loading of each component is positive.

    Args:
        features: [n, D] float32.
        count: C, at most n and D.
        seed: of the directions.

    Returns:
        [n, C] float32, and [C].
    """
    centred = features - features.mean(0)
    width = min(count + 10, *features.shape)
    basis = np.random.default_rng(seed).standard_normal((features.shape[1], width))
    basis = basis.astype(np.float32)
    for _ in range(7):
        basis = np.linalg.qr(centred.T @ (centred @ basis))[0]
    left, scales, loadings = np.linalg.svd(centred @ basis, full_matrices=False)
    loadings = loadings @ basis.T
    signs = np.sign(loadings[np.arange(len(loadings)), np.abs(loadings).argmax(1)])
    shares = np.square(scales) / np.square(centred).sum()
    return (left * (scales * signs))[:, :count], shares[:count]


def tsne(points: np.ndarray, perplexity: float) -> np.ndarray:
    """Return a place in the plane for each of n points, near those that it is near to.

    van der Maaten & Hinton 2008, "Visualizing data using t-SNE", with all pairs; the rate of
    learning of Belkina et al. 2019 and the start of Kobak & Berens 2019: the first two coordinates.

    Args:
        points: [n, C] float32, C at least 2, principal components.
        perplexity: neighbours of a point, roughly; below n.

    Returns:
        [n, 2] float32.
    """
    pulls = _affinities(points, perplexity)
    count = len(points)
    places = points[:, :2] * np.float32(1e-4 / (points[:, 0].std() or 1))
    speed, gains = np.zeros_like(places), np.ones_like(places)
    rate = max(count / EXAGGERATION / 4, 50.0)
    for step in range(STEPS):
        early = step < EARLY
        gradient = _gradient(pulls, places, EXAGGERATION if early else 1.0)
        turned = gradient * speed < 0
        gains = np.where(turned, gains + np.float32(0.2), np.maximum(gains * np.float32(0.8), 0.01))
        speed = (0.5 if early else 0.8) * speed - rate * gains * gradient
        places = places + speed
    return places


def _gradient(pulls: np.ndarray, places: np.ndarray, exaggeration: float) -> np.ndarray:
    """Return the gradient of the Kullback-Leibler divergence, [n, 2]."""
    squares = np.square(places).sum(1, keepdims=True)
    one = np.ones_like(squares)
    near, far = np.hstack([-2 * places, squares + 1, one]), np.hstack([places, one, squares]).T
    moved = np.hstack([places, one])
    pull, push, total = np.empty_like(moved), np.empty_like(moved), -float(len(places))
    for start in range(0, len(places), _BLOCK):
        rows = slice(start, start + _BLOCK)
        kernel = near[rows] @ far  # 1 + squared distance, [rows, n]
        np.reciprocal(kernel, out=kernel)
        total += float(kernel.sum())
        pull[rows] = (pulls[rows] * kernel) @ moved
        push[rows] = np.square(kernel, out=kernel) @ moved
    force = np.float32(exaggeration) * pull - push / np.float32(total)
    return np.asarray(4 * (force[:, 2:] * places - force[:, :2]))


def _affinities(points: np.ndarray, perplexity: float) -> np.ndarray:
    """Return how much each pair belongs together, [n, n] float32, symmetric, of sum 1.

    As in Barnes-Hut t-SNE only the three times `perplexity` nearest of each point count.
    """
    count = len(points)
    most = min(count - 1, int(3 * perplexity) + 1)
    squares = np.square(points).sum(1)
    distances = squares[:, None] + squares - 2 * (points @ points.T)
    np.fill_diagonal(distances, np.inf)
    near = np.argpartition(distances, most - 1, axis=1)[:, :most]
    distances = np.take_along_axis(distances, near, 1).astype(np.float64)
    distances -= distances.min(1, keepdims=True)
    scale = 1 / np.maximum(np.median(distances, 1, keepdims=True), 1e-12)
    low, high = np.zeros_like(scale), np.full_like(scale, np.inf)
    for _ in range(_HALVINGS):
        weights = np.exp(-distances * scale)
        whole = weights.sum(1, keepdims=True)
        weights /= whole
        entropy = np.log(whole) + scale * (distances * weights).sum(1, keepdims=True)
        wide = entropy > np.log(perplexity)
        low, high = np.where(wide, scale, low), np.where(wide, high, scale)
        scale = np.where(np.isinf(high), 2 * scale, (low + high) / 2)
    pulls = np.zeros((count, count), np.float32)
    np.put_along_axis(pulls, near, weights.astype(np.float32), 1)
    pulls = pulls + pulls.T
    return np.asarray(pulls / pulls.sum())
