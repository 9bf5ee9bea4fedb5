"""`pipeline heads`."""

from __future__ import annotations

import click

from pipeline.cli import options
from pipeline.cli.boards import lines
from pipeline.cli.options import shown
from pipeline.heads.leaderboard import chosen_by, leaderboard
from pipeline.store.cache import Cache
from pipeline.store.results import HEAD


@click.command()
@click.argument("table", required=False)
@options.cache
@options.as_json
def command(table: str | None, cache: str | None, as_json: bool) -> None:
    """List the heads of TABLE (the current one without it), best first.

    The best by selection is marked with *; ties go to the simpler. Heads that were chosen by
    another measure or on other images stand apart, since their scores cannot be compared.

    \b
    Example:
      pipeline heads
    """
    store = Cache.at(cache)
    opened = store.open_table(table)
    heads, damaged = HEAD.every(store.root)
    board = leaderboard(heads, opened.table_id)
    if as_json:
        options.print_json({"table": str(opened.path), "heads": board, "damaged": damaged})
        return
    click.echo(shown(f"{opened.path}"), err=True)
    if not board:
        click.echo("No head yet. Fit some with `pipeline fit-head --clf all`.")
    for sentence in damaged:
        click.echo(shown(f"Left out: {sentence}"), err=True)
    for number in sorted({head["group"] for head in board}):
        group = [head for head in board if head["group"] == number]
        click.echo(chosen_by(group[0]))
        for line in lines(group):
            click.echo(line)
