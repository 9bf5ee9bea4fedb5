"""A map of the features: each image as a point, near those that look alike to the trunk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Principal components that t-SNE starts from; van der Maaten & Hinton 2008 take 30, and
#: scikit-learn's guide advises 50.
COMPONENTS = 50
#: Images that t-SNE places at most: its cost grows faster than their number.
MOST = 5000
#: Fewest images of which a map says anything.
LEAST = 5
PERPLEXITY = 30.0


@dataclass(frozen=True, eq=False)
class Layout:
    """Places of n images. Two are equal when they are the same object.

    Attributes:
        name: `pca` or `tsne`.
        title: for people.
        note: a sentence on how to read it.
        points: [n, 2] float32 within [-1, 1], one scale for both axes.
    """

    name: str
    title: str
    note: str
    points: np.ndarray


def layouts(features: np.ndarray, *, seed: int = 0) -> list[Layout]:
    """Return the maps of n images: their first two principal components, and t-SNE.

    Args:
        features: [n, D] float32.
        seed: of the randomised decomposition and of t-SNE's start.

    Returns:
        Nothing for fewer than `LEAST` images or features that are all equal; t-SNE for at most
        `MOST`.
    """
    from sklearn.decomposition import PCA

    if len(features) < LEAST or not np.ptp(features, axis=0).any():
        return []
    count = min(COMPONENTS, *features.shape)
    pca = PCA(count, random_state=seed)
    components = pca.fit_transform(features)
    shares = [*pca.explained_variance_ratio_[:2].tolist(), 0.0]
    if count == 1:
        components = np.concatenate([components, np.zeros_like(components)], 1)
    found = [
        Layout(
            "pca", "Principal components",
            f"The two directions in which the features vary most: {shares[0]:.0%} and "
            f"{shares[1]:.0%} of their variance. Distances can be compared.",
            _within(components[:, :2]),
        )
    ]  # fmt: skip
    if len(features) <= MOST:
        perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
        found.append(
            Layout(
                "tsne", "t-SNE",
                f"Neighbours stay neighbours (van der Maaten & Hinton 2008, perplexity "
                f"{perplexity:.0f}, from {count} principal components). Distances between groups "
                "and the sizes of groups mean nothing.",
                _within(_tsne(components, perplexity, seed)),
            )
        )  # fmt: skip
    return found


def _tsne(components: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    made = TSNE(perplexity=perplexity, init="pca", random_state=seed, max_iter=500)
    return np.asarray(made.fit_transform(components))


def _within(points: np.ndarray) -> np.ndarray:
    """Return points [n, 2] moved and scaled into [-1, 1]."""
    low, high = points.min(0), points.max(0)
    scale = float((high - low).max()) or 1.0
    return np.asarray((points - (low + high) / 2) * (2 / scale), np.float32)
