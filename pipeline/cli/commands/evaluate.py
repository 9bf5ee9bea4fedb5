"""`pipeline evaluate`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli import options
from pipeline.cli.boards import aligned, figures
from pipeline.cli.commands.predict import calibrated
from pipeline.cli.options import shown
from pipeline.cli.progress import reporter
from pipeline.errors import UsageError
from pipeline.images.names import counted
from pipeline.store.cache import Cache

if TYPE_CHECKING:
    from pipeline.inference.evaluate import Evaluation
    from pipeline.inference.paired_test import Comparison

#: Most classes of which every pair is shown; beyond, only the commonest confusions.
_GRID = 12
_COMMONEST = 10


@click.command()
@click.argument("words", nargs=-1, metavar="[MODEL|HEAD] [TABLE|DATA]")
@options.artefact
@click.option(
    "--compare",
    nargs=2,
    metavar="A B",
    help="Two heads or models: is one better by more than chance?",
)
@click.option(
    "--split",
    metavar="train|val|test|all",
    help="Whose images.  [default: val and test; all where there is neither]",
)
@options.calibration
@click.option("--data", metavar="DIR", help="Where the images of a table lie now.")
@options.means
@options.cache
@options.as_json
def command(
    words: tuple[str, ...],
    asked: str | None,
    compare: tuple[str, str] | None,
    cache: str | None,
    as_json: bool,
    **values: Any,
) -> None:
    """Measure a MODEL or HEAD on labelled images: those of a TABLE, or any other DATA.

    Without TABLE or DATA: the table that it was made on. DATA is a folder with a folder for each
    class, with or without train/ val/ test/, a CSV or TSV file, or a built-in set; classes match
    by name. A head reads a table's features where they are its own, and else the images, as a
    model does; nothing is kept.

    MODEL or HEAD is an id, an id's first four digits or more, a folder, or a kind of head; without
    one the best of the current table is taken.

    \b
    Examples:
      pipeline evaluate
      pipeline evaluate logreg digits --split test
      pipeline evaluate --compare logreg lda
    """
    if compare and (asked or len(words) > 1):
        raise UsageError("--compare names the two; give it and perhaps a table or data.")
    try:
        from pipeline.heads.resolve import find
        from pipeline.inference import paired_test as comparing
        from pipeline.inference.evaluate import EvaluateRecipe, run, understand

        store, recipe = Cache.at(cache), EvaluateRecipe(**values)
        with reporter(quiet=as_json) as progress:
            if compare:
                one, other = (find(store, name) for name in compare)
                data = next(iter(words), None)
                both = comparing.compare(one, other, data, recipe, store, progress)
            else:
                done = run(*understand(words, store, asked), recipe, store, progress)
                done = replace(done, seconds=options.elapsed())
    except KeyboardInterrupt as stop:
        stop.args = ("Stopped. There are no figures of a part of the images.",)
        raise
    if as_json:
        options.print_json(both.to_json() if compare else done.to_json())
    elif compare:
        _print_comparison(both)
    else:
        _print(done)


def _print(done: Evaluation) -> None:
    if done.why:
        click.echo(shown(done.why), err=True)
    click.echo(shown(f"The {done.predictor.title} on {done.on}"))
    click.echo(calibrated(done.predictor, done.calibrated))
    for split, metrics in done.metrics.items():
        values = metrics.to_json()
        click.echo(f"\n{split}, {values['images']:,} images: {figures(values)}")
        rows = [["class", "images", "precision", "recall", "F1"]]
        rows += [
            [one["class"], f"{one['images']:,}", *(_known(one[k]) for k in _OF_CLASS)]
            for one in values["classes"]
        ]
        for line in aligned(rows, right={1, 2, 3, 4}):
            click.echo(f"  {line}")
        for line in _confusion(values):
            click.echo(f"  {line}")
    click.echo("")
    for name, count in done.unknown.items():
        click.echo(shown(f"Unknown  {count:,} images of '{name}', a class that it does not know"))
    if done.unlabelled:
        click.echo(f"Left out {counted(done.unlabelled, 'image')} without a label")
    for path, reason in done.bad[:5]:
        click.echo(shown(f"Bad      {path}: {reason}"))
    if len(done.bad) > 5:
        click.echo(f"         and {len(done.bad) - 5:,} more; --json lists all")
    for note in done.notes:
        click.echo(shown(f"Note     {note}"))
    click.echo(f"Time     {done.seconds:.1f} s")


_OF_CLASS = ("precision", "recall", "f1")


def _known(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _confusion(values: dict[str, Any]) -> list[str]:
    """Return who is taken for whom: as a grid, or for many classes the commonest confusions."""
    names, counts = [one["class"] for one in values["classes"]], values["confusion"]
    if len(names) <= _GRID:
        head = ["is \\ predicted", *names]
        rows = [[name, *map(str, row)] for name, row in zip(names, counts, strict=True)]
        return aligned([head, *rows], right=set(range(1, len(head))))
    pairs = [
        (count, names[i], names[j])
        for i, row in enumerate(counts)
        for j, count in enumerate(row)
        if i != j and count
    ]
    pairs.sort(key=lambda pair: -pair[0])
    shortened = [f"{count:,} × {one} taken for {other}" for count, one, other in pairs]
    return [shown(line) for line in shortened[:_COMMONEST]]


def _print_comparison(both: Comparison) -> None:
    for name, predictor in zip(both.names, both.predictors, strict=True):
        click.echo(shown(f"{name}: the {predictor.title}"))
    click.echo(shown(f"on {both.on}"))
    for one in both.splits:
        click.echo(shown(one.sentence(both.names)))
    for note in both.notes:
        click.echo(shown(f"Note     {note}"))
