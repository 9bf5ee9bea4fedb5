"""`pipeline heads`, `pipeline models`, `pipeline status` and `pipeline trunks`: what there is."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli import boards, options
from pipeline.cli.boards import accuracy
from pipeline.cli.log import echo
from pipeline.errors import PipelineError, UsageError
from pipeline.heads.leaderboard import chosen_by, rank_heads, rank_models, trained_on
from pipeline.store.cache import Cache
from pipeline.store.results import HEAD, MODEL
from pipeline.workflow.status import tables

#: More trunks than this are listed by name alone: each has to be built to be described.
DESCRIBED = 24


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


@click.command()
@options.cache
@options.as_json
def status(cache: str | None, as_json: bool) -> None:
    """List the tables and heads of the cache, newest first, the current one marked with *.

    \b
    Example:
      pipeline status
    """
    store = Cache.at(cache)
    found = tables(store)
    if as_json:
        listed = [
            {**one, "heads": [head.to_json() for head in one.get("heads", [])]} for one in found
        ]
        options.print_json({"cache": str(store.root), "tables": listed})
        return
    if not found:
        echo(f"No table in {store.root} yet. Make one with `pipeline extract DATA`.")
    for table in found:
        mark = "*" if table["current"] else " "
        if "damaged" in table:
            echo(f"{mark} {table['name']}  damaged: {table['damaged']}")
            continue
        splits = ", ".join(f"{name or 'unlabelled'} {n:,}" for name, n in table["splits"].items())
        echo(
            f"{mark} {table['name']}  {table['images']:,}×{table['dim']:,}  "
            f"{len(table['classes'])} classes  {splits}  {table['precision']}  "
            f"{table['created']}"
        )
        if heads := table["heads"]:
            best = next((one for one in heads if one.best), heads[0]).info
            scores = ", ".join(f"{name} {accuracy(m)}" for name, m in best.metrics.items())
            echo(f"    {len(heads)} heads, best {best.clf} {best.id}  {scores}")


@click.command()
@click.argument("pattern", required=False)
@options.as_json
def trunks(pattern: str | None, as_json: bool) -> None:
    """List the trunks whose name holds PATTERN (* and ? work), with what each is made of.

    Without PATTERN, or with one that fits many, the names alone: built-in, torchvision's, timm's.

    \b
    Examples:
      pipeline trunks resnet18
      pipeline trunks 'timm/convnext*pico'
    """
    from pipeline.trunks import registry

    found = registry.names(pattern)
    if not found:
        raise UsageError(f"No trunk's name holds '{pattern}'. `pipeline trunks` lists them all.")
    described = [_describe(name) for name in found] if len(found) <= DESCRIBED else []
    if as_json:
        options.print_json({"trunks": described or [{"name": name} for name in found]})
        return
    for facts in described:
        echo(_text(facts))
    if not described:
        for name in found:
            echo(name)
        echo(
            f"{len(found)} trunks; a pattern that fits at most {DESCRIBED} shows their stages.",
            err=True,
        )


def _describe(name: str) -> dict[str, Any]:
    from pipeline.trunks import registry

    try:
        return vars(registry.describe(name))
    except PipelineError as error:
        return {"name": name, "refused": str(error)}


def _text(facts: dict[str, Any]) -> str:
    if "refused" in facts:
        return f"{facts['name']}\n  cannot be used: {facts['refused']}"
    stages = "  ".join(
        f"{stage} {facts['channels'][stage]}/{facts['strides'][stage]}"
        for stage in facts["channels"]
    )
    hand = "at hand" if facts["at_hand"] else "not at hand"
    weights = f"{', '.join(facts['weights'])} ({hand})" if facts["weights"] else "random, FILE"
    neck = f"  neck {', '.join(facts['neck'])}" if facts["neck"] else ""
    return (
        f"{facts['name']}  ({facts['family']})\n"
        f"  stages (channels/stride)  {stages}{neck}\n"
        f"  D {facts['dim']:,}   parameters {facts['parameters'] / 1e6:.2f} M   "
        f"multiply-adds {facts['multiply_adds'] / 1e9:.2f} G at {facts['input_size']} px\n"
        f"  weights {weights}"
    )
