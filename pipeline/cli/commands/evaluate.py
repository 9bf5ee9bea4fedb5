"""`pipeline evaluate`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli import options
from pipeline.cli.boards import aligned, figures
from pipeline.cli.commands.predict import calibrated
from pipeline.cli.log import echo, shown
from pipeline.cli.progress import reporter
from pipeline.errors import UsageError
from pipeline.images.names import counted
from pipeline.inference.options import ComputeOptions, EvaluateOptions
from pipeline.store.cache import Cache
from pipeline.store.score_records import Metrics

if TYPE_CHECKING:
    from pipeline.inference.evaluate import Evaluation
    from pipeline.inference.paired_test import Comparison

#: Most classes of which every pair is shown; beyond, only the commonest confusions.
_GRID = 12
_COMMONEST = 10


@click.command()
@click.argument("words", nargs=-1, metavar="[MODEL|HEAD] [TABLE|DATA]")
@options.model
@click.option(
    "--compare",
    nargs=2,
    metavar="A B",
    help="Two heads or models: is one better by more than chance?",
)
@options.options_of(EvaluateOptions)
@options.options_of(ComputeOptions)
@options.cache_and_json
def command(
    words: tuple[str, ...],
    model: str | None,
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
    if compare and (model or len(words) > 1):
        raise UsageError("--compare names the two; give it and perhaps a table or data.")
    stopped = "Stopped. There are no figures of a part of the images."
    with reporter(quiet=as_json, stopped=stopped) as progress:
        from pipeline.heads.resolve import find
        from pipeline.inference.evaluate import evaluate_predictor, understand
        from pipeline.inference.paired_test import compare_predictors

        store, asked = Cache.at(cache), EvaluateOptions(**values)
        if compare:
            one, other = (find(store, name) for name in compare)
            images = next(iter(words), None)
            both = compare_predictors(one, other, images, asked, store, progress)
        else:
            artefact, images = understand(words, store, model)
            done = evaluate_predictor(artefact, images, asked, store, progress)
    if compare:
        options.output(both, _print_comparison, as_json=as_json)
    else:
        done = replace(done, seconds=options.elapsed())
        options.output(done, _print, as_json=as_json)


def _print(done: Evaluation) -> None:
    if done.why:
        echo(done.why, err=True)
    echo(f"The {done.predictor.title} on {done.on}")
    echo(calibrated(done.predictor, done.calibrated))
    for split, metrics in done.metrics.items():
        echo(f"\n{split}, {metrics.images:,} images: {figures(metrics)}")
        rows = [["class", "images", "precision", "recall", "F1"]]
        rows += [
            [one["class"], f"{one['images']:,}"]
            + [_known(value) for value in (one["precision"], one["recall"], one["f1"])]
            for one in metrics.classes
        ]
        for line in aligned(rows, right={1, 2, 3, 4}):
            echo(f"  {line}")
        for line in _confusion(metrics):
            echo(f"  {line}")
    echo("")
    for name, count in done.unknown.items():
        echo(f"Unknown  {count:,} images of '{name}', a class that it does not know")
    if done.unlabelled:
        echo(f"Left out {counted(done.unlabelled, 'image')} without a label")
    _print_bad(done.bad)
    for note in done.notes:
        echo(f"Note     {note}")
    echo(f"Time     {done.seconds:.1f} s")


def _print_bad(bad: tuple[tuple[str, str], ...]) -> None:
    for path, reason in bad[:5]:
        echo(f"Bad      {path}: {reason}")
    if len(bad) > 5:
        echo(f"         and {len(bad) - 5:,} more; --json lists all")


def _known(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _confusion(values: Metrics) -> list[str]:
    """Return who is taken for whom: as a grid, or for many classes the commonest confusions."""
    names, counts = [one["class"] for one in values.classes], values.confusion
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
        echo(f"{name}: the {predictor.title}")
    echo(f"on {both.on}")
    for one in both.splits:
        echo(one.sentence(both.names))
    _print_bad(both.bad)
    for note in both.notes:
        echo(f"Note     {note}")
