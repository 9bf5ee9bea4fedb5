"""`pipeline models`."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli import options
from pipeline.cli.boards import accuracy, aligned
from pipeline.cli.options import shown
from pipeline.heads.models import board, trained_on
from pipeline.store.cache import Cache
from pipeline.store.results import MODEL


@click.command()
@click.argument("table", required=False)
@options.cache
@options.as_json
def command(table: str | None, cache: str | None, as_json: bool) -> None:
    """List the fine-tuned models of TABLE (the current one without it), best first.

    Each stands beside the head that it started from, fitted on the same images. The best by
    log-loss on the images that chose the epoch is marked with *, where it beats its head.

    \b
    Example:
      pipeline models
    """
    store = Cache.at(cache)
    opened = store.open_table(table)
    models, damaged = MODEL.every(store.root)
    found = board(models, opened.table_id)
    if as_json:
        options.print_json({"table": str(opened.path), "models": found, "damaged": damaged})
        return
    click.echo(shown(f"{opened.path}"), err=True)
    if not found:
        click.echo("No model yet. Make one with `pipeline finetune --unfreeze layer4`.")
    for sentence in damaged:
        click.echo(shown(f"Left out: {sentence}"), err=True)
    for number in sorted({info["group"] for info in found}):
        group = [info for info in found if info["group"] == number]
        click.echo(trained_on(group[0]))
        for line in lines(group):
            click.echo(line)


def lines(models: list[dict[str, Any]]) -> list[str]:
    """Return a leaderboard of models as aligned lines, the best marked with *."""
    on = models[0]["selected_on"]
    reported = [split for split in models[0]["metrics"] if split != on]
    header = ["", "unfrozen", "epoch", "log-loss", *[f"{split} [95%]" for split in reported]]
    header += [f"its head, {split}" for split in reported] + ["seconds", "id"]
    rows = []
    for info in models:
        scores = info["metrics"]
        rows.append([
            "*" if info["best"] else "",
            "from scratch" if info["from_scratch"] else info["unfreeze"],
            f"{info['best_epoch']}/{info['epochs']}" + ("" if info["finished"] else " stopped"),
            f"{scores[on]['model']['log_loss']:.4f}",
            *[accuracy({**scores[s]["model"], "selected_on": False}) for s in reported],
            *[f"{scores[s]['start']['accuracy']:.3f}" for s in reported],
            f"{sum(info['seconds'].values()):.1f}",
            info["id"],
        ])  # fmt: skip
    return aligned([header, *rows], right={len(header) - 2})
