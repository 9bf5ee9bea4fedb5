"""`pipeline finetune`."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli import options
from pipeline.cli.boards import accuracy, aligned
from pipeline.cli.log import echo
from pipeline.cli.progress import reporter
from pipeline.finetuning.finetune import Tuning, finetune_head
from pipeline.finetuning.options import FinetuneOptions
from pipeline.store.cache import Cache
from pipeline.store.result_records import ModelInfo


@click.command()
@click.argument("head", required=False)
@options.options_of(FinetuneOptions)
@options.cache_and_json
def command(head: str | None, cache: str | None, as_json: bool, **values: Any) -> None:
    """Fine-tune the last stages of the trunk, starting from HEAD: an id, a folder or a kind.

    Without HEAD: the best of the current table among those fitted by log-loss. The frozen part
    runs once for each image and view. Several recipes are tried within a budget; a part of train,
    or val where there is a test split, chooses one, and others decide whether it beats the head.
    With a recipe named, or options of one, its best epoch is kept.

    \b
    Examples:
      pipeline finetune --unfreeze layer4
      pipeline finetune --unfreeze all --budget 20
      pipeline finetune logreg --unfreeze 2 --epochs 25 --patience 5
    """
    store = Cache.at(cache)
    with reporter(quiet=as_json) as progress:
        done = finetune_head(head, FinetuneOptions(**values), store, progress)
    options.output(done, show, as_json=as_json)


def show(done: Tuning) -> None:
    """Print what a fine-tuning did."""
    info = done.info
    unfrozen = "from scratch" if info.from_scratch else f"{info.unfreeze} unfrozen"
    echo(f"{info.trunk}, {unfrozen}, kept: {info.kept}")
    for line in lines(info):
        echo(line)
    if info.head_metrics:
        parts = [f"{split} {accuracy(m)}" for split, m in info.head_metrics.items()]
        start = done.start[0].upper() + done.start[1:]
        echo(f"{start}, by itself: {', '.join(parts)}")
    if info.decision:
        echo(info.decided)
    elif not info.beats_head:
        echo(
            f"Fine-tuning did not beat the head on {info.selected_on}: the head {info.head} "
            f"stays best{_though(info)}."
        )
    for note in done.notes:
        echo(f"Note     {note}")
    spent = ", ".join(f"{name} {value:.1f} s" for name, value in info.seconds.items())
    echo(f"Reused   {info.id}, made already" if done.reused else f"Took     {spent}")
    echo(f"Kept in  {done.folder}")


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
        role = info.role(split)
        cells = [f"{split} ({role})" if role else split]
        cells.append(f"{scored.model.images:,}")
        for values in (scored.start, scored.model):
            cells += [accuracy(values), f"{values.log_loss:.4f}"]
        rows.append(cells)
    return aligned(rows)
