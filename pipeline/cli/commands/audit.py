"""`pipeline audit`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from pipeline.analysis.options import AuditOptions
from pipeline.cli import options
from pipeline.cli.boards import aligned
from pipeline.cli.log import echo, shown
from pipeline.cli.progress import reporter
from pipeline.store.cache import Cache

if TYPE_CHECKING:
    from pipeline.analysis.auditing.audit import Audit

#: Findings of a kind that are printed without `--all`.
_FIRST = 10
_TITLES = {
    "copy": "Copies",
    "near-duplicate": "Near-duplicates",
    "suspect-label": "Suspect labels",
    "outlier": "Outliers",
}


@click.command()
@click.argument("table", required=False)
@click.option("--all", "every", is_flag=True, help=f"Print all, not the first {_FIRST} of a kind.")
@options.options_of(AuditOptions)
@options.cache_and_json
def command(
    table: str | None, every: bool, cache: str | None, as_json: bool, **values: Any
) -> None:
    """Look for faults in TABLE (the current one without it), from its features alone.

    Copies and near-duplicates, those across splits first; labels that look wrong to heads that
    have not seen the image; images that are far from all others. Each with its reason, as a list
    to act on. Nothing is changed: a person decides.

    \b
    Example:
      pipeline audit
    """
    from pipeline.analysis.auditing.audit import audit_table

    with reporter(quiet=as_json, stopped="Stopped. Nothing was written.") as progress:
        done, place = audit_table(table, AuditOptions(**values), Cache.at(cache), progress)
    done = replace(done, seconds=options.elapsed())
    if as_json:
        options.print_json({**done.to_json(), "csv": str(place)})
        return
    echo(done.table.path, err=True)
    _print(done, every)
    for note in done.notes:
        echo(f"Note     {note}")
    echo(f"List     {place}")
    echo(f"Time     {done.seconds:.1f} s")


def _print(done: Audit, every: bool) -> None:
    for kind, title in _TITLES.items():
        found = done.of_kind(kind)
        echo(f"{title}  {len(found):,}" if found else f"{title}  none")
        lines = [row for one in found[: None if every else _FIRST] for row in done.rows(one)]
        cells = []
        for row in lines[: None if every else _FIRST]:
            other = f"{row['other_path']}  " if row["other_path"] else ""
            cells.append(["", row["path"], f"{other}{row['reason']}"])
        for line in aligned([[_plain(cell) for cell in row] for row in cells]) if cells else []:
            echo(line)
        if not every and len(found) > _FIRST:
            echo(f"  and {len(found) - _FIRST:,} more, which --all prints")
        echo("")


def _plain(text: str) -> str:
    """Return text on one line: what a name holds is shown, and moves no cursor."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown(text))
