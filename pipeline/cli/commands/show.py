"""`pipeline show`."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli import options
from pipeline.cli.options import shown
from pipeline.cli.progress import reporter
from pipeline.store.cache import Cache


@click.command()
@click.argument("what", required=False, metavar="[DATA|TABLE|MODEL|HEAD]")
@click.option(
    "--kind",
    metavar="classes|views|predictions",
    help="What to show.  [default: predictions of a MODEL or HEAD, else classes]",
)
@click.option(
    "--split",
    metavar="train|val|test|all",
    help="Whose images.  [default: all; views: train; predictions: test, else val]",
)
@click.option(
    "--class", "classes", multiple=True, metavar="NAME", help="Only this class, or these."
)
@click.option(
    "--count",
    type=int,
    metavar="N",
    help="Images of each class, of all, or of right and wrong each.  [default: what fits]",
)
@click.option(
    "--seed", type=int, metavar="N", help="A random choice, in place of the first or the surest."
)
@click.option("--wrong", is_flag=True, help="Of predictions the mistakes alone, the surest first.")
@click.option("--data", metavar="DIR", help="Where the images of a table lie now.")
@click.option(
    "-o", "--output", metavar="FILE.png", help="The picture to write.  [default: in the cache]"
)
@options.workers
@options.cache
@options.as_json
def command(what: str | None, cache: str | None, as_json: bool, **values: Any) -> None:
    """Draw a contact sheet, a PNG, of images: those of a TABLE, or any DATA.

    classes: the first images of each class. views: images as the trunk sees them, evaluated and
    augmented, the very crops that fine-tuning learns from. predictions: those stored with a MODEL
    or HEAD, with label and calibrated probability, the wrong ones marked.

    Without an argument the current table is shown. An image that is missing, or is no longer the
    one that was extracted, is told in its place.

    \b
    Examples:
      pipeline show
      pipeline show digits --kind views --count 4
      pipeline show logreg --wrong -o mistakes.png
    """
    from pipeline.reporting.sheets.show import ShowRecipe, run

    store = Cache.at(cache)
    try:
        with reporter(quiet=as_json) as progress:
            done = run(what, ShowRecipe(**values), store, progress)
    except KeyboardInterrupt as stop:
        stop.args = ("Stopped. Nothing was drawn.",)
        raise
    if as_json:
        options.print_json(done.to_json())
        return
    click.echo(shown(done.content.title), err=True)
    for note in (*done.content.notes, *done.notes):
        click.echo(shown(note), err=True)
    click.echo(shown(done.path))
