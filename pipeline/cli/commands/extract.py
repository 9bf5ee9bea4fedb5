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
from pipeline.extraction.spread.share import PartsDone, Share, compute_share
from pipeline.store.cache import Cache


@click.command()
@click.argument("data", required=False)
@options.options_of(ExtractOptions)
@click.option(
    "--part",
    metavar="I/N|auto",
    help="Compute the I-th of N shares of the features and make no table; auto: the share of a "
    "Slurm array or torchrun. Without --part the table is made, and what is missing computed.",
)
@options.cache_and_json
def command(
    data: str | None, part: str | None, cache: str | None, as_json: bool, **values: Any
) -> None:
    """Run a frozen trunk over the images of DATA and keep their features in one HDF5 table.

    DATA is a folder with train/ val/ test/, a folder with a folder for each class, a CSV or TSV
    file with the columns path,label[,split,group], a folder of images without classes, or the
    name of a built-in set; a tar, ZIP archive or Parquet file, a folder of them or several as
    'shard-{000..012}.tar', a saved Hugging Face data set, a text file of paths; or the address of
    any of these, such as s3://bucket/photos. Without DATA: the built-in digits.

    \b
    Examples:
      pipeline extract
      pipeline extract digits --trunk resnet18 --weights random
      pipeline extract digits --layer layer2,layer3,layer4
      pipeline extract digits --part 1/2
    """
    share = None if part is None else Share.asked(part)
    if data is None:
        echo(
            f"No DATA given: taking the built-in {DEFAULT_DATA} (scikit-learn's 1,797 "
            "handwritten digits).",
            err=True,
        )
    asked, home = ExtractOptions(**values), Cache.at(cache)
    with reporter(quiet=as_json) as progress:
        if share is not None:
            shared = compute_share(data, share, asked, home, progress)
        else:
            done = extract_table(data, asked, home, progress)
    if share is not None:
        options.output(shared, show_share, as_json=as_json)
    else:
        options.output(done, show, as_json=as_json)


def show(done: Extraction) -> None:
    """Print what an extraction did."""
    table, facts = done.table, done.table.provenance
    rows, dim = len(table.labels), table.dim
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
        line = f"{done.views} of each of {len(table.training_rows):,} training images "
        line += f"({table.provenance.augment}), "
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


def show_share(done: PartsDone) -> None:
    """Print what a share of an extraction did."""
    speed = f", {done.images_per_second:.0f} images/s" if done.images_per_second else ""
    lines = [
        ("Part", f"{done.part}: {done.done:,} of its {done.share:,} shards computed here"),
        ("Images", f"{done.images:,} extracted, {len(done.bad):,} bad"),
        *(("", f"bad: {path}: {reason}") for path, reason in done.bad[:5]),
        ("Time", f"{done.seconds:.1f} s{speed}"),
        *(("Note", note) for note in done.notes),
        ("Next", "when all parts have ended: the same command without --part makes the table"),
    ]
    for label, text in lines:
        echo(f"{label:<8} {text}")
