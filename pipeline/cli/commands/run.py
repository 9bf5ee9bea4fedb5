"""`pipeline run`: its options are those of the three stages."""

from __future__ import annotations

import copy
import shlex
from functools import partial
from typing import Any

import click
from click.core import ParameterSource

from pipeline.cli import options
from pipeline.cli.boards import accuracy, aligned
from pipeline.cli.commands import extract, finetune, fit_head
from pipeline.cli.log import echo
from pipeline.cli.progress import reporter
from pipeline.extraction.extract import Extraction
from pipeline.heads.fit_head import Fitting
from pipeline.options import flag
from pipeline.store.cache import Cache
from pipeline.store.timings import StageCost
from pipeline.workflow.options import SETTINGS, RunOptions, only_finetune
from pipeline.workflow.run import Run, Stage, run_stages

_COMMANDS = {
    "extract": extract.command, "fit-head": fit_head.command, "finetune": finetune.command,
}  # fmt: skip
_TITLES = {
    "extract": "Stage one, features (extract)",
    "fit-head": "Stage two, heads (fit-head)",
    "finetune": "Stage three, fine-tuning (finetune)",
}
_ALL = "All stages"
#: Help of options that say less, or more, in `run` than in the stage that they come from.
_HELP = {
    "precision": "Of the trunk, and of training. auto: what the cache already holds, else what the "
    "hardware is fast in.",
    "seed": "Of splits, folds, samples, order and views.",
    "unfreeze": "Fine-tune too, and let these learn: stages, neck, native modules, the last N "
    "stages.  [default: no stage three]",
}


class RunCommand(click.Command):
    """A command whose help sorts its options by the stage that they are of."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; what a file says of stage three is not meant where nothing asks for that."""
        rest = super().parse_args(ctx, args)
        if ctx.params["unfreeze"] is None:
            for name in filter(only_finetune, SETTINGS):
                if ctx.get_parameter_source(name) is ParameterSource.DEFAULT_MAP:
                    ctx.set_parameter_source(name, ParameterSource.DEFAULT)
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each stage, and one for what is of all."""
        sections: dict[str, list[tuple[str, str]]] = {t: [] for t in (*_TITLES.values(), _ALL)}
        for param in self.get_params(ctx):
            if not isinstance(param, click.Option):
                continue
            stages = {stage for stage, _ in SETTINGS.get(param.name or "", ())}
            title = _TITLES[stages.pop()] if len(stages) == 1 else _ALL
            if (record := param.get_help_record(ctx)) is not None:
                sections[title].append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _options() -> list[click.Parameter]:
    """Return the stages' options under the names that they have in `run`."""
    found: list[click.Parameter] = []
    for name, places in SETTINGS.items():
        stage, field = places[0]
        given = next(param for param in _COMMANDS[stage].params if param.name == field)
        taken = copy.copy(given)
        assert isinstance(taken, click.Option)
        if name != field:
            taken.name, taken.opts = name, [flag(name)]
        if name == "unfreeze":
            taken.default, taken.show_default = None, False
        taken.help = _HELP.get(name, taken.help)
        found.append(taken)
    return found


@click.command(cls=RunCommand)
@click.argument("data", required=False)
@click.option(
    "--no-report",
    "report",
    flag_value=False,
    default=True,
    help="Do not end with the page that pipeline report makes.",
)
@options.cache_and_json
def command(
    data: str | None, report: bool, cache: str | None, as_json: bool, **values: Any
) -> None:
    """Run the stages over the images of DATA: features, heads and, with --unfreeze, fine-tuning.

    DATA is what `pipeline extract` takes; without it the built-in digits. Each stage is reused
    from the cache where nothing changed: another learning rate trains again and runs no trunk. A
    run that was stopped goes on with the same command.

    The options are those of the stages. --precision, --device, --workers and --seed hold for all.
    Where two stages give one name to different things, the later stage keeps it, and the earlier
    puts its own name in front: --extract-batch-size, --fit-head-select-on.

    \b
    Examples:
      pipeline run
      pipeline run digits --clf logreg,lda --unfreeze layer4 --epochs 3 --views 1
    """
    asked = RunOptions.of({**values, "report": report})
    asked.check()
    store = Cache.at(cache)
    done = run_stages(
        data, asked, store,
        reporter=partial(reporter, quiet=as_json),
        ended=(lambda stage: None) if as_json else partial(_show_stage, store),
    )  # fmt: skip
    if as_json:
        options.print_json(done.to_json())
        return
    for line in summary(done, cache):
        echo(line)


