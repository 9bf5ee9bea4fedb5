"""`pipeline fit-head`."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from pipeline.cli import boards, options
from pipeline.cli.log import echo
from pipeline.cli.progress import reporter
from pipeline.heads.cross_validation.near_duplicates import Leak
from pipeline.heads.fit_head import Fitting, fit_heads
from pipeline.heads.leaderboard import rank_heads
from pipeline.heads.options import FitHeadOptions
from pipeline.images.names import counted
from pipeline.images.sources.address import joined
from pipeline.store.cache import Cache
from pipeline.store.results import HEAD


@click.command()
@click.argument("table", required=False)
@options.options_of(FitHeadOptions)
@options.cache_and_json
def command(table: str | None, cache: str | None, as_json: bool, **values: Any) -> None:
    """Choose and fit heads on the features of TABLE: a file, a name or an id.

    Without TABLE the current one: that of the last extract. Needs neither images nor trunk.
    The training images alone choose; val and test are only reported.

    \b
    Examples:
      pipeline fit-head --clf logreg
      pipeline fit-head --clf all --select log-loss
    """
    store = Cache.at(cache)
    opened = store.open_table(table)
    if not as_json:
        which = "" if table else "current "
        echo(f"On the {which}table {opened.path}", err=True)
    with reporter(quiet=as_json) as progress:
        done = fit_heads(opened, FitHeadOptions(**values), store, progress)
    if as_json:
        options.print_json(done.to_json())
        return
    show(done, store)


def leakage(leaks: Sequence[Leak], root: str | Path) -> Iterator[str]:
    """Yield how many images resemble one of another split, then files, ready for a shell."""
    pairs = Counter((leak.split, leak.other_split) for leak in leaks)
    for (split, other), number in pairs.items():
        yield (
            f"Leakage  {counted(number, 'image')} of {split} "
            f"{'resembles' if number == 1 else 'resemble'} an image of {other} (possible leak)"
        )
    for leak in leaks[:5]:
        how = "the same file" if leak.same_file else f"cosine {leak.cosine:.3f}"
        yield f"         {shlex.join(joined(root, p) for p in (leak.path, leak.other))} ({how})"


def show(done: Fitting, store: Cache) -> None:
    """Print what a fitting of heads did."""
    fitted = {head.id for head in done.heads}
    heads, _ = HEAD.every(store.root)
    ranked = rank_heads(heads, done.table.table_id)
    board = [one for one in ranked if one.info.id in fitted]
    for line in boards.heads(board):
        echo(line)
    best = next((one for one in board if one.best), board[0]).info
    for split, values in best.metrics.items():
        echo(f"{best.clf} on {split}, {values.images:,} images: {boards.figures(values)}")
    for info in (one.info for one in board):
        if (repeats := info.repeats) is not None:
            echo(
                f"{info.clf} over {len(repeats['accuracies'])} resplits of train and "
                f"{repeats['split']}: {repeats['mean']:.3f} ± {repeats['spread']:.3f}"
            )
        for note in info.notes:
            echo(f"Note     {note}")
    for reason in done.failed.values():
        echo(f"Failed   {reason}")
    for line in leakage(done.leaks, done.table.provenance.root):
        echo(line)
    if len(done.leaks) > 5:
        echo(f"         and {len(done.leaks) - 5} more; --json lists all")
    for note in done.notes:
        echo(f"Note     {note}")
    if done.reused:
        echo(f"Reused   {counted(len(done.reused), 'head')}, fitted already")
    echo(f"Kept in  {store.root / 'heads'}")
