"""`pipeline show`."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli import options
from pipeline.cli.log import echo
from pipeline.cli.progress import reporter
from pipeline.reporting.options import ShowOptions
from pipeline.store.cache import Cache


@click.command()
@click.argument("what", required=False, metavar="[DATA|TABLE|MODEL|HEAD]")
@options.options_of(ShowOptions)
@options.cache_and_json
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
    from pipeline.reporting.sheets.show import draw_sheet

    with reporter(quiet=as_json, stopped="Stopped. Nothing was drawn.") as progress:
        done = draw_sheet(what, ShowOptions(**values), Cache.at(cache), progress)
    if as_json:
        options.print_json(done.to_json())
        return
    echo(done.content.title, err=True)
    for note in (*done.content.notes, *done.notes):
        echo(note, err=True)
    echo(done.path)
