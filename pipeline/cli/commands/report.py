"""`pipeline report`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli import options
from pipeline.cli.log import echo
from pipeline.cli.options import size
from pipeline.cli.progress import reporter
from pipeline.reporting.options import ReportOptions
from pipeline.store.cache import Cache

if TYPE_CHECKING:
    from pipeline.reporting.page.report import Report


@click.command()
@click.argument("table", required=False)
@options.model
@options.options_of(ReportOptions)
@click.option("--open", "opens", is_flag=True, help="Show it in the browser.")
@options.cache_and_json
def command(
    table: str | None,
    model: str | None,
    opens: bool,
    cache: str | None,
    as_json: bool,
    **values: Any,
) -> None:
    """Write one page that shows TABLE: a file, a name or an id; the current one without it.

    It shows samples of each class, what was left out, heads and models with their intervals, what
    `pipeline advise` found, the mistakes of the best of them, a map of the features, and what may
    be wrong with the labels. The page is one file that needs no network; a list of its findings is
    put beside it.

    \b
    Examples:
      pipeline report
      pipeline report -o flowers.html --with logreg
    """
    from pipeline.reporting.page.report import write_report

    with reporter(quiet=as_json) as progress:
        done = write_report(table, model, ReportOptions(**values), Cache.at(cache), progress)
    done = replace(done, seconds=options.elapsed())
    if opens:
        click.launch(done.path.absolute().as_uri())
    options.output(done, _print, as_json=as_json)


def _print(done: Report) -> None:
    for note in done.notes:
        echo(f"Note     {note}", err=True)
    echo(
        f"{done.shown:,} images, {done.findings:,} findings, {size(done.bytes)}, "
        f"{done.seconds:.1f} s",
        err=True,
    )
    echo(done.path)
