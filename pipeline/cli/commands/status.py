"""`pipeline status`."""

from __future__ import annotations

import click

from pipeline.cli import options
from pipeline.cli.boards import accuracy
from pipeline.cli.options import shown
from pipeline.store.cache import Cache
from pipeline.workflow.status import tables


@click.command()
@options.cache
@options.as_json
def command(cache: str | None, as_json: bool) -> None:
    """List the tables and heads of the cache, newest first, the current one marked with *.

    \b
    Example:
      pipeline status
    """
    store = Cache.at(cache)
    found = tables(store)
    if as_json:
        listed = [  # a damaged table has none
            {**one, "heads": [head.to_json() for head in one["heads"]]} if "heads" in one else one
            for one in found
        ]
        options.print_json({"cache": str(store.root), "tables": listed})
        return
    if not found:
        click.echo(f"No table in {store.root} yet. Make one with `pipeline extract DATA`.")
    for table in found:
        mark = "*" if table["current"] else " "
        if "damaged" in table:
            click.echo(shown(f"{mark} {table['name']}  damaged: {table['damaged']}"))
            continue
        splits = ", ".join(f"{name or 'unlabelled'} {n:,}" for name, n in table["splits"].items())
        click.echo(
            shown(
                f"{mark} {table['name']}  {table['images']:,}×{table['dim']:,}  "
                f"{len(table['classes'])} classes  {splits}  {table['precision']}  "
                f"{table['created']}"
            )
        )
        if heads := table["heads"]:
            best = next((one for one in heads if one.best), heads[0]).info
            scores = ", ".join(f"{name} {accuracy(m)}" for name, m in best.metrics.items())
            click.echo(f"    {len(heads)} heads, best {best.clf} {best.id}  {scores}")
