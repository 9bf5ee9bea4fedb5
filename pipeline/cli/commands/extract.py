"""`pipeline extract`."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli import options
from pipeline.cli.options import shown
from pipeline.cli.progress import reporter
from pipeline.extraction.extract import Extraction, extract_table
from pipeline.extraction.options import DEFAULT_TRUNK, Recipe
from pipeline.extraction.scan import DEFAULT_DATA
from pipeline.store.cache import Cache


@click.command()
@click.argument("data", required=False)
@click.option(
    "--trunk",
    default=DEFAULT_TRUNK,
    show_default=True,
    metavar="NAME",
    help="Pretrained network: built-in, torchvision's name, or timm/NAME.",
)
@click.option(
    "--weights",
    default="default",
    show_default=True,
    metavar="NAME|FILE",
    help="default, a name of the library's, random, or a .pth, .pt, .safetensors file.",
)
@click.option(
    "--keys",
    default="name",
    show_default=True,
    metavar="name|order",
    help="Match a file's tensors by name, or by order where all shapes agree.",
)
@click.option(
    "--layer",
    metavar="stem|layer1|…|layer4|neck[,…]",
    help="Pool the end of this stage, or of several, side by side.  [default: what enters the "
    "last Linear]",
)
@click.option(
    "--pool",
    metavar="avg|max|gem|flat",
    help="How to pool the layer.  [default: as the trunk does]",
)
@click.option(
    "--views",
    default=0,
    show_default=True,
    metavar="V",
    help="Keep V random crops and flips of each training image besides, for `fit-head --views`.",
)
@click.option(
    "--image-size", type=int, metavar="PX", help="Side of the input.  [default: the weights' own]"
)
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    metavar="auto|fp32|bf16|fp16",
    help="auto: what the cache already holds, else what the hardware is fast in.",
)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps")
@click.option(
    "--engine",
    default="auto",
    show_default=True,
    metavar="auto|torch|openvino",
    help="What runs the trunk. auto: OpenVINO on a CPU where it is installed.",
)
@click.option(
    "--batch-size",
    type=int,
    metavar="N",
    help="Images at once.  [default: 32 on a CPU, 128 on CUDA, 64 on MPS]",
)
@click.option(
    "--workers",
    type=int,
    metavar="N",
    help="Decoding threads.  [default: the cores that the process may use]",
)
@click.option("--name", help="The table's name.  [default: the data's]")
@click.option(
    "--val-fraction",
    type=float,
    metavar="F",
    help="Share of val where the data have no splits.  [default: 0.15]",
)
@click.option(
    "--test-fraction",
    type=float,
    metavar="F",
    help="Share of test where the data have no splits.  [default: 0.15]",
)
@click.option("--seed", default=0, show_default=True, help="Of the automatic splits.")
@click.option(
    "--max-bad",
    type=int,
    metavar="N",
    help="Fail when more images than this cannot be decoded.  [default: no limit]",
)
@click.option(
    "--rehash",
    is_flag=True,
    help="Read every file again, whatever its times say, and try bad images again.",
)
@options.cache
@options.as_json
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
        click.echo(
            f"No DATA given: taking the built-in {DEFAULT_DATA} (scikit-learn's 1,797 "
            "handwritten digits).",
            err=True,
        )
    with reporter(quiet=as_json) as progress:
        done = extract_table(data, Recipe(**values), Cache.at(cache), progress)
    if as_json:
        options.print_json(done.to_json())
    else:
        show(done)


def show(done: Extraction) -> None:
    """Print what an extraction did."""
    table, facts = done.table, done.table.provenance
    rows, dim = table.features.shape
    splits = ", ".join(f"{name or 'unlabelled'} {n:,}" for name, n in table.split_counts.items())
    classes = ", ".join(table.classes[:8]) + (", …" if len(table.classes) > 8 else "")
    layer = "" if facts["layer"] == "feature" else f", {facts['layer']} pooled by {facts['pool']}"
    lines = [
        ("Table", f"{table.path}"),
        ("", f"{rows:,} images × {dim:,} features, table id {table.table_id[:12]}"),
        (
            "Trunk",
            f"{facts['trunk']}, weights {facts['weights']}{layer}, {facts['precision']} "
            f"on {facts['engine']}",
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
        click.echo(shown(f"{label:<8} {text}"))
