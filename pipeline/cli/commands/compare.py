"""`pipeline compare`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli import options
from pipeline.cli.boards import accuracy, aligned
from pipeline.cli.options import shown
from pipeline.cli.progress import reporter
from pipeline.cores import usable_cores
from pipeline.errors import UsageError
from pipeline.extraction.options import DEFAULT_TRUNK
from pipeline.store.cache import Cache

if TYPE_CHECKING:
    from pipeline.analysis.comparing.compare_trunks import Race, Result


@click.command()
@click.argument("data", required=False)
@click.option(
    "--trunks",
    default=DEFAULT_TRUNK,
    show_default=True,
    metavar="NAME[:WEIGHTS],…",
    help="Trunks, each perhaps with its weights: resnet18:random, resnet50:weights.pth.",
)
@click.option(
    "--layers",
    metavar="own|stem|layer1|…|neck,…",
    help="Layers to take features from; A+B for two side by side.  [default: own, what enters "
    "the last Linear]",
)
@click.option("--pools", metavar="avg|max|gem|flat,…", help="How to pool these layers.")
@click.option(
    "--clf",
    default="linear",
    show_default=True,
    metavar="NAME[,NAME…]|all",
    help="Heads to fit; the best by selection counts.",
)
@click.option(
    "--folds",
    default=5,
    show_default=True,
    metavar="N",
    help="Folds of the training images that choose.",
)
@click.option(
    "--image-size", type=int, metavar="PX", help="Side of the input.  [default: the weights' own]"
)
@click.option("--precision", default="auto", show_default=True, metavar="auto|fp32|bf16|fp16")
@options.device
@click.option("--engine", default="auto", show_default=True, metavar="auto|torch|openvino")
@options.batch_size
@options.workers
@click.option("--jobs", type=int, metavar="N", help="Processes.  [default: all cores]")
@click.option("--seed", default=0, show_default=True, help="Of automatic splits and folds.")
@click.option(
    "--output",
    metavar="FILE.png",
    help="The picture.  [default: comparisons/NAME.png in the cache]",
)
@options.cache
@options.as_json
def command(
    data: str | None, output: str | None, cache: str | None, as_json: bool, **values: Any
) -> None:
    """Compare trunks, layers and poolings on the images of DATA: how good, how fast, how large.

    Of each the best head counts: its accuracy on folds of the training images, which marks the
    Pareto front, and that on val and test, which choose nothing. Layers of one trunk come from
    one pass; all that the cache holds is reused. What fails is told at the end, with exit code 1.
    DATA is what `extract` takes; without it: the built-in digits.

    \b
    Examples:
      pipeline compare --layers layer2,layer3,own --pools avg,max
      pipeline compare digits --trunks efficientnet_lite0,resnet18:random
    """
    from pipeline.analysis.comparing.compare_picture import draw
    from pipeline.analysis.comparing.compare_trunks import run
    from pipeline.analysis.comparing.contenders import CompareRecipe

    if output is not None and Path(output).suffix.lower() != ".png":
        raise UsageError(f"--output '{output}' does not end in .png: the picture is a PNG.")
    store = Cache.at(cache)
    jobs = values.pop("jobs")
    recipe = CompareRecipe(**values, jobs=usable_cores() if jobs is None else jobs)
    with reporter(quiet=as_json) as progress:
        done = run(data, recipe, store, progress)
    picture = Path(output) if output else store.root / "comparisons" / f"{done.name}.png"
    draw(picture, done.results)
    done = replace(done, seconds=options.elapsed())
    if as_json:
        options.print_json({**done.to_json(), "picture": str(picture)})
    else:
        _print(done, picture)
    if done.failed:
        sys.exit(1)


def _print(done: Race, picture: Path) -> None:
    splits = [
        name for name in ("val", "test") if any(name in r.head["metrics"] for r in done.results)
    ]
    header = [
        "", "", "trunk, layer, pooling", "D", "ms", "MB", "folds of train [95%]",
        *[f"{name} [95%]" for name in splits], "head", "id",
    ]  # fmt: skip
    rows = [_row(number, one, splits) for number, one in enumerate(done.results, 1)]
    for line in aligned([header, *rows], right={0, 3, 4, 5}):
        click.echo(line)
    click.echo("* nothing else here is both as fast and as accurate on folds of train")
    for title, reason in done.failed.items():
        click.echo(shown(f"Failed   {title}: {reason}"))
    for note in done.notes:
        click.echo(shown(f"Note     {note}"))
    click.echo(shown(f"Picture  {picture}"))
    click.echo(f"Time     {done.seconds:.1f} s, {done.extracted:,} images through a trunk")


def _row(number: int, one: Result, splits: list[str]) -> list[str]:
    metrics, tried = one.head["metrics"], one.accuracy is not None
    return [
        str(number),
        "*" if one.front else "",
        one.contender.title,
        f"{one.table.features.shape[1]:,}",
        f"{one.cost.milliseconds:.2f}",
        f"{one.cost.megabytes:.1f}",
        accuracy({"accuracy": one.accuracy, "interval": one.interval}) if tried else "untried",
        *[accuracy(metrics[name]) if name in metrics else "-" for name in splits],
        one.head["clf"],
        one.head["id"],
    ]
