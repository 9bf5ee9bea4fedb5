"""`pipeline predict`."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli import options
from pipeline.cli.log import echo, shown
from pipeline.cli.progress import Sentences
from pipeline.errors import UsageError
from pipeline.images.names import counted
from pipeline.inference.options import ComputeOptions, PredictOptions
from pipeline.store.cache import Cache

if TYPE_CHECKING:
    from pipeline.finetuning.model import Predictor
    from pipeline.inference.predict import Predicting, Prediction

#: Longest name of a class that columns are aligned to.
_WIDEST = 30


@click.command()
@click.argument("words", nargs=-1, metavar="[MODEL|HEAD] IMAGES…")
@options.model
@options.options_of(PredictOptions)
@click.option("--csv", "form", flag_value="csv", help="Print CSV.")
@click.option("--jsonl", "form", flag_value="jsonl", help="Print a JSON object for each image.")
@options.options_of(ComputeOptions)
@options.cache_and_json
def command(
    words: tuple[str, ...],
    model: str | None,
    form: str | None,
    cache: str | None,
    as_json: bool,
    **values: Any,
) -> None:
    """Say what is on IMAGES: the likeliest classes, with probabilities that are calibrated.

    IMAGES are files, folders with all below them, quoted patterns such as 'photos/**/*.jpg', the
    name of a built-in set, or - for a list on standard input, one path a line.

    The first word is the MODEL or HEAD where it is the folder of one, or where no file or folder
    has that name and it is an id, an id's first four digits or more, or a kind of head (logreg).
    With --with all words are images. Without either: the best of the current table, a model that
    beats its head before any head.

    Nothing is kept but with --use-cache, and what a converted network is, in the cache. An image
    that cannot be read is told with its reason; the exit code is 1 only where none could be.

    \b
    Examples:
      pipeline predict digits --top 1
      pipeline predict logreg digits --csv --min-confidence 0.9
    """
    if as_json and form:
        raise UsageError(f"--json and --{form} are two forms; give one.")
    done: Predicting | None = None
    try:
        from pipeline.inference.predict import start

        done = start(
            words,
            PredictOptions(**values),
            Cache.at(cache),
            model=model,
            lines=lambda: sys.stdin.buffer,
            progress=Sentences(),
        )
        _print_object(done) if as_json else _print(done, form)
    except KeyboardInterrupt as stop:
        count = done.tally.images if done else 0
        stop.args = (f"Stopped after {count:,} images; each row that stands is whole.",)
        raise


def _print(done: Predicting, form: str | None) -> None:
    if done.why:
        echo(done.why, err=True)
    echo(calibrated(done.predictor, done.options.calibration), err=True)
    forms: dict[str | None, Callable[[Predicting], None]] = {
        None: _print_table, "csv": _print_csv, "jsonl": _print_jsonl,
    }  # fmt: skip
    forms[form](done)
    _print_tally(done)


def calibrated(predictor: Predictor, wanted: bool) -> str:
    """Return the sentence on what probabilities are worth."""
    fitted = predictor.info.calibration
    if not wanted:
        return "Probabilities as they were stored, without calibration."
    if fitted is None:
        return "Probabilities are not calibrated: no image was held out when this was fitted."
    on = f"{fitted.images:,} images held out ({fitted.on})"
    if fitted.temperature == 1:
        return f"Probabilities as they were fitted: {on} ask for no other temperature."
    return (
        f"Calibrated on {on}: temperature {fitted.temperature:.3g}, log-loss "
        f"{fitted.before:.4f} → {fitted.after:.4f}."
    )


def _print_table(done: Predicting) -> None:
    names = (shown(name) for name in done.predictor.classes)
    width = min(_WIDEST, max(map(len, names)))
    for one in done:
        if one.error:
            _tell_error(one)
            continue
        cells = [f"{p:.3f} {shown(name):<{width}}" for name, p in one.top]
        mark = ("? " if one.abstains else "  ") if done.options.min_confidence is not None else ""
        echo(f"{mark}{'  '.join(cells)}  {one.path}")


def _print_csv(done: Predicting) -> None:
    from pipeline.inference.predict import TOP

    count = min(done.options.top or TOP, len(done.predictor.classes))
    pairs = [f"{what}_{k + 1}" for k in range(count) for what in ("class", "probability")]
    _print_row(["path", "prediction", "note", *pairs])
    for one in done:
        if one.error:
            _print_row([one.path, "", f"unreadable: {one.error}", *[""] * len(pairs)])
            continue
        cells = [cell for name, p in one.top for cell in (name, f"{p:.6g}")]
        note = "abstains" if one.abstains else ""
        _print_row([one.path, one.prediction or "", note, *cells])


def _print_row(cells: Iterable[str]) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    click.echo(buffer.getvalue().encode("utf-8", "surrogateescape"), nl=False)


def _print_jsonl(done: Predicting) -> None:
    for one in done:
        click.echo(json.dumps(one.to_json(), ensure_ascii=True))


def _print_object(done: Predicting) -> None:
    predictions = [one.to_json() for one in done]
    options.print_json(
        {
            done.predictor.kind: done.predictor.id,
            "why": done.why,
            "classes": list(done.predictor.classes),
            "temperature": done.predictor.temperature if done.options.calibration else 1.0,
            **vars(done.tally),
            "notes": done.notes,
            "predictions": predictions,
        }
    )


def _tell_error(one: Prediction) -> None:
    echo(f"Could not be read: {one.path}: {one.error}", err=True)


def _print_tally(done: Predicting) -> None:
    tally, least = done.tally, done.options.min_confidence
    parts = [counted(tally.images, "image")]
    if tally.unreadable:
        parts.append(f"{tally.unreadable:,} could not be read")
    if least is not None:
        parts.append(f"{tally.abstained:,} below {least:g}")
    if done.options.use_cache:
        parts.append(f"{tally.reused:,} features from the cache")
    rate = f", {tally.images / tally.seconds:.0f} a second" if tally.seconds else ""
    echo(f"{', '.join(parts)}; {options.elapsed():.1f} s{rate}", err=True)
    for note in done.notes:
        echo(note, err=True)
