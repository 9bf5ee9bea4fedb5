"""`pipeline report`."""

from __future__ import annotations

from dataclasses import replace

import click

from pipeline.cli import options
from pipeline.cli.options import shown, size
from pipeline.cli.progress import reporter
from pipeline.store.cache import Cache


@click.command()
@click.argument("table", required=False)
@options.artefact
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="The page to write.  [default: reports/<table>.html in the cache]",
)
@click.option("--data", metavar="DIR", help="Where the images lie now, if they have moved.")
@click.option("--open", "opens", is_flag=True, help="Show it in the browser.")
@options.cache
@options.as_json
def command(
    table: str | None,
    asked: str | None,
    output: str | None,
    data: str | None,
    opens: bool,
    cache: str | None,
    as_json: bool,
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
    from pipeline.reporting.page.report import run

    store = Cache.at(cache)
    with reporter(quiet=as_json) as progress:
        done = run(table, store, asked=asked, output=output, data=data, progress=progress)
    done = replace(done, seconds=options.elapsed())
    if opens:
        click.launch(done.path.absolute().as_uri())
    if as_json:
        options.print_json(done.to_json())
        return
    for note in done.notes:
        click.echo(shown(f"Note     {note}"), err=True)
    click.echo(
        f"{done.shown:,} images, {done.findings:,} findings, {size(done.bytes)}, "
        f"{done.seconds:.1f} s",
        err=True,
    )
    click.echo(shown(done.path))
