"""Whether decision trees that were read from a file can be followed: compiled code trusts them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


def trees_of(estimator: Any) -> Iterator[Any]:
    """Yield every tree of an estimator, a forest, or what is made of such."""
    seen: set[int] = set()
    left = [estimator]
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if type(one).__name__ == "Tree" and hasattr(one, "children_left"):
            yield one
        elif isinstance(one, dict):
            left += one.values()
        elif isinstance(one, list | tuple) or (isinstance(one, np.ndarray) and one.dtype == object):
            left += np.ravel(one).tolist() if isinstance(one, np.ndarray) else one
        elif type(one).__module__.startswith("sklearn."):
            left += getattr(one, "__dict__", {}).values()


def sound(tree: Any) -> bool:
    """Tell whether each node leads to two later ones and asks for a feature, or is a leaf."""
    here = np.arange(tree.node_count)
    inner = tree.children_left != -1
    followed = [
        ((child > here) & (child < tree.node_count))[inner].all()
        for child in (tree.children_left, tree.children_right)
    ]
    asked = tree.feature[inner]
    return bool(all(followed) and (asked >= 0).all() and (asked < tree.n_features).all())
