"""`pipeline cache info | verify | gc`."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from pipeline.cli import options
from pipeline.cli.log import echo
from pipeline.cli.options import size
from pipeline.errors import PipelineError
from pipeline.images.names import counted
from pipeline.store import upkeep
from pipeline.store.cache import Cache


@click.group(name="cache")
def command() -> None:
    """Show, verify and tidy the cache.

    \b
    Example:
      pipeline cache verify
    """


@command.command()
@options.cache_and_json
def info(cache: str | None, as_json: bool) -> None:
    """Show what is in the cache and what it costs.

    \b
    Example:
      pipeline cache info
    """
    store = Cache.at(cache)
    parts = upkeep.usage(store)
    fingerprints: list[dict[str, Any]] = [
        {"fingerprint": rows.fingerprint, "shards": len(rows.names())} for rows in store.stores()
    ]
    unfinished = [run.path.name for run in store.manifests() if run.unfinished]
    if as_json:
        options.print_json(
            {
                "cache": str(store.root),
                "parts": {name: vars(part) for name, part in parts.items()},
                "bytes": sum(part.bytes for part in parts.values()),
                "fingerprints": fingerprints,
                "unfinished_runs": unfinished,
            }
        )
        return
    if _is_missing(store):
        return
    echo(f"{store.root}: {size(sum(part.bytes for part in parts.values()))}")
    for name, part in parts.items():
        echo(f"  {name:<8} {part.files:>7,} files  {size(part.bytes):>10}")
    for entry in fingerprints:
        echo(f"  rows of {entry['fingerprint'][:12]}: {entry['shards']:,} shards")
    if unfinished:
        echo(f"  {len(unfinished)} unfinished runs; their rows are kept for the next try")


@command.command()
@options.cache_and_json
def verify(cache: str | None, as_json: bool) -> None:
    """Hash every file again; name what is damaged or missing and how to repair it.

    Exits with 1 when something is.

    \b
    Example:
      pipeline cache verify
    """
    store = Cache.at(cache)
    verdict = upkeep.verify(store)
    if as_json:
        options.print_json(vars(verdict))
    elif not _is_missing(store):
        for problem in verdict.problems.values():
            echo(problem)
        echo(
            f"Read {counted(verdict.shards, 'shard')}, {counted(verdict.tables, 'table')} and "
            f"{counted(verdict.results, 'result')} (heads, models, advice); "
            f"{len(verdict.problems):,} damaged or missing."
        )
        for note in verdict.notes:
            echo(note)
        where = f" --cache {shlex.quote(cache)}" if cache else ""
        for repair in verdict.repairs:
            echo(f"To repair, computing only what is lost: {repair}{where}")
    if verdict.problems:
        sys.exit(1)


@command.command()
@click.option("--yes", is_flag=True, help="Remove without asking.")
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option(
    "--unfinished",
    is_flag=True,
    help="Give up the rows of unfinished runs too, if these wrote nothing for a day.",
)
@click.option(
    "--activations",
    is_flag=True,
    help="Give up the activations of fine-tuned models too; they can be computed again.",
)
@options.cache_and_json
def gc(
    yes: bool,
    dry_run: bool,
    unfinished: bool,
    activations: bool,
    cache: str | None,
    as_json: bool,
) -> None:
    """Remove unreferenced files, after showing them.

    These are shards that no table, model or unfinished run names, advice on tables that are gone,
    and parts that no table has and temporary files that are older than a day.

    \b
    Example:
      pipeline cache gc --dry-run
    """
    store = Cache.at(cache)
    found = upkeep.garbage(store, unfinished=unfinished, activations=activations)
    recent = [run for run in store.manifests() if run.unfinished and run.path not in found]
    total = sum(found.values())
    if not as_json and not _is_missing(store):
        for path, count in found.items():
            echo(f"{size(count):>10}  {path}")
        echo(f"{counted(len(found), 'unreferenced file')}, {size(total)}.")
        if unfinished and recent:
            runs = counted(len(recent), "unfinished run")
            echo(f"Kept {runs}: not yet a day old, and perhaps still running.")
    asked = bool(found) and not dry_run
    if asked and not yes:
        if not sys.stdin.isatty():
            raise PipelineError("Nothing removed: without a terminal to ask, give --yes.")
        asked = click.confirm("Remove them?", err=True)
    if asked:
        found = upkeep.collect(store, found, unfinished=unfinished, activations=activations)
        total = sum(found.values())
    if as_json:
        files = {str(path): count for path, count in found.items()}
        options.print_json({"files": files, "bytes": total, "removed": asked})
    elif asked:
        echo(f"Removed, {size(total)} free.")


def _is_missing(store: Cache) -> bool:
    """Tell, and say so, whether there is no such folder."""
    if missing := not store.root.is_dir():
        echo(f"There is no cache {store.root} yet. `pipeline extract` makes one.")
    return missing
