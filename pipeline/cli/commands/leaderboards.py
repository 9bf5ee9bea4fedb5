"""`pipeline heads` and `pipeline models`."""

from __future__ import annotations

import click

from pipeline.cli import boards, options
from pipeline.heads.leaderboard import chosen_by, rank_heads, rank_models, trained_on
from pipeline.store.results import HEAD, MODEL


@click.command()
@click.argument("table", required=False)
@options.cache
@options.as_json
def heads(table: str | None, cache: str | None, as_json: bool) -> None:
    """List the heads of TABLE (the current one without it), best first.

    The best by selection is marked with *; ties go to the simpler. Heads that were chosen by
    another measure or on other images stand apart, since their scores cannot be compared.

    \b
    Example:
      pipeline heads
    """
    boards.show_board(
        HEAD, table, cache, rank=rank_heads, title=chosen_by, lines=boards.heads, as_json=as_json,
        none="No head yet. Fit some with `pipeline fit-head --clf all`.",
    )  # fmt: skip


@click.command()
@click.argument("table", required=False)
@options.cache
@options.as_json
def models(table: str | None, cache: str | None, as_json: bool) -> None:
    """List the fine-tuned models of TABLE (the current one without it), best first.

    Each stands beside the head that it started from, fitted on the same images. The best by
    log-loss on the images that chose the epoch is marked with *, where it beats its head.

    \b
    Example:
      pipeline models
    """
    boards.show_board(
        MODEL, table, cache, rank=rank_models, title=trained_on, lines=boards.models,
        as_json=as_json, none="No model yet. Make one with `pipeline finetune --unfreeze layer4`.",
    )  # fmt: skip
