"""`RegularizationPath`: all penalties in turn, each problem started from those solved before.

There are two ways: below the turn problems are solved to the optimum, beyond it as scikit-learn
does (`schedule`). Once a few penalties and the turn are solved, the two need nothing of each other:
with little data, for which threads that share the rows would mostly wait, each way has a thread of
its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from pipeline.heads.solver.history import HISTORY
from pipeline.heads.solver.lbfgs import solve
from pipeline.heads.solver.passes import Data, Passed
from pipeline.heads.solver.schedule import make_schedule, predict
from pipeline.heads.solver.thread_pool import ThreadPool

#: Numbers in the design up to which each way has a thread of its own.
FEW = 1 << 24


class RegularizationPath:
    """The problems of P penalties × F folds and their solutions.

    Args:
        penalties: ascending, [P].
        turn: the penalty beyond which scikit-learn's way is taken.
        data: rows, labels, weights and threads.
        tol, max_iter: of `lbfgs.solve`.
        memory: bytes for the problems that are under way together.
        progress: called with (problems solved, problems in all), from any thread.

    Attributes:
        U: weights [P, F, k, width].
        value: objectives, float64 [P, F].
        iterations: int64 [P, F].
        converged: bool [P, F].
    """

    def __init__(
        self,
        penalties: np.ndarray,
        turn: float,
        data: Data,
        *,
        tol: float,
        max_iter: int,
        memory: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.penalties, self.turn, self.data = penalties, turn, data
        self.tol, self.max_iter, self.memory, self.progress = tol, max_iter, memory, progress
        F, design = len(data.weights), data.design
        self.U = torch.zeros(len(penalties), F, data.logits, design.width, device=design.device)
        self.value = np.zeros((len(penalties), F))
        self.iterations = np.zeros((len(penalties), F), np.int64)
        self.converged = np.zeros((len(penalties), F), bool)
        self._done = 0

    def follow(self) -> None:
        """Solve all problems."""
        plan, data, pool = (
            make_schedule(self.penalties, self.turn),
            self.data,
            self.data.threads.pool,
        )
        solved = self._go(plan.coarse, [], data, self.memory)
        if pool is None or not plan.between or not plan.beyond or data.design.size > FEW:
            self._go(plan.between, solved, data, self.memory)
            self._go(plan.beyond, solved, data, self.memory)
            return
        alone = replace(data, threads=ThreadPool())
        ways = [
            pool.submit(self._go, way, solved, alone, self.memory // 2)
            for way in (plan.beyond, plan.between)
        ]
        for way in ways:
            way.result()

    @torch.inference_mode()  # no bookkeeping for gradients: a quarter of a small problem's time
    def _go(
        self, groups: Sequence[list[int]], solved: list[int], data: Data, memory: int
    ) -> list[int]:
        """Solve groups one after the other, started from `solved`; return both together."""
        solved, known = list(solved), None
        for group in groups:
            for p in group:
                self.U[p] = predict(p, self.penalties, solved, self.U, self.turn)
            known = self._solve(group, data, memory, known)
            solved += group
        return solved

    def _solve(
        self, group: list[int], data: Data, memory: int, known: Passed | None
    ) -> Passed | None:
        """Solve a group; return the exact pass that the next one beyond the turn begins with."""
        device, beyond = data.design.device, bool(self.penalties[group[0]] > self.turn)
        pairs = np.array([(p, f) for p in group for f in range(len(data.weights))])
        state = (2 * HISTORY + 8) * data.design.width + 6 * data.design.n  # floats a logit column
        size = max(1, memory // (4 * data.logits * state))
        for first in range(0, len(pairs), size):
            at = tuple(pairs[first : first + size].T)
            solution = solve(
                data,
                torch.from_numpy(self.penalties[at[0]]).to(device),
                torch.from_numpy(at[1]).to(device),
                self.U[at],
                whiten=not beyond,
                tol=self.tol,
                max_iter=self.max_iter,
                known=known,
            )
            self.U[at] = solution.U
            self.value[at] = solution.value.cpu()
            self.iterations[at] = solution.iterations.cpu()
            self.converged[at] = solution.converged.cpu()
            self._done += len(at[0])
            if self.progress is not None:
                self.progress(self._done, self.value.size)
        alone = beyond and size >= len(pairs)
        return solution.still if alone else None
