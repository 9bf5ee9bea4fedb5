"""A map of the features: each image as a point, near those that look alike to the trunk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.reporting.page.tsne import components as principal
from pipeline.reporting.page.tsne import tsne

#: Principal components that t-SNE starts from; van der Maaten & Hinton 2008 take 30, and
#: scikit-learn's guide advises 50.
COMPONENTS = 50
#: Images that t-SNE places at most, drawn at random: it is what a page costs most. The others are
#: put between those of these that are nearest to them.
MOST, NEAREST = 1000, 3
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
        seed: of the randomised decomposition, and of the draw.

    Returns:
        Nothing for fewer than `LEAST` images or features that are all equal.
    """
    if len(features) < LEAST or not np.ptp(features, axis=0).any():
        return []
    count = min(COMPONENTS, *features.shape)
    components, parts = principal(features, count, seed=seed)
    shares = [*parts[:2].tolist(), 0.0]
    if count == 1:
        components = np.concatenate([components, np.zeros_like(components)], 1)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(features))[:MOST])
    perplexity = min(PERPLEXITY, (len(drawn) - 1) / 3)
    sampled = (
        f" {len(drawn):,} images were placed so, the others between the {NEAREST} of them that are "
        "nearest."
    )
    sampled = "" if len(drawn) == len(features) else sampled
    return [
        Layout(
            "pca",
            "Principal components",
            f"The two directions in which the features vary most: {shares[0]:.0%} and "
            f"{shares[1]:.0%} of their variance. Distances can be compared.",
            _within(components[:, :2]),
        ),
        Layout(
            "tsne",
            "t-SNE",
            f"Neighbours stay neighbours (van der Maaten & Hinton 2008, perplexity "
            f"{perplexity:.0f}, from {count} principal components). Distances between groups "
            f"and the sizes of groups mean nothing.{sampled}",
            _within(_between(components, drawn, tsne(components[drawn], perplexity))),
        ),
    ]


def _between(components: np.ndarray, drawn: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return a place for every image: its own, or the mean of its nearest ones' by nearness.

    Args:
        components: [n, C] of all images.
        drawn: [m] int64, images that have a place.
        places: [m, 2], theirs.
    """
    if len(drawn) == len(components):
        return places
    every = np.empty((len(components), 2), places.dtype)
    every[drawn] = places
    others = np.setdiff1d(np.arange(len(components)), drawn)
    known, asked = components[drawn], components[others]
    distances = np.square(known).sum(1) - 2 * (asked @ known.T)  # but for what a row has in common
    near = np.argpartition(distances, NEAREST, axis=1)[:, :NEAREST]
    apart = np.linalg.norm(asked[:, None] - known[near], axis=2).astype(np.float64)
    weights = 1 / np.maximum(apart, 1e-30)  # an equal image's place
    every[others] = np.einsum("nk,nkp->np", weights, places[near]) / weights.sum(1, keepdims=True)
    return every


def _within(points: np.ndarray) -> np.ndarray:
    """Return points [n, 2] moved and scaled into [-1, 1]."""
    low, high = points.min(0), points.max(0)
    scale = float((high - low).max()) or 1.0
    return np.asarray((points - (low + high) / 2) * (2 / scale), np.float32)
