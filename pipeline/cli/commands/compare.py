"""`pipeline compare`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.analysis.options import CompareOptions
from pipeline.cli import options
from pipeline.cli.boards import accuracy, aligned, share
from pipeline.cli.log import echo
from pipeline.cli.progress import reporter
from pipeline.store.cache import Cache

if TYPE_CHECKING:
    from pipeline.analysis.comparing.results import Race, Result


@click.command()
@click.argument("data", required=False)
@options.options_of(CompareOptions)
@options.cache_and_json
def command(data: str | None, cache: str | None, as_json: bool, **values: Any) -> None:
    """Compare trunks, layers and poolings on the images of DATA: how good, how fast, how large.

    Of each the best head counts: its accuracy on folds of the training images, which marks the
    Pareto front, and that on val and test, which choose nothing. Layers of one trunk come from
    one pass; all that the cache holds is reused. What fails is told at the end, with exit code 1.
    DATA is what `extract` takes; without it: the built-in digits.

    \b
    Examples:
      pipeline compare --layers layer2,layer3,own --pools avg,max
      pipeline compare digits --trunks efficientnet_lite0,resnet18:random
    """
    from pipeline.analysis.comparing.compare_trunks import race

    with reporter(quiet=as_json) as progress:
        done, picture = race(data, CompareOptions(**values), Cache.at(cache), progress)
    done = replace(done, seconds=options.elapsed())
    if as_json:
        options.print_json({**done.to_json(), "picture": str(picture)})
    else:
        _print(done, picture)
    if done.failed:
        sys.exit(1)


def _print(done: Race, picture: Path) -> None:
    splits = [name for name in ("val", "test") if any(name in r.head.metrics for r in done.results)]
    header = [
        "", "", "trunk, layer, pooling", "D", "ms", "MB", "folds of train [95%]",
        *[f"{name} [95%]" for name in splits], "head", "id",
    ]  # fmt: skip
    rows = [_row(number, one, splits) for number, one in enumerate(done.results, 1)]
    for line in aligned([header, *rows], right={0, 3, 4, 5}):
        echo(line)
    echo("* nothing else here is both as fast and as accurate on folds of train")
    for title, reason in done.failed.items():
        echo(f"Failed   {title}: {reason}")
    for note in done.notes:
        echo(f"Note     {note}")
    echo(f"Picture  {picture}")
    echo(f"Time     {done.seconds:.1f} s, {done.extracted:,} images through a trunk")


def _row(number: int, one: Result, splits: list[str]) -> list[str]:
    metrics = one.head.metrics
    return [
        str(number),
        "*" if one.front else "",
        one.contender.title,
        f"{one.table.dim:,}",
        f"{one.cost.milliseconds:.2f}",
        f"{one.cost.megabytes:.1f}",
        share(one.accuracy, one.interval),
        *[accuracy(metrics[name]) if name in metrics else "-" for name in splits],
        one.head.clf,
        one.head.id,
    ]
