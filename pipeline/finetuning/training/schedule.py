"""Learning rates over the steps, and which view of which image comes when."""

from __future__ import annotations

import math

import numpy as np

SCHEDULES = ("cosine", "step", "constant")
#: Share of the steps in which the learning rate rises from zero.
WARM_UP = 0.1


def factor(schedule: str, step: int, total: int) -> float:
    """Return what the learning rate is multiplied by.

    After a linear warm-up: half a cosine down to zero (Loshchilov and Hutter 2017), a tenth after
    each third of the steps, or one.

    Args:
        schedule: one of `SCHEDULES`.
        step: from 0.
        total: number of steps.
    """
    warm = max(1, round(WARM_UP * total))
    if step < warm:
        return (step + 1) / (warm + 1)
    done = (step - warm) / max(1, total - warm)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if schedule == "step":
        return float(0.1 ** int(3 * done))
    return 1.0


def draw(count: int, *, views: int, epoch: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of an epoch's images [count] and the view of each place in it [count].

    Args:
        count: images.
        views: kept random views of each, 1 to `views`; 0 for the evaluation view alone; -1 for
            a view that no other epoch has.
        epoch: from 1.
        seed: of both draws; the same for every run with it.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(count)
    if views > 0:
        return order, rng.integers(1, views + 1, count)
    return order, np.full(count, epoch if views < 0 else 0, np.int64)
