"""What is done to features before a head sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.heads.linear import unit_length
from pipeline.store.columns.parts import PartedRows


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


#: Rows [N, D] that are read by their numbers, int64 [n].
AnyRows = np.ndarray | PartedRows | Stacked
NORMALIZATIONS = ("none", "standard", "l2")
#: Of the scale, in root mean square standard deviations of all features: a feature that hardly
#: ever moves is not blown up to unit variance. Chosen by what it does to heads, docs/heads.md.
FLOOR = 1.0
#: A standard deviation of more than so many medians counts for so many in that mean: one feature
#: in another unit does not make all others small. Those of trunks have 22 at most.
MOST = 30.0
_ROWS = 4096  # at once, so that no copy in float64 is made


@dataclass(frozen=True, eq=False)
class Normalizer:
    """`none`, `standard` (to mean 0 and a like scale) or `l2` (to length 1).

    Attributes:
        kind: one of `NORMALIZATIONS`.
        mean: [D] float64 of the training images; None but for `standard`.
        scale: [D] float64, √(sd² + (FLOOR · rms sd)²) of their standard deviations sd, none of
            which counts for more than `MOST` medians in the rms; None but for `standard`.
    """

    kind: str
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None

    @classmethod
    def fit(cls, kind: str, features: AnyRows, rows: np.ndarray) -> Normalizer:
        """Return the normaliser of the training images `rows` of features [N, D]."""
        if kind != "standard":
            return cls(kind)
        parts = [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]
        mean = sum(features[part].sum(0, dtype=np.float64) for part in parts) / len(rows)
        square = sum(np.square(features[part] - mean).sum(0) for part in parts) / len(rows)
        usual = np.median(square[square > 0]) if square.any() else 0.0
        spread = np.mean(np.minimum(square, MOST**2 * usual))
        scale = np.sqrt(square + FLOOR**2 * spread)
        # rounding leaves a trace of variance where nothing changes at all
        still = scale <= 1e-6 * np.abs(mean)
        return cls(kind, mean, np.where(still, 1.0, scale))

    def apply(self, features: AnyRows, rows: np.ndarray | None = None) -> np.ndarray:
        """Return float32 features [n, D] of `rows` (all without it), normalised, in a new array."""
        rows = np.arange(len(features)) if rows is None else rows
        out = np.empty((len(rows), features.shape[1]), np.float32)
        for start in range(0, len(rows), _ROWS):
            part = np.asarray(features[rows[start : start + _ROWS]], np.float32)
            if self.mean is not None and self.scale is not None:
                part = (part - self.mean) / self.scale
            elif self.kind == "l2":
                part = unit_length(part)
            out[start : start + len(part)] = part
        return out

    def step(self) -> Any:
        """Return the same as a fitted scikit-learn transformer."""
        from sklearn.preprocessing import Normalizer as Unit
        from sklearn.preprocessing import StandardScaler

        if self.kind == "l2":
            return Unit()
        if self.mean is None or self.scale is None:
            return "passthrough"
        scaler = StandardScaler()
        scaler.mean_, scaler.scale_ = self.mean, self.scale
        scaler.var_, scaler.n_features_in_ = self.scale**2, len(self.mean)
        scaler.n_samples_seen_ = 1
        return scaler


class Normalized:
    """Rows [n, D] of features, normalised as they are read, so that a table stays on disk.

    Args:
        normalizer: of the features.
        features: [N, D], in memory or mapped.
        rows: int64 [n].
    """

    ndim = 2

    def __init__(self, normalizer: Normalizer, features: AnyRows, rows: np.ndarray):
        self.normalizer, self.features, self.rows = normalizer, features, rows
        self.shape: tuple[int, ...] = (len(rows), features.shape[1])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: slice | np.ndarray) -> np.ndarray:
        """Return some rows, float32."""
        return self.normalizer.apply(self.features, self.rows[which])

    def take(self, which: np.ndarray) -> Normalized:
        """Return some rows, to be read later."""
        return Normalized(self.normalizer, self.features, self.rows[which])
