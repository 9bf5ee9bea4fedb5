"""`Journal`: what an unfinished search has planned and spent, so that it can be gone on with."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.errors import DamagedError, PipelineError
from pipeline.finetuning.choosing.budget import Plan
from pipeline.progress import Progress
from pipeline.store.atomic import write_bytes


@dataclass
class Journal:
    """A search's plan and its clock, kept beside the states of its candidates.

    Attributes:
        path: of the JSON file.
        budget: seconds.
        plan: None until there is one.
        settled: whether the last rung's length follows from what the first one took.
        before: seconds that earlier runs of this spent.
    """

    path: Path
    budget: float
    plan: Plan | None = None
    settled: bool = False
    before: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def open(cls, path: Path, budget: float, *, resume: bool | None, progress: Progress) -> Journal:
        """Return that of an unfinished run, or a new one.

        Args:
            path: where it is kept.
            budget: seconds of a new one.
            resume: go on with one; None: where there is one that can be read.
            progress: told where one is passed over.

        Raises:
            DamagedError: it is to be gone on with, and cannot be read.
        """
        if resume is False or not path.exists():
            return cls(path, budget)
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            plan, given = None, kept["plan"]
            if given is not None:
                plan = Plan(**{**given, "recipes": tuple(given["recipes"])})
            return cls(path, float(kept["budget"]), plan, bool(kept["settled"]), kept["spent"])
        except (ValueError, KeyError, TypeError, OSError) as error:
            damaged = DamagedError(f"The plan of the unfinished run {path} is damaged ({error}).")
            return _passed_over(damaged, cls(path, budget), resume, progress)

    @property
    def spent(self) -> float:
        """Return the seconds that the search has taken, those of earlier runs included."""
        return self.before + time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Return the seconds that are left of the budget."""
        return self.budget - self.spent

    def write(self) -> None:
        """Keep it."""
        held = {
            "plan": None if self.plan is None else asdict(self.plan),
            "budget": self.budget,
            "settled": self.settled,
            "spent": self.spent,
        }
        write_bytes(self.path, json.dumps(held).encode(), what="the plan of the run")


def _passed_over(
    error: PipelineError, new: Journal, resume: bool | None, progress: Progress
) -> Journal:
    if resume:
        raise type(error)(f"{error} Run the same command without --resume.") from error
    progress.say(f"{error} Starting over.")
    return new
