"""`pipeline fit-head`."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli import boards, options
from pipeline.cli.options import shown
from pipeline.cli.progress import reporter
from pipeline.cores import usable_cores
from pipeline.heads.fit_head import Fitting, run
from pipeline.heads.leaderboard import rank_heads
from pipeline.heads.options import HeadRecipe
from pipeline.store.cache import Cache
from pipeline.store.results import HEAD


@click.command()
@click.argument("table", required=False)
@click.option(
    "--clf",
    default="logreg",
    show_default=True,
    metavar="NAME[,NAME…]|all",
    help="linear, logreg, ridge, svm, svm-rbf, lda, nb, knn, ncm, mlp, or all.",
)
@click.option(
    "--folds",
    default=5,
    show_default=True,
    metavar="N",
    help="Folds of the training images that choose.",
)
@click.option(
    "--grid",
    metavar="V,V…|LOW:HIGH:COUNT",
    help="Values to try in place of the head's own, such as 1e-6:1e5:45.",
)
@click.option(
    "--normalize",
    metavar="none|standard|l2",
    help="What is done to features first.  [default: what the head wants]",
)
@click.option(
    "--select",
    default="accuracy",
    show_default=True,
    metavar="accuracy|balanced-accuracy|log-loss|f1-macro",
    help="What the best head is best in.",
)
@click.option(
    "--select-on",
    default="cv",
    show_default=True,
    metavar="cv|val",
    help="Choose by folds of train, or by the val split and report test.",
)
@click.option("--shots", type=int, metavar="K", help="Train on K images of each class.")
@click.option(
    "--train-fraction", type=float, metavar="F", help="Train on this share of each class."
)
@click.option(
    "--views",
    default=0,
    show_default=True,
    metavar="V",
    help="Learn from V augmented views of each training image besides (`extract --views V`).",
)
@click.option("--class-weight", metavar="balanced", help="Weigh classes by 1 / their share.")
@click.option(
    "--repeats",
    default=0,
    show_default=True,
    metavar="R",
    help="Repeat on R other splits of the same images; report mean and spread.",
)
@click.option("--jobs", type=int, metavar="N", help="Processes.  [default: all cores]")
@click.option("--seed", default=0, show_default=True, help="Of folds, samples and estimators.")
@options.cache
@options.as_json
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
        click.echo(shown(f"On the {which}table {opened.path}"), err=True)
    jobs = values.pop("jobs")
    recipe = HeadRecipe(**values, jobs=usable_cores() if jobs is None else jobs)
    with reporter(quiet=as_json) as progress:
        done = run(opened, recipe, store, progress)
    if as_json:
        options.print_json(done.to_json())
        return
    show(done, store)


def show(done: Fitting, store: Cache) -> None:
    """Print what a fitting of heads did."""
    fitted = {head.id for head in done.heads}
    heads, _ = HEAD.every(store.root)
    ranked = rank_heads(heads, done.table.table_id)
    board = [one for one in ranked if one.info.id in fitted]
    for line in boards.heads(board):
        click.echo(line)
    best = next((one for one in board if one.best), board[0]).info
    for split, values in best.metrics.items():
        click.echo(f"{best.clf} on {split}, {values.images:,} images: {boards.figures(values)}")
    for info in (one.info for one in board):
        if (repeats := info.repeats) is not None:
            click.echo(
                f"{info.clf} over {len(repeats['accuracies'])} resplits of train and "
                f"{repeats['split']}: {repeats['mean']:.3f} ± {repeats['spread']:.3f}"
            )
        for note in info.notes:
            click.echo(f"Note     {note}")
    for reason in done.failed.values():
        click.echo(shown(f"Failed   {reason}"))
    if done.leaks:
        click.echo(f"Leakage  {len(done.leaks)} images stand in two splits, or nearly so:")
    for leak in done.leaks[:5]:
        how = "the same file" if leak.same_file else f"cosine {leak.cosine:.3f}"
        click.echo(shown(
            f"         {leak.split}: {leak.path} = {leak.other_split}: {leak.other} ({how})"
        ))  # fmt: skip
    if len(done.leaks) > 5:
        click.echo(f"         and {len(done.leaks) - 5} more; --json lists all")
    for note in done.notes:
        click.echo(shown(f"Note     {note}"))
    if done.reused:
        click.echo(f"Reused   {len(done.reused)} heads that were fitted already")
    click.echo(shown(f"Kept in  {store.root / 'heads'}"))