command.params[1:1] = _options()


def _show_stage(store: Cache, stage: Stage) -> None:
    if isinstance(stage, Extraction):
        extract.show(stage)
    elif isinstance(stage, Fitting):
        fit_head.show(stage, store)
    else:
        finetune.show(stage)
    echo("")


def summary(done: Run, cache: str | None) -> list[str]:
    """Return what was made, what it cost and what to type next, as lines.

    Args:
        done: the run.
        cache: as it was given.
    """
    head, (kind, best) = done.head, done.best
    scores = ", ".join(f"{split} {accuracy(m)}" for split, m in head.info.metrics.items())
    lines = [
        f"Table    {done.table.path}",
        f"Head     {head.id} {head.info.clf}, the best of {len(done.fitting.heads)}: "
        f"{scores or 'no split to report on'}",
    ]
    if done.tuning is not None:
        info = done.tuning.info
        reported = ", ".join(
            f"{split} {accuracy(m.model, role=info.role(split))}"
            for split, m in info.metrics.items()
        )
        verdict = "beats its head" if info.beats_head else "does not beat its head"
        lines.append(f"Model    {info.id} {info.unfreeze} unfrozen, {verdict}: {reported}")
    if (page := done.page) is not None:
        how = "unchanged" if page.seconds is None else f"made in {page.seconds:.1f} s"
        lines.append(f"Report   {page.path}, {how}")
        lines += [f"Note     {note}" for note in page.notes]
    lines += ["", *_costs(done.costs, done.seconds), "", "Next"]
    where = f" --cache {shlex.quote(cache)}" if cache else ""
    lines += _next(done, kind, best, where)
    return lines


def _costs(costs: tuple[StageCost, ...], seconds: float) -> list[str]:
    rows = [["stage", "seconds", "trunk passes", "passes saved", "seconds saved"]]
    rows += [
        [
            cost.stage,
            "not known" if cost.seconds is None else f"{cost.seconds:.1f}",
            f"{cost.passes:,}",
            f"{cost.saved_passes:,}",
            "not known" if cost.saved_seconds is None else f"{cost.saved_seconds:.1f}",
        ]
        for cost in costs
    ]
    known = [cost.saved_seconds for cost in costs if cost.saved_seconds is not None]
    rows.append(
        [
            "together",
            f"{seconds:.1f}",
            f"{sum(cost.passes for cost in costs):,}",
            f"{sum(cost.saved_passes for cost in costs):,}",
            ("" if len(known) == len(costs) else "at least ") + f"{sum(known):.1f}",
        ]
    )
    return aligned(rows, right={1, 2, 3, 4})


def _next(done: Run, kind: str, best: str, where: str) -> list[str]:
    linear = kind == "model" or done.head.info.linear
    steps = [
        (f"pipeline predict {best} IMAGES{where}", f"what the {kind} says of other images"),
        (f"pipeline evaluate {best}{where}", "every figure, and which class is taken for which"),
    ]
    if done.page is None:
        what = "the data, the mistakes and suspect labels on one page"
        steps.append((f"pipeline report{where}", what))
    if linear:
        steps.append(
            (f"pipeline export {best} --format onnx{where}", "to run it without this package")
        )
    if len(done.fitting.heads) == 1:
        steps.append((f"pipeline fit-head --clf all{where}", "every other kind of head"))
    if done.tuning is None and done.head.info.linear:
        steps.append((f"pipeline finetune {done.head.id} --unfreeze layer4{where}", "stage three"))
    return [f"  {line}" for line in aligned([list(step) for step in steps])]
