"""The stages in one: features, heads and, where asked for, fine-tuning; then a page of it all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from pipeline.extraction.extract import Extraction, extract_table
from pipeline.extraction.scan import DEFAULT_DATA
from pipeline.finetuning import finetune
from pipeline.finetuning.finetune import Tuning
from pipeline.finetuning.task import starter
from pipeline.heads import fit_head
from pipeline.heads.fit_head import Fitting
from pipeline.heads.head import Head
from pipeline.heads.leaderboard import leaderboard
from pipeline.progress import Progress, Silent
from pipeline.reporting.page import report as report_of
from pipeline.store.cache import Cache
from pipeline.store.table import FeatureTable
from pipeline.workflow import costs
from pipeline.workflow.costs import Cost
from pipeline.workflow.options import RunRecipe

if TYPE_CHECKING:
    from pipeline.finetuning.model import Model

Stage = Extraction | Fitting | Tuning


@dataclass(frozen=True)
class Page:
    """The report at the end of a run.

    Attributes:
        path: of the page.
        seconds: that making it took; None where the one that was there shows the same.
        notes: sentences for the person.
    """

    path: Path
    seconds: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Run:
    """What `run` did.

    Attributes:
        extraction: stage one.
        fitting: stage two.
        tuning: stage three; None where it was not asked for.
        page: that shows it all; None where it was not asked for.
        costs: of each stage.
        cache: where all of it is.
        seconds: of the whole run.
    """

    extraction: Extraction
    fitting: Fitting
    tuning: Tuning | None
    page: Page | None
    costs: tuple[Cost, ...]
    cache: Cache
    seconds: float

    @property
    def table(self) -> FeatureTable:
        """Return the table."""
        return self.extraction.table

    @property
    def head(self) -> Head:
        """Return the best head of this run."""
        board = _board(self.fitting)
        first = next((info for info in board if info["best"]), board[0])
        return next(head for head in self.fitting.heads if head.id == first["id"])

    @property
    def model(self) -> Model | None:
        """Return the model, opened; None without stage three."""
        if self.tuning is None:
            return None
        from pipeline.finetuning.model import Model

        return Model.open(self.tuning.folder, state_dir=self.cache.weights)

    @property
    def best(self) -> tuple[str, str]:
        """Return kind and id of what predicts best: a model that beats its head, else the head."""
        if self.tuning is not None and self.tuning.info["beats_head"]:
            return "model", str(self.tuning.info["id"])
        return "head", self.head.id

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        kind, best = self.best
        return {
            "extract": self.extraction.to_json(),
            "fit-head": self.fitting.to_json(),
            "finetune": None if self.tuning is None else self.tuning.to_json(),
            "best": {"kind": kind, "id": best},
            "report": None if self.page is None else str(self.page.path),
            "costs": [vars(cost) for cost in self.costs],
            "seconds": round(self.seconds, 3),
        }


def run(
    data: str | Path | None = None,
    *,
    cache: str | Path | None = None,
    report: bool = True,
    **options: Any,
) -> Run:
    """Run the stages over the images of `data`: features, heads and, with `unfreeze`, fine-tuning.

    What the cache holds already is not computed again.

    Args:
        data: a folder, a CSV or TSV file, or the name of a built-in set; `digits` without it.
        cache: the cache's folder; else `$PIPELINE_CACHE`, else `./cache`.
        report: write a page that shows it all, unless the one that is there does.
        **options: any option of `pipeline run`, by name: `trunk`, `clf`, `unfreeze`, `lr`, …

    Returns:
        What was made: `table`, the best `head`, the `model`, the `page`, and the stages' costs.

    Raises:
        PipelineError: with a sentence that says what to do.

    Example:
        >>> import pipeline
        >>> done = pipeline.run("digits", clf="logreg,lda")
        >>> done.head.classes_[:3]
        ('0', '1', '2')
    """
    recipe = RunRecipe.of(options, report=report)
    recipe.check(options)
    return run_stages(data, recipe, Cache.at(cache))


@contextmanager
def _silence() -> Iterator[Progress]:
    yield Silent()


def run_stages(
    data: str | Path | None,
    recipe: RunRecipe,
    cache: Cache,
    *,
    reporter: Callable[[], AbstractContextManager[Progress]] = _silence,
    ended: Callable[[Stage], None] = lambda stage: None,
) -> Run:
    """Do what `run` does and report on it.

    Args:
        data: as in `run`.
        recipe: checked.
        cache: where everything is kept.
        reporter: gives each stage its progress.
        ended: called with each stage's result, its progress closed.
    """
    began = time.monotonic()
    count = 2 if recipe.finetune is None else 3

    def title(progress: Progress, number: int, what: str) -> None:
        progress.say(f"Stage {number} of {count}: {what}")

    with reporter() as progress:
        title(progress, 1, f"features of {data or DEFAULT_DATA} by {recipe.extract.trunk}")
        extraction = extract_table(data, recipe.extract, cache, progress)
    ended(extraction)
    with reporter() as progress:
        title(progress, 2, f"heads ({recipe.fit_head.clf}), chosen on the training images alone")
        fitting = fit_head.run(extraction.table, recipe.fit_head, cache, progress)
    ended(fitting)
    spent = [costs.of_features(extraction, cache), costs.of_heads(fitting)]
    tuning = None
    if recipe.finetune is not None:
        notes: list[str] = []
        start = _start(fitting, notes)
        with reporter() as progress:
            what = f"{recipe.finetune.unfreeze} learns too, from {start.info['clf']} {start.id}"
            title(progress, 3, what)
            tuning = finetune.run(start, recipe.finetune, cache, progress)
        tuning = replace(tuning, notes=(*notes, *tuning.notes))
        ended(tuning)
        spent.append(costs.of_tuning(tuning, cache))
    page = None
    if recipe.report:
        with reporter() as progress:
            page = _page(extraction.table, cache, progress)
    return Run(extraction, fitting, tuning, page, tuple(spent), cache, time.monotonic() - began)


def _page(table: FeatureTable, cache: Cache, progress: Progress) -> Page:
    """Return the report, made unless the one that is there shows the same."""
    if (path := report_of.current(table, cache)) is not None:
        return Page(path)
    made = report_of.run(table, cache, progress=progress)
    return Page(made.path, made.seconds, made.notes)


def _board(fitting: Fitting) -> list[dict[str, Any]]:
    return leaderboard([head.info for head in fitting.heads], fitting.table.table_id)


def _start(fitting: Fitting, notes: list[str]) -> Head:
    """Return the head of this run that fine-tuning starts from, fitted by log-loss if there is one.

    Raises:
        PipelineError: every linear one failed.
    """
    board = _board(fitting)
    first = starter(board, notes) or next((info for info in board if info["linear"]), None)
    if first is None:
        reasons = " ".join(fitting.failed.values())
        raise PipelineError(f"There is no linear head to start fine-tuning from. {reasons}")
    return next(head for head in fitting.heads if head.id == first["id"])
