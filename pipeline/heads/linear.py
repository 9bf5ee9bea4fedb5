"""`LinearHead`: W x + b on raw features, the scaler folded in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import DamagedError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A linear classifier in the space of raw features. Imports neither torch nor scikit-learn.

    Attributes:
        weight: [K, D] float32.
        bias: [K] float32.
        l2: divide each feature vector by its length first; this step cannot be folded.
        temperature: what scores are divided by to become logits.
    """

    weight: np.ndarray
    bias: np.ndarray
    l2: bool = False
    temperature: float = 1.0

    @classmethod
    def fold(
        cls,
        weight: np.ndarray,
        bias: np.ndarray,
        *,
        mean: np.ndarray | None = None,
        scale: np.ndarray | None = None,
        l2: bool = False,
        temperature: float = 1.0,
    ) -> LinearHead:
        """Return the head that gives raw features the scores W ((x − mean) / scale) + b.

        Args:
            weight: W, [K, D].
            bias: b, [K].
            mean: [D], or None for zeros.
            scale: [D], or None for ones.
        """
        weight, bias = np.asarray(weight, np.float64), np.asarray(bias, np.float64)
        if scale is not None:
            weight = weight / scale
        if mean is not None:
            bias = bias - weight @ mean
        return cls(weight.astype(np.float32), bias.astype(np.float32), l2, temperature)

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Return class scores [N, K] float32 of features [N, D]."""
        features = np.asarray(features, np.float32)
        if self.l2:
            features = unit_length(features)
        return np.asarray(features @ self.weight.T + self.bias)

    def to_linear(self) -> nn.Linear:
        """Return a torch layer whose outputs are logits: temperature folded in."""
        import torch

        width, classes = self.weight.shape[1], len(self.weight)
        layer = torch.nn.Linear(width, classes, device="meta").to_empty(device="cpu")
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(self.weight / np.float32(self.temperature)))
            layer.bias.copy_(torch.from_numpy(self.bias / np.float32(self.temperature)))
        return layer

    def save(self, path: Path) -> None:
        """Write `weight`, `bias` and `temperature` as safetensors."""
        from safetensors.numpy import save

        tensors = {
            "weight": np.ascontiguousarray(self.weight),
            "bias": self.bias,
            "temperature": np.array([self.temperature], np.float64),
        }
        path.write_bytes(save(tensors, metadata={"normalize": "l2" if self.l2 else "none"}))

    @classmethod
    def load(cls, path: Path) -> LinearHead:
        """Read what `save` wrote; raises `DamagedError` for anything else."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                normalize = (file.metadata() or {})["normalize"]
                weight, bias = file.get_tensor("weight"), file.get_tensor("bias")
                temperature = file.get_tensor("temperature")
        except (SafetensorError, OSError, KeyError, TypeError, AttributeError) as error:
            raise DamagedError(f"The head {path} is damaged: {error}") from error
        tensors = weight, bias, temperature
        finite = all(one.dtype.kind == "f" and np.isfinite(one).all() for one in tensors)
        if weight.ndim != 2 or bias.shape != weight.shape[:1] or temperature.shape != (1,):
            wrong = "its shapes do not fit each other"
        elif not finite:
            wrong = "its values are not finite floats"
        elif temperature[0] <= 0 or normalize not in ("none", "l2"):
            wrong = f"its temperature is {temperature[0]:g} and its normalisation '{normalize}'"
        else:
            return cls(weight, bias, normalize == "l2", float(temperature[0]))
        raise DamagedError(f"The head {path} is damaged: {wrong}.")


def unit_length(features: np.ndarray) -> np.ndarray:
    """Return features [N, D] divided by their Euclidean lengths; zeros stay zeros."""
    squares = np.einsum("ij,ij->i", features, features, dtype=np.float64)  # float32 has no 1e-46
    length = np.sqrt(squares)[:, None]
    return np.asarray(features / np.where(length > 0, length, 1), features.dtype)


def every_class(
    weight: np.ndarray, bias: np.ndarray, seen: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a row for each class; one without training images never wins."""
    if len(seen) == classes:
        return weight, bias
    full_weight = np.zeros((classes, weight.shape[1]))
    full_bias = np.full(classes, -1e9)
    full_weight[seen], full_bias[seen] = weight, bias
    return full_weight, full_bias
