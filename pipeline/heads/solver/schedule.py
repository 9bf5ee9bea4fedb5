"""The order in which penalties are solved, and what each problem starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.heads.solver.passes import Data

#: Mean ratio of the loss's curvature to the penalty's up to which problems are solved whitened,
#: at the default tolerance. Measured: flowers 22 to 75 and hymenoptera 13 to 44 do equally well.
TURN = 75.0
#: Below this ratio a problem is nearly a quadratic, solved from zero in a step or two.
EASY = 0.3
#: Widest step of the first, coarse pass over the penalties, in decades.
COARSE = 1.05


def turning_point(data: Data, tol: float) -> float:
    """Return the penalty C beyond which the plain metric takes over.

    There the whitened metric, stopped early, has moved furthest along features of little
    variance, and predicts worse than the optimum and than scikit-learn. A smaller tolerance puts
    the point further out.
    """
    power = data.power[:, : data.design.rank].double().mean(0)
    power = power[power > 1e-6 * power.max()]
    if not len(power):
        return float("inf")
    counts = data.weights.double().mean(0).new_zeros(max(data.logits, 2))
    counts.index_add_(0, data.labels, data.weights.double().mean(0))
    share = counts / counts.sum()
    bend = float((share * (1 - share)).mean().clamp_min(1e-3))
    crowd = max(1.0, float((data.weights > 0).sum(1).double().mean()) / (2 * len(power)))
    return TURN * crowd * (5e-5 / tol) / (bend * float(power.mean()))


def guide(penalties: np.ndarray, turn: float) -> list[float]:
    """Return penalties to solve in addition: a foothold where none is below the turn."""
    return [turn] if penalties[0] > turn else []


@dataclass(frozen=True)
class Schedule:
    """Places of a path in groups, to be solved one after the other.

    Attributes:
        coarse: below the turn, about a decade apart, and the last one there.
        between: the others below the turn, from their neighbours.
        beyond: those past the turn, each from the one before.
    """

    coarse: list[list[int]]
    between: list[list[int]]
    beyond: list[list[int]]


def make_schedule(path: np.ndarray, turn: float) -> Schedule:
    """Return the order in which the penalties of a path [P], ascending, are solved."""
    low = [int(i) for i in np.flatnonzero(path <= turn)]
    step = 1
    if len(low) > 1:
        spacing = float(np.median(np.diff(np.log10(path[low]))))
        while 2 * step * spacing <= COARSE and step < len(low):
            step *= 2
    coarse = sorted({*low[::step], *low[-1:]})
    easy = [i for i in coarse if path[i] * TURN < EASY * turn]
    between, fill = [], step
    while fill > 1:
        fill //= 2
        between.append([i for i in low[fill :: 2 * fill] if i != low[-1]])
    return Schedule(
        coarse=[group for group in (easy, *([i] for i in coarse if i not in easy)) if group],
        between=[group for group in between if group],
        beyond=[[int(i)] for i in np.flatnonzero(path > turn)],
    )


def predict(place: int, path: np.ndarray, solved: Sequence[int], U: Tensor, turn: float) -> Tensor:
    """Return the weights [F, k, width] to start from at `path[place]`.

    They are a polynomial in log C through the nearest solutions, two on either side; beyond the
    last solution the line through the last two, and past the turn the last solution itself.
    """
    below = sorted(i for i in solved if i < place)[-2:]
    above = sorted(i for i in solved if i > place)[:2]
    if not below:
        return torch.zeros_like(U[place])
    if path[place] > turn or (not above and len(below) < 2):
        return U[below[-1]]
    nodes = [*below, *above]
    x = np.log(path)
    guess = torch.zeros_like(U[place])
    for i in nodes:
        share = np.prod([(x[place] - x[j]) / (x[i] - x[j]) for j in nodes if j != i])
        guess.add_(U[i], alpha=float(share))
    return guess
