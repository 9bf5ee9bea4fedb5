"""`pipeline heads`, `models`, `status`, `trunks` and `completion`: what there is."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import get_completion_class

from pipeline.cli import boards, options
from pipeline.cli.boards import accuracy
from pipeline.cli.log import echo
from pipeline.heads.leaderboard import chosen_by, rank_heads, rank_models, trained_on
from pipeline.images.names import counted
from pipeline.store.cache import Cache
from pipeline.store.results import HEAD, MODEL, Kind
from pipeline.workflow.listings import DESCRIBED, list_tables, list_trunks

if TYPE_CHECKING:
    from pipeline.trunks.registry import TrunkInfo


@click.command()
@click.argument("table", required=False)
@options.cache_and_json
def heads(table: str | None, cache: str | None, as_json: bool) -> None:
    """List the heads of TABLE (the current one without it), best first.

    The best by selection is marked with *; ties go to the simpler. Heads that were chosen by
    another measure or on other images stand apart, since their scores cannot be compared.

    \b
    Example:
      pipeline heads
    """
    _show_board(HEAD, table, cache, as_json)


@click.command()
@click.argument("table", required=False)
@options.cache_and_json
def models(table: str | None, cache: str | None, as_json: bool) -> None:
    """List the fine-tuned models of TABLE (the current one without it), best first.

    Each stands beside the head that it started from, fitted on the same images. The best by
    log-loss on the images that chose or decided is marked with *, where it beats its head.

    \b
    Example:
      pipeline models
    """
    _show_board(MODEL, table, cache, as_json)


#: Kind of result to its leaderboard, what a group of it has in common, the group's lines, and
#: what to say where there is none.
_BOARDS: Mapping[str, tuple[Any, Any, Any, str]] = {
    "head": (
        rank_heads, chosen_by, boards.heads,
        "No head yet. Fit some with `pipeline fit-head --clf all`.",
    ),
    "model": (
        rank_models, trained_on, boards.models,
        "No model yet. Make one with `pipeline finetune --unfreeze layer4`.",
    ),
}  # fmt: skip


def _show_board(kind: Kind[Any], table: str | None, cache: str | None, as_json: bool) -> None:
    rank, title, lines, none = _BOARDS[kind.name]
    store = Cache.at(cache)
    opened = store.open_table(table)
    infos, damaged = kind.every(store.root)
    board = rank(infos, opened.table_id)
    if as_json:
        listed = [one.to_json() for one in board]
        options.print_json({"table": str(opened.path), f"{kind.name}s": listed, "damaged": damaged})
        return
    echo(f"{opened.path}", err=True)
    if not board:
        echo(none)
    for sentence in damaged:
        echo(f"Left out: {sentence}", err=True)
    for _, group in groupby(board, key=attrgetter("group")):
        places = list(group)
        for line in (title(places[0].info), *lines(places)):
            echo(line)


@click.command()
@options.cache_and_json
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
        rows, dim = len(table.labels), table.dim
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
            echo(f"    {counted(len(heads), 'head')}, best {best.clf} {best.id}  {scores}")


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
    tokens = f"   patch {facts.patch} px, {facts.tokens:,} tokens" if facts.tokens else ""
    blocks = f"  block1 to block{facts.blocks}" if facts.blocks else ""
    licence = f", licence {facts.licence}" if facts.licence else ""
    neck = f"  neck {', '.join(facts.neck)}" if facts.neck else ""
    return (
        f"{facts.name}  ({facts.family})\n"
        f"  stages (channels/stride)  {stages}{blocks}{neck}\n"
        f"  D {facts.dim:,}   parameters {facts.parameters / 1e6:.2f} M   "
        f"multiply-adds {facts.multiply_adds / 1e9:.2f} G at {facts.input_size} px{tokens}\n"
        f"  weights {weights}{licence}"
    )


#: Shell to what to do with the script.
_USE = {
    "bash": 'eval "$(pipeline completion bash)"   in ~/.bashrc',
    "zsh": 'eval "$(pipeline completion zsh)"   in ~/.zshrc',
    "fish": "pipeline completion fish > ~/.config/fish/completions/pipeline.fish",
}


@click.command(epilog="\b\n" + "\n".join(f"{shell}: {use}" for shell, use in _USE.items()))
@click.argument("shell", type=click.Choice(list(_USE)))
def completion(shell: str) -> None:
    """Print the script that completes commands and options in SHELL.

    \b
    Example:
      pipeline completion bash
    """
    from pipeline.cli import main

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "pipeline", "_PIPELINE_COMPLETE").source(), nl=False)
