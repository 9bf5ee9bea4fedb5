"""`pipeline finetune`."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli import options
from pipeline.cli.boards import accuracy, aligned
from pipeline.cli.options import shown
from pipeline.cli.progress import reporter
from pipeline.finetuning.finetune import Tuning, run
from pipeline.finetuning.options import BLEND, EMA, VIEWS, TuneRecipe
from pipeline.store.cache import Cache
from pipeline.store.records import ModelInfo


@click.command()
@click.argument("head", required=False)
@click.option(
    "--unfreeze",
    default="layer4",
    show_default=True,
    metavar="NAME[,NAME…]|N|all|none",
    help="What learns: stages, neck, native modules, the last N stages.",
)
@click.option("--epochs", default=10, show_default=True, metavar="N", help="At most.")
@click.option(
    "--batch-size", default=32, show_default=True, metavar="N", help="Training images a step."
)
@click.option(
    "--lr",
    type=float,
    metavar="LR",
    help="Largest learning rate of the trunk.  [default: adamw 2e-4, sgd 0.01; from scratch "
    "1e-3, 0.05]",
)
@click.option(
    "--head-lr-factor",
    type=float,
    metavar="X",
    help="The head learns so much faster.  [default: 10; from scratch 1]",
)
@click.option("--optimizer", default="adamw", show_default=True, metavar="adamw|sgd")
@click.option("--weight-decay", default=0.01, show_default=True, metavar="W")
@click.option(
    "--schedule",
    default="cosine",
    show_default=True,
    metavar="cosine|step|constant",
    help="Of the learning rate, after a warm-up over a tenth of the steps.",
)
@click.option("--label-smoothing", default=0.1, show_default=True, metavar="S")
@click.option(
    "--views",
    type=int,
    metavar="K",
    help=f"Random crops kept of each training image.  [default: {VIEWS}; with --live new ones "
    "in every epoch]",
)
@click.option(
    "--augment",
    default="standard",
    show_default=True,
    metavar="standard|none",
    help="Random crops and flips, or the evaluation view.",
)
@click.option("--live", is_flag=True, help="Keep no activations: whole trunk, every epoch.")
@click.option("--train-bn", is_flag=True, help="Unfrozen BatchNorms follow their batches.")
@click.option(
    "--ema",
    default=EMA,
    show_default=True,
    metavar="E",
    help="Score and keep the moving average of the weights over E epochs; 0: the weights.",
)
@click.option(
    "--blend",
    default=BLEND,
    show_default=True,
    metavar="S",
    help="Score weights at this share of the way from the head to those too; 0: do not.",
)
@click.option("--patience", type=int, metavar="N", help="End after N epochs without a better.")
@click.option(
    "--select-on",
    default="auto",
    show_default=True,
    metavar="auto|val|train-part",
    help="Whose log-loss chooses the epoch; auto: val where there is a test split too.",
)
@click.option(
    "--start",
    default="head",
    show_default=True,
    metavar="head|random",
    help="What the last layer starts from.",
)
@click.option("--from-scratch", is_flag=True, help="Everything from random weights, to compare.")
@click.option("--data", metavar="DIR", help="Where the images lie now.")
@click.option("--precision", default="auto", show_default=True, metavar="auto|fp32|bf16|fp16")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps")
@click.option("--workers", type=int, metavar="N", help="Decoding threads.  [default: all cores]")
@click.option("--seed", default=0, show_default=True, help="Of order, views and dropout.")
@click.option("--resume", is_flag=True, help="Go on with an unfinished run of the same.")
@click.option("--standalone", is_flag=True, help="Keep the frozen part in the model's file too.")
@options.cache
@options.as_json
def command(head: str | None, cache: str | None, as_json: bool, **values: Any) -> None:
    """Fine-tune the last stages of the trunk, starting from HEAD: an id, a folder or a kind.

    Without HEAD: the best of the current table among those fitted by log-loss. The frozen part
    runs once for each image and view; a part of train, or val where there is a test split,
    chooses the epoch.

    \b
    Examples:
      pipeline finetune --unfreeze layer4
      pipeline finetune logreg --unfreeze 2 --epochs 25 --patience 5
    """
    store = Cache.at(cache)
    with reporter(quiet=as_json) as progress:
        done = run(head, TuneRecipe(**values), store, progress)
    if as_json:
        options.print_json(done.to_json())
        return
    show(done)


def show(done: Tuning) -> None:
    """Print what a fine-tuning did."""
    info = done.info
    unfrozen = "from scratch" if info.from_scratch else f"{info.unfreeze} unfrozen"
    click.echo(f"{info.trunk}, {unfrozen}, epoch {info.best_epoch} of {info.epochs}")
    for line in lines(info):
        click.echo(line)
    if info.head_metrics:
        parts = [f"{split} {accuracy(m)}" for split, m in info.head_metrics.items()]
        click.echo(
            f"The head {info.head} itself, fitted on all training images: {', '.join(parts)}"
        )
    if not info.beats_head:
        click.echo(
            f"Fine-tuning did not beat the head on {info.selected_on}: the head {info.head} "
            f"stays best{_though(info)}."
        )
    for note in done.notes:
        click.echo(shown(f"Note     {note}"))
    spent = ", ".join(f"{name} {value:.1f} s" for name, value in info.seconds.items())
    click.echo(f"Reused   {info.id}, made already" if done.reused else f"Took     {spent}")
    click.echo(shown(f"Kept in  {done.folder}"))


def _though(info: ModelInfo) -> str:
    """Return why a model of lower log-loss did not beat its head; else nothing."""
    scored, paired = info.chosen, info.chosen.paired
    if not info.best_epoch or scored.model.log_loss >= scored.start.log_loss:
        return ""
    return (
        f", since {paired.head_alone:,} images are right with it alone and "
        f"{paired.model_alone:,} with the model alone (p = {paired.p:.2g}), for all the "
        "model's lower log-loss"
    )


def lines(info: ModelInfo) -> list[str]:
    """Return the figures of a model beside those of the head that it started from."""
    rows = [["split", "images", "head [95%]", "log-loss", "model [95%]", "log-loss"]]
    for split, scored in info.metrics.items():
        cells = [split + (" (chose)" if scored.selected_on else "")]
        cells.append(f"{scored.model.images:,}")
        for values in (scored.start, scored.model):
            cells += [accuracy(values), f"{values.log_loss:.4f}"]
        rows.append(cells)
    return aligned(rows)
