"""`Stacked`: features of images and, behind them, of their augmented views, as one matrix."""

from __future__ import annotations

import numpy as np


class Stacked:
    """Rows [N + T·V, D] that are read where they lie, so that tables stay on disk.

    Row r < N is image r; row N + i·V + v is view v + 1 of the i-th image that has views.

    Args:
        features: [N, D] float32, in memory or mapped.
        views: [T, W, D] float32, W views of T images, likewise.
        images: int64 [T], their rows in `features`.
        count: V, how many of the W views are used.
    """

    ndim = 2

    def __init__(self, features: np.ndarray, views: np.ndarray, images: np.ndarray, count: int):
        self.features, self.views, self.images, self.count = features, views, images, count
        self.shape = (len(features) + len(images) * count, features.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows with these numbers, int64 [n], as [n, D] float32."""
        stacked = np.empty((len(rows), self.shape[1]), np.float32)
        whole = rows < len(self.features)
        stacked[whole] = self.features[rows[whole]]
        image, view = np.divmod(rows[~whole] - len(self.features), self.count)
        stacked[~whole] = self.views[image, view]
        return stacked

    def labels(self, labels: np.ndarray) -> np.ndarray:
        """Return the labels of all rows, of the labels [N] of the images."""
        return np.concatenate([labels, np.repeat(labels[self.images], self.count)])

    def beside(self, rows: np.ndarray) -> np.ndarray:
        """Return rows of images, int64 [n], and behind them those of their views."""
        place = np.full(len(self.features), -1)
        place[self.images] = np.arange(len(self.images))
        viewed = place[rows][place[rows] >= 0]
        views = len(self.features) + viewed[:, None] * self.count + np.arange(self.count)
        return np.concatenate([rows, views.ravel()])
