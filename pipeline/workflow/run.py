"""The stages in one: features, heads and, where asked for, fine-tuning; then a page of it all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from pipeline.extraction.extract import Extraction, extract_table
from pipeline.extraction.options import DEFAULT_TRUNK
from pipeline.extraction.scan import DEFAULT_DATA
from pipeline.finetuning import finetune
from pipeline.finetuning.finetune import Tuning
from pipeline.finetuning.task import starter
from pipeline.heads import fit_head
from pipeline.heads.fit_head import Fitting
from pipeline.heads.head import Head
from pipeline.heads.leaderboard import Ranked, rank_heads
from pipeline.images.datasets.given import AnyData, Data, as_data
from pipeline.images.views import CLASSIC
from pipeline.progress import Progress, Silent
from pipeline.reporting.options import ReportOptions
from pipeline.reporting.page import report as report_of
from pipeline.store import timings
from pipeline.store.cache import Cache
from pipeline.store.result_records import HeadInfo
from pipeline.store.table import FeatureTable
from pipeline.store.timings import StageCost
from pipeline.workflow.options import RunOptions

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
        costs: of each stage, the page included.
        cache: where all of it is.
        seconds: of the whole run.
    """

    extraction: Extraction
    fitting: Fitting
    tuning: Tuning | None
    page: Page | None
    costs: tuple[StageCost, ...]
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
        first = next((one for one in board if one.best), board[0]).info
        return next(head for head in self.fitting.heads if head.id == first.id)

    @property
    def model(self) -> Model | None:
        """Return the model, opened; None without stage three."""
        if self.tuning is None:
            return None
        from pipeline.finetuning.model import Model

        return Model.open(self.tuning.folder, cache=self.cache)

    @property
    def best(self) -> tuple[str, str]:
        """Return kind and id of what predicts best: a model that beats its head, else the head."""
        if self.tuning is not None and self.tuning.info.beats_head:
            return "model", self.tuning.info.id
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
    data: AnyData = None,
    *,
    trunk: str = DEFAULT_TRUNK,
    weights: str | Path = "default",
    keys: str = "name",
    layer: str | Sequence[str] | None = None,
    pool: str | None = None,
    extract_views: int = 0,
    extract_augment: str = CLASSIC,
    image_size: int | None = None,
    precision: str = "auto",
    dtype: str = "float32",
    device: str = "auto",
    engine: str = "auto",
    extract_batch_size: int | None = None,
    workers: int | None = None,
    processes: int | None = None,
    on: str | None = None,
    name: str | None = None,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
    wait: bool = True,
    max_bad: int | None = None,
    rehash: bool = False,
    clf: str | Sequence[str] = "logreg",
    folds: int = 5,
    grid: str | Sequence[float] | None = None,
    normalize: str | None = None,
    select: str = "accuracy",
    fit_head_select_on: str = "cv",
    shots: int | None = None,
    train_fraction: float | None = None,
    fit_head_views: int = 0,
    class_weight: str | None = None,
    compare_all: bool = False,
    repeats: int = 0,
    jobs: int | None = None,
    unfreeze: str | int | Sequence[str] | None = None,
    recipe: str = "auto",
    budget: float | None = None,
    epochs: int | None = None,
    batch_size: int = 32,
    lr: float | None = None,
    head_lr_factor: float | None = None,
    layer_decay: float | None = None,
    optimizer: str | None = None,
    weight_decay: float | None = None,
    schedule: str | None = None,
    label_smoothing: float | None = None,
    mixup: float | None = None,
    views: int | None = None,
    augment: str = "auto",
    live: bool = False,
    train_bn: bool = False,
    ema: float | None = None,
    blend: float | None = None,
    patience: int | None = None,
    select_on: str = "auto",
    start: str | None = None,
    from_scratch: bool = False,
    standalone: bool = False,
    report: bool = True,
    cache: str | Path | None = None,
) -> Run:
    """Run the stages over the images of `data`: features, heads and, with `unfreeze`, fine-tuning.

    What the cache holds already is not computed again. The options are those of `extract`,
    `fit_head` and `finetune`, which say what each means; `precision`, `device`, `workers`, `on`
    and `seed` hold for all that have them. Where two stages give one name to different things, the
    later stage keeps it, and the earlier puts its own name in front: `extract_views`,
    `fit_head_select_on`.

    Args:
        data: a folder, a CSV or TSV file, or the name of a built-in set; `digits` without it.
        trunk, weights, keys, layer, pool, image_size, dtype, engine: as in `extract`.
        extract_views, extract_augment, extract_batch_size: `views`, `augment` and `batch_size` of
            `extract`.
        name, val_fraction, test_fraction, wait, max_bad, rehash, processes, on: as in `extract`.
        precision: of the trunk, and of training: `auto`, `fp32`, `tf32`, `bf16` or `fp16`.
        device: `auto`, `cpu`, `cuda` or `mps`.
        workers: decoding threads; None for the cores that the process may use.
        seed: of splits, folds, samples, order and views, from 0.
        clf, folds, grid, normalize, select, shots, train_fraction, class_weight, compare_all,
            repeats, jobs: as in `fit_head`; `clf` may name several kinds of heads with commas, or
            be `all`.
        fit_head_select_on, fit_head_views: `select_on` and `views` of `fit_head`.
        unfreeze: what learns in stage three, as in `finetune`; None for no stage three.
        recipe, budget, epochs, batch_size, lr, head_lr_factor, layer_decay, optimizer,
            weight_decay, schedule, label_smoothing, mixup, views, augment, live, train_bn, ema,
            blend, patience, select_on, start, from_scratch, standalone: as in `finetune`; an
            unfinished run is always gone on with.
        report: write a page that shows it all, unless the one that is there does.
        cache: the cache's folder; else `$PIPELINE_CACHE`, else `./cache`.

    Returns:
        What was made: `table`, the best `head`, the `model`, the `page`, and the stages' costs.

    Raises:
        UsageError: an option that cannot be right, before the first stage; a `ValueError` too.
        PipelineError: as in the stages.

    Example:
        >>> import pipeline
        >>> done = pipeline.run("digits", clf="logreg,lda")
        >>> [str(name) for name in done.head.classes_[:3]]
        ['0', '1', '2']
    """
    return run_stages(as_data(data), RunOptions.of(locals()), Cache.at(cache))


