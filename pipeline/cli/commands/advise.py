"""`pipeline advise`."""

from __future__ import annotations

from typing import Any

import click

from pipeline.analysis.advising.advise import Advice, advise_on_table
from pipeline.analysis.options import AdviseOptions
from pipeline.cli import options
from pipeline.cli.boards import aligned
from pipeline.cli.log import echo
from pipeline.cli.progress import reporter
from pipeline.store.cache import Cache


@click.command()
@click.argument("table", required=False)
@options.options_of(AdviseOptions)
@options.cache_and_json
def command(table: str | None, cache: str | None, as_json: bool, **values: Any) -> None:
    """Say what to train on TABLE: the head, the last stage, more stages, or all from scratch.

    Without TABLE the current one: that of the last extract. Measures how large it is, how similar
    to what the trunk was trained on, what more labels would bring and what fine-tuning gained.
    The cached features are all it needs; where the images are at hand, some of them go through
    the trunk with random weights once, to compare, and fine-tuning is tried on some. What it found
    is kept for `pipeline report`.

    \b
    Examples:
      pipeline advise
      pipeline advise -o curve.png
    """
    asked, store = AdviseOptions(**values), Cache.at(cache)
    opened = store.open_table(table)
    if not as_json:
        which = "" if table else "current "
        echo(f"On the {which}table {opened.path}", err=True)
    with reporter(quiet=as_json) as progress:
        found = advise_on_table(opened, asked, store, progress)
    if as_json:
        options.print_json(found.to_json())
    else:
        _print(found)
    if asked.output is not None:
        found.draw(asked.output)
        echo(f"Drawn in {asked.output}", err=True)


def _print(found: Advice) -> None:
    size = found.size
    each = f"{size.smallest:,} to {size.largest:,} a class, median {size.median:,.0f}"
    echo(f"How large        {size.images:,} training images, {size.classes} classes: {each}")
    rows = [["How similar", "right [95%]", "by chance", ""]]
    rows.append(["  nearest neighbour", *_permutation_test(found.neighbours.to_json())])
    if found.linear is not None:
        rows.append(["  linear, by folds", *_permutation_test(found.linear.to_json())])
    rows.append(["  the commonest class", f"{found.majority:.3f}", "", ""])
    for line in aligned(rows):
        echo(line)
    if (of := found.reference) is not None:
        rows = [[f"  of {of.images:,} images", "linear", "nearest neighbour"]]
        rows.append(["  pretrained weights", f"{of.linear:.3f}", f"{of.neighbours:.3f}"])
        rows.append(["  random weights", f"{of.random_linear:.3f}", f"{of.random_neighbours:.3f}"])
        for line in aligned(rows):
            echo(line)
    if found.curve is not None:
        for line in _curve(found):
            echo(line)
    for gain in found.gains:
        echo(
            f"Fine-tuning      {gain.unfreeze}: {_percent(gain.head, gain.head_interval)} → "
            f"{_percent(gain.accuracy, gain.interval)} on {gain.split}, {gain.where}"
        )
    advice = found.recommendation
    echo(f"Quadrant         {advice.size}, {advice.similarity}")
    echo(f"Advice           {advice.title}")
    for line in advice.commands:
        echo(f"  {line}")
    for label, sentences in (("Why", advice.reasons), ("Source", advice.sources)):
        for sentence in sentences:
            echo(f"{label:<17}{sentence}")
            label = ""
    for note in found.notes:
        echo(f"Note             {note}")


def _permutation_test(values: dict[str, Any]) -> list[str]:
    return [
        _percent(values["accuracy"], values["interval"]),
        f"{values['random_baseline']:.3f}",
        f"p = {values['p']:.3f}",
    ]


def _curve(found: Advice) -> list[str]:
    curve = found.curve
    assert curve is not None
    rows = [["Learning curve", f"accuracy on {curve.measured_on} ({curve.held:,} images)"]]
    for point in curve.to_json()["points"]:
        count = len(point["accuracies"])
        spread = f", {count} repeats" if count > 1 else ""
        interval = _percent(point["accuracy"], point["interval"])
        rows.append([f"  {point['images']:>8,} images", f"{interval}{spread}"])
    for one in curve.forecasts:
        low, high = (100 * value for value in one.gain_interval)
        rows.append([
            f"  {one.images:>8,} images",
            f"{_percent(one.accuracy, one.interval)} forecast: {100 * one.gain:+.1f} points "
            f"[{low:+.1f}, {high:+.1f}]",
        ])  # fmt: skip
    lines = aligned(rows)
    if curve.check is not None:
        last = curve.points[-1]
        lines.append(
            f"  Back-test: from half of the images, predicted "
            f"{_percent(curve.check.accuracy, curve.check.interval)} for all; measured "
            f"{1 - last.error:.3f}."
        )
    return lines


def _percent(value: float, interval: Any) -> str:
    low, high = interval
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
