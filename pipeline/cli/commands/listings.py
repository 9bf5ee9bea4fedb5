"""`pipeline heads`, `pipeline models`, `pipeline status` and `pipeline trunks`: what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline.cli import boards, options
from pipeline.cli.boards import accuracy
from pipeline.cli.log import echo
from pipeline.heads.leaderboard import chosen_by, rank_heads, rank_models, trained_on
from pipeline.store.cache import Cache
from pipeline.store.results import HEAD, MODEL
from pipeline.workflow.listings import DESCRIBED, list_tables, list_trunks

if TYPE_CHECKING:
    from pipeline.trunks.registry import TrunkInfo


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
    found = list_tables(cache)
    root = Cache.at(cache).root
    if as_json:
        options.print_json({"cache": str(root), "tables": [one.to_json() for one in found]})
        return
    if not found:
        echo(f"No table in {root} yet. Make one with `pipeline extract DATA`.")
    for one in found:
        mark = "*" if one.current else " "
        if (table := one.table) is None:
            echo(f"{mark} {one.path.stem}  damaged: {one.damaged}")
            continue
        rows, dim = table.features.shape
        splits = ", ".join(
            f"{name or 'unlabelled'} {n:,}" for name, n in table.split_counts.items()
        )
        given = table.provenance
        echo(
            f"{mark} {one.path.stem}  {rows:,}×{dim:,}  {len(table.classes)} classes  {splits}  "
            f"{given.precision}  {given.created}"
        )
        if heads := one.heads:
            best = next((head for head in heads if head.best), heads[0]).info
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
    found = list_trunks(pattern)
    described = len(found) <= DESCRIBED
    if as_json:
        listed = [
            {"name": name, "refused": facts} if isinstance(facts, str)
            else {"name": name} if facts is None
            else vars(facts)
            for name, facts in found.items()
        ]  # fmt: skip
        options.print_json({"trunks": listed})
        return
    for name, facts in found.items():
        echo(name if facts is None else _text(name, facts))
    if not described:
        echo(
            f"{len(found)} trunks; a pattern that fits at most {DESCRIBED} shows their stages.",
            err=True,
        )


def _text(name: str, facts: TrunkInfo | str) -> str:
    if isinstance(facts, str):
        return f"{name}\n  cannot be used: {facts}"
    stages = "  ".join(
        f"{stage} {channels}/{facts.strides[stage]}" for stage, channels in facts.channels.items()
    )
    at_hand = "at hand" if facts.at_hand else "not at hand"
    weights = f"{', '.join(facts.weights)} ({at_hand})" if facts.weights else "random, FILE"
    neck = f"  neck {', '.join(facts.neck)}" if facts.neck else ""
    return (
        f"{facts.name}  ({facts.family})\n"
        f"  stages (channels/stride)  {stages}{neck}\n"
        f"  D {facts.dim:,}   parameters {facts.parameters / 1e6:.2f} M   "
        f"multiply-adds {facts.multiply_adds / 1e9:.2f} G at {facts.input_size} px\n"
        f"  weights {weights}"
    )