def _silence() -> AbstractContextManager[Progress]:
    return nullcontext(Silent())


def run_stages(
    data: Data,
    options: RunOptions,
    cache: Cache,
    *,
    reporter: Callable[[], AbstractContextManager[Progress]] = _silence,
    ended: Callable[[Stage], None] = lambda stage: None,
) -> Run:
    """Do what `run` does and report on it.

    Args:
        data: as in `run`.
        options: of every stage.
        cache: where everything is kept.
        reporter: gives each stage its progress.
        ended: called with each stage's result, its progress closed.
    """
    began = time.monotonic()
    options.check()
    count = 3 if options.tunes else 2

    def title(progress: Progress, number: int, what: str) -> None:
        progress.say(f"Stage {number} of {count}: {what}")

    with reporter() as progress:
        title(progress, 1, f"features of {data or DEFAULT_DATA} by {options.extract.trunk}")
        extraction = extract_table(data, options.extract, cache, progress)
    ended(extraction)
    with reporter() as progress:
        title(progress, 2, f"heads ({options.fit_head.clf}), chosen on the training images alone")
        fitting = fit_head.fit_heads(extraction.table, options.fit_head, cache, progress)
    ended(fitting)
    spent = [
        timings.of_features(
            extraction.table, cache, seconds=extraction.seconds,
            computed=extraction.extracted + extraction.views_computed,
        ),
        timings.of_heads(
            [head.info for head in fitting.heads], fitting.reused, seconds=fitting.seconds
        ),
    ]  # fmt: skip
    tuning = None
    if options.tunes:
        notes: list[str] = []
        start = _start(fitting, notes)
        with reporter() as progress:
            what = f"{options.finetune.unfreeze} learns too, from {start.info.clf} {start.id}"
            title(progress, 3, what)
            tuning = finetune.finetune_head(start, options.finetune, cache, progress)
        tuning = replace(tuning, notes=(*notes, *tuning.notes))
        ended(tuning)
        spent.append(
            timings.of_tuning(tuning.info, cache, reused=tuning.reused, seconds=tuning.seconds)
        )
    page = None
    if options.report:
        start_of_page = time.monotonic()
        with reporter() as progress:
            page = _page(extraction.table, cache, progress)
        spent.append(StageCost("page", time.monotonic() - start_of_page))
    return Run(extraction, fitting, tuning, page, tuple(spent), cache, time.monotonic() - began)


def _page(table: FeatureTable, cache: Cache, progress: Progress) -> Page:
    """Return the report, made unless the one that is there shows the same."""
    if (path := report_of.current(table, cache)) is not None:
        return Page(path)
    made = report_of.write_report(table, None, ReportOptions(), cache, progress)
    return Page(made.path, made.seconds, made.notes)


def _board(fitting: Fitting) -> list[Ranked[HeadInfo]]:
    return rank_heads([head.info for head in fitting.heads], fitting.table.table_id)


def _start(fitting: Fitting, notes: list[str]) -> Head:
    """Return the head of this run that fine-tuning starts from, fitted by log-loss if there is one.

    Raises:
        PipelineError: every linear one failed.
    """
    board = _board(fitting)
    linear = (one.info for one in board if one.info.linear)
    first = starter(board, notes) or next(linear, None)
    if first is None:
        reasons = " ".join(fitting.failed.values())
        raise PipelineError(f"There is no linear head to start fine-tuning from. {reasons}")
    return next(head for head in fitting.heads if head.id == first.id)
