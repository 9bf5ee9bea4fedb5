"""`pipeline extract`."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli import options
from pipeline.cli.log import echo
from pipeline.cli.progress import reporter
from pipeline.extraction.extract import Extraction, extract_table
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.scan import DEFAULT_DATA
from pipeline.store.cache import Cache


@click.command()
@click.argument("data", required=False)
@options.options_of(ExtractOptions)
@options.cache_and_json
def command(data: str | None, cache: str | None, as_json: bool, **values: Any) -> None:
    """Run a frozen trunk over the images of DATA and keep their features in one HDF5 table.

    DATA is a folder with train/ val/ test/, a folder with a folder for each class, a CSV or TSV
    file with the columns path,label[,split,group], a folder of images without classes, or the
    name of a built-in set. Without DATA: the built-in digits.

    \b
    Examples:
      pipeline extract
      pipeline extract digits --trunk resnet18 --weights random
      pipeline extract digits --layer layer2,layer3,layer4
    """
    if data is None:
        echo(
            f"No DATA given: taking the built-in {DEFAULT_DATA} (scikit-learn's 1,797 "
            "handwritten digits).",
            err=True,
        )
    with reporter(quiet=as_json) as progress:
        done = extract_table(data, ExtractOptions(**values), Cache.at(cache), progress)
    options.output(done, show, as_json=as_json)


def show(done: Extraction) -> None:
    """Print what an extraction did."""
    table, facts = done.table, done.table.provenance
    rows, dim = table.features.shape
    splits = ", ".join(f"{name or 'unlabelled'} {n:,}" for name, n in table.split_counts.items())
    classes = ", ".join(table.classes[:8]) + (", …" if len(table.classes) > 8 else "")
    layer = "" if facts.layer == "feature" else f", {facts.layer} pooled by {facts.pool}"
    lines = [
        ("Table", f"{table.path}"),
        ("", f"{rows:,} images × {dim:,} features, table id {table.table_id[:12]}"),
        (
            "Trunk",
            f"{facts.trunk}, weights {facts.weights}{layer}, {facts.precision} on {facts.engine}",
        ),
        ("Classes", f"{len(table.classes):,}: {classes}" if table.classes else "none known"),
        ("Splits", splits),
        (
            "Images",
            f"{done.extracted:,} extracted, {done.reused:,} reused, {len(done.bad):,} bad, "
            f"{len(done.left_out):,} left out",
        ),
    ]
    if done.views:
        line = f"{done.views} of each of {len(table.training_rows):,} training images, "
        lines.append(("Views", f"{line}{done.views_computed:,} computed"))
    lines += [("", f"bad: {path}: {reason}") for path, reason in done.bad[:5]]
    if done.listing:
        lines.append(("", f"every reason: {done.listing}"))
    speed = (
        f", extracting at {done.images_per_second:.0f} images/s" if done.images_per_second else ""
    )
    lines.append(("Time", f"{done.seconds:.1f} s{speed}"))
    lines += [("Note", note) for note in done.notes]
    for label, text in lines:
        echo(f"{label:<8} {text}")
