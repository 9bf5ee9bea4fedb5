"""`pipeline export`."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli import options
from pipeline.cli.log import echo
from pipeline.cli.options import size
from pipeline.cli.progress import reporter
from pipeline.errors import UsageError
from pipeline.inference.options import ExportOptions
from pipeline.store.cache import Cache


@click.command()
@click.argument("words", nargs=-1, metavar="[MODEL|HEAD]")
@options.model
@options.options_of(ExportOptions)
@options.cache_and_json
def command(
    words: tuple[str, ...], model: str | None, cache: str | None, as_json: bool, **values: Any
) -> None:
    """Write a MODEL or HEAD as a folder that runs without this package.

    Class names, preprocessing and temperature are in the file; a README beside it has the few
    lines of Python that run it. What was written is read back and compared with the original on
    real images; beyond the tolerance nothing is kept.

    MODEL or HEAD is an id, an id's first four digits or more, a folder, or a kind of head; without
    one the best of the current table is taken. Heads must be linear.

    \b
    Examples:
      pipeline export logreg
      pipeline export logreg --format safetensors --head-only --output head
    """
    from pipeline.heads.resolve import find
    from pipeline.inference.exporting.export import export_predictor

    if len(words) + bool(model) > 1:
        raise UsageError("One head or model can be exported at a time.")
    store = Cache.at(cache)
    with reporter(quiet=as_json, stopped="Stopped. Nothing was written.") as progress:
        artefact = find(store, next(iter(words), model))
        done = export_predictor(artefact, ExportOptions(**values), store, progress)
    if as_json:
        options.print_json(done.to_json())
        return
    if done.why:
        echo(done.why, err=True)
    checked = done.info["checked"]
    echo(f"Exported the {done.predictor.title}")
    echo(
        f"Checked  on {checked['images']} of {checked['on']}: probabilities differ by at most "
        f"{checked['difference']:.2g} ({checked['tolerance']:g} is allowed)"
    )
    files = ", ".join(f"{name} {size(count)}" for name, count in done.sizes.items())
    echo(f"Files    {files}")
    echo(f"Kept in  {done.folder}")
