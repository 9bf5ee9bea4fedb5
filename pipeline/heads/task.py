"""Which rows of a table train a head, which choose its penalty, and which are reported.

Folds and parts of the training images are stratified, with what belongs together kept so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import PipelineError, UsageError
from pipeline.heads.cross_validation.candidates import Fold
from pipeline.heads.cross_validation.near_duplicates import NearDuplicate, ties
from pipeline.heads.estimators.normalize import Stacked
from pipeline.heads.options import FitHeadOptions
from pipeline.images.names import counted, listed
from pipeline.store.table import FeatureTable, flat_notes


def make_group_ids(
    digests: Sequence[str], groups: Sequence[str] | None, ties: Iterable[tuple[int, int]] = ()
) -> np.ndarray:
    """Return which images must stay together, [N] int64: equal files, and those of one group.

    Images are tied by an equal digest or an equal, non-empty group, directly or through others.
    Groups are numbered in the order of their first image.

    Args:
        digests: N sha256 of the files.
        groups: N names, or None.
        ties: other pairs of rows that must stay together.
    """
    edges = list(ties)
    for names in (digests, groups or ()):
        first: dict[str, int] = {}
        equal = ((row, first.setdefault(name, row)) for row, name in enumerate(names) if name)
        edges += [(row, other) for row, other in equal if row != other]
    if not edges:  # scipy's import is spared where nothing is tied, as on a warm run
        return np.arange(len(digests))
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(edges)), np.transpose(edges)), shape=(len(digests),) * 2)
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def assign(labels: np.ndarray, group_ids: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the fold of each image, [N] int64 in [0, count).

    Groups go in random order, the largest first, each to the fold that has the fewest of its
    rarest class (that of the fewest groups), then the fewest images. Every fold gets a group where
    there are enough.

    Args:
        labels: [N] int64.
        group_ids: [N] int64 from `make_group_ids`.
        count: number of folds, at least 2 and at most the number of groups.
        seed: of the order.
    """
    groups, number, sizes = np.unique(group_ids, return_inverse=True, return_counts=True)
    kinds, of_class = np.unique(labels, return_inverse=True)
    pairs, amounts = np.unique(np.stack([number, of_class], 1), axis=0, return_counts=True)
    spread = np.bincount(pairs[:, 1], minlength=len(kinds))
    first = np.searchsorted(pairs[:, 0], np.arange(len(groups) + 1))
    order = np.random.default_rng(seed).permutation(len(groups))
    order = order[np.argsort(-sizes[order], kind="stable")]
    filled, total = np.zeros((count, len(kinds)), np.int64), np.zeros(count, np.int64)
    fold_of = np.empty(len(groups), np.int64)
    alone = order[sizes[order] == 1]  # the last ones, dealt at once: there may be millions
    for group in order[: len(order) - len(alone)].tolist():
        own = slice(first[group], first[group + 1])
        classes = pairs[own, 1]
        rarest = classes[spread[classes].argmin()]
        best = int(np.lexsort((total, filled[:, rarest]))[0])
        fold_of[group] = best
        filled[best, classes] += amounts[own]
        total[best] += sizes[group]
    for kind, its in enumerate(filled.T):
        mine = alone[pairs[first[alone], 1] == kind]
        levels = its[:, None] + np.arange(len(mine))  # of the fold, if it gets so many more
        folds = np.broadcast_to(np.arange(count)[:, None], levels.shape).ravel()
        dealt = folds[np.lexsort((total[folds], levels.ravel()))[: len(mine)]]
        fold_of[mine] = dealt
        total += np.bincount(dealt, minlength=count)
    return np.asarray(fold_of[number])


def possible(labels: np.ndarray, group_ids: np.ndarray, asked: int) -> int:
    """Return how many folds the data allow: `asked`, fewer, or 0 for none.

    A fold must leave at least two classes to train on, so the second most spread class must
    stand in at least two groups.
    """
    pairs = np.unique(np.stack([labels, group_ids]), axis=1)
    *_, second, _ = np.sort([0, *np.bincount(pairs[0])])
    return min(asked, int(second)) if second > 1 else 0


def subsample(
    labels: np.ndarray,
    group_ids: np.ndarray,
    *,
    shots: int | None,
    fraction: float | None,
    seed: int,
) -> np.ndarray:
    """Return the rows of a stratified part of the images, sorted.

    Args:
        shots: images of each class; a class with fewer gives all it has.
        fraction: share of each class, at least one image.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    # one image of a class from each group, so that copies count once where a few images are all
    pairs = np.stack([group_ids, labels], axis=1)[order]
    _, first = np.unique(pairs, axis=0, return_index=True)
    distinct = order[np.sort(first)]
    pool = distinct if shots is not None else order
    chosen = []
    for label in np.unique(labels):
        rows = pool[labels[pool] == label]
        most = shots if shots is not None else max(1, round((fraction or 1.0) * len(rows)))
        chosen.append(rows[:most])
    return np.sort(np.concatenate(chosen))


def entering(labels: np.ndarray, group_ids: np.ndarray, seed: int) -> np.ndarray:
    """Return when each image joins a growing part of all, float64 [N] in [0, 1).

    The images below a fraction F are about that share of each class, groups are whole, and a
    smaller part lies inside every larger one. The first group of a class is in every part.

    Args:
        labels: [N] int64.
        group_ids: [N] int64 from `make_group_ids`; a group of several classes counts for its
            first image's.
        seed: of the order.
    """
    _, first, number, sizes = np.unique(
        group_ids, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.random.default_rng(seed).permutation(len(first))
    joins = np.empty(len(first))
    for label in np.unique(labels[first]):
        mine = order[labels[first[order]] == label]
        before = np.cumsum(sizes[mine]) - sizes[mine]
        joins[mine] = (before + sizes[mine] / 2) / sizes[mine].sum()
        joins[mine[0]] = 0.0
    return joins[number]


def check_finite(table: FeatureTable) -> None:
    """Refuse features that are not numbers."""
    finite = np.ones(len(table.labels), bool)
    for start in range(0, len(finite), 4096):
        finite[start : start + 4096] = np.isfinite(table.features[start : start + 4096]).all(1)
    if not finite.all():
        rows = np.flatnonzero(~finite)
        listed = ", ".join(table.paths[row] for row in rows[:3])
        raise PipelineError(
            f"{len(rows)} images of {table.path} have features that are not finite ({listed}"
            f"{', …' if len(rows) > 3 else ''}): the table was not made by `pipeline extract`, "
            "which refuses them. Make it again."
        )


def check_table(table: FeatureTable) -> None:
    """Refuse what no head can be fitted on; its features are not read."""
    known = table.labels >= 0
    train = known & (np.array(table.splits, dtype=object) == "train")
    if not known.any():
        raise PipelineError(
            f"{table.path} has no labels; a head needs images that are sorted into classes."
        )
    if not train.any():
        have = ", ".join(name or "unlabelled" for name in table.split_counts)
        raise PipelineError(f"{table.path} has no training images: its splits are {have}.")
    if len(np.unique(table.labels[train])) < 2:
        only = table.classes[int(table.labels[train][0])]
        raise PipelineError(
            f"All training images of {table.path} are of one class, '{only}': there is nothing to "
            "tell apart."
        )


@dataclass(frozen=True)
class Task:
    """Which rows train, select and report.

    Attributes:
        train: rows that the final head is fitted on.
        folds: (rows to fit on, rows to score) that choose; none where nothing can be compared.
        selects: `cv`, or the split that chooses.
        reported: split to its labelled rows.
        group_ids: int64 [N] of all rows of the table: which images belong together.
    """

    train: np.ndarray
    folds: list[Fold]
    selects: str
    reported: dict[str, np.ndarray]
    group_ids: np.ndarray


def split_rows(
    table: FeatureTable,
    options: FitHeadOptions,
    notes: list[str],
    duplicates: Sequence[NearDuplicate] = (),
    *,
    choose: bool = True,
) -> Task:
    """Return which rows do what, honestly: reported rows choose nothing unless that is asked for.

    Args:
        table: whose rows they are.
        options: checked.
        notes: takes sentences for the person.
        duplicates: near-copies, kept in one fold where both train.
        choose: whether something is to be chosen: without it no folds are made, which would
            import scikit-learn.

    Raises:
        UsageError: `--select-on val` without train, val and test.
    """
    names = np.array(table.splits, dtype=object)
    known = table.labels >= 0
    rows = {name: np.flatnonzero((names == name) & known) for name in ("train", "val", "test")}
    unlabelled = int(((names == "train") & ~known).sum())
    if unlabelled:
        notes.append(f"{unlabelled} training images without a label were left out.")
    tied, large = ties(duplicates, table.labels, rows["train"])
    if large:
        notes.append(
            f"{counted(len(large), 'set')} of near-copies in train ({large[0]:,} images the "
            "largest) hold over a tenth of their class, and are not kept in one fold."
        )
    group_ids = group_ids_of(table, tied)
    train = subsampled(table, rows["train"], group_ids, options, seed=options.seed)
    lacking = sorted({*range(len(table.classes))} - {*table.labels[train].tolist()})
    if lacking:
        these = listed([table.classes[label] for label in lacking], 3)
        notes.append(
            f"{counted(len(lacking), 'class', 'classes')} without a training image, which no head "
            f"can predict: {these}."
        )
    notes += flat_notes(table.features, train)
    reported = {name: rows[name] for name in ("val", "test") if len(rows[name])}
    if options.repeats and not reported:
        raise UsageError(
            "--repeats reports on other splits of train and val or test, and this table has "
            "neither val nor test."
        )
    if options.select_on == "val":
        if set(reported) != {"val", "test"}:
            have = ", ".join(name for name in ("train", "val", "test") if len(rows[name]))
            raise UsageError(
                f"--select-on val needs train, val and test, so that test can be reported; this "
                f"table has {have}. Use --select-on cv."
            )
        return Task(train, [(train, rows["val"])], "val", reported, group_ids)
    if not choose:
        return Task(train, [], "cv", reported, group_ids)
    labels = table.labels[train]
    folds = make_folds(train, labels, group_ids[train], count=options.folds, seed=options.seed)
    if not folds:
        notes.append(
            "Too few different training images to compare anything: the middle of each grid was "
            "taken untried."
        )
    elif len(folds) < options.folds:
        notes.append(
            f"A class has too few different training images for {options.folds} folds: "
            f"{len(folds)} were used."
        )
    return Task(train, folds, "cv", reported, group_ids)


def make_folds(
    rows: np.ndarray, labels: np.ndarray, group_ids: np.ndarray, *, count: int, seed: int
) -> list[Fold]:
    """Return at most `count` folds of rows, stratified, groups whole; none where none can be.

    Where every image is a group of its own, and each class has enough, they are those of
    scikit-learn's `StratifiedKFold`; otherwise those of `assign`. Groups of mixed classes may
    leave a single class beside a fold: then there are fewer folds.
    """
    most = possible(labels, group_ids, count)
    alone = len(np.unique(group_ids)) == len(labels)
    if most == count and alone and np.unique(labels, return_counts=True)[1].min() >= count:
        of = _stratified(labels, count, seed)
        return [(rows[of != fold], rows[of == fold]) for fold in range(count)]
    for number in range(most, 1, -1):
        of = assign(labels, group_ids, number, seed)
        if all(len(np.unique(labels[of != fold])) > 1 for fold in range(number)):
            return [(rows[of != fold], rows[of == fold]) for fold in range(number)]
    return []


def _stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the fold of each image, [N] int64: that of `StratifiedKFold` with this seed, shuffled.

    scikit-learn's import would be a quarter of what the page takes.
    """
    _, first, of_class = np.unique(labels, return_index=True, return_inverse=True)
    of_class = np.argsort(np.argsort(first))[of_class]  # classes numbered as they come
    ordered = np.sort(of_class)
    each = [np.bincount(ordered[fold::count], minlength=len(first)) for fold in range(count)]
    random, fold_of = np.random.RandomState(seed), np.empty(len(labels), np.int64)
    for kind, sizes in enumerate(np.transpose(each)):
        folds = np.repeat(np.arange(count), sizes)
        random.shuffle(folds)
        fold_of[of_class == kind] = folds
    return fold_of


def subsampled(
    table: FeatureTable,
    rows: np.ndarray,
    group_ids: np.ndarray,
    options: FitHeadOptions,
    *,
    seed: int,
) -> np.ndarray:
    """Return the rows that `--shots` or `--train-fraction` leave.

    Args:
        table: whose rows they are.
        rows: to choose from.
        group_ids: int64 [N] of all rows of the table.
        options: of the head.
        seed: of the draw.
    """
    shots, fraction = options.shots, options.train_fraction
    if shots is None and fraction is None:
        return rows
    labels, groups = table.labels[rows], group_ids[rows]
    return np.asarray(rows[subsample(labels, groups, shots=shots, fraction=fraction, seed=seed)])


def group_ids_of(table: FeatureTable, ties: Iterable[tuple[int, int]] = ()) -> np.ndarray:
    """Return which of a table's rows must stay together, [N] int64."""
    return make_group_ids(table.digests, table.groups, ties)


def check_views(table: FeatureTable, views: int) -> None:
    """Refuse more views than a table holds.

    Raises:
        UsageError: with the command that adds them.
    """
    have = table.view_count
    if views > have:
        raise UsageError(
            f"--views {views}: {table.path} holds {have or 'no'} views of its training images. "
            f"`pipeline extract … --views {views}` adds them, and computes nothing else."
        )


def learned(
    table: FeatureTable, views: int, train: np.ndarray, folds: list[Fold]
) -> tuple[np.ndarray | Stacked, np.ndarray, np.ndarray, list[Fold]]:
    """Return features, labels, training rows and folds for a search, views beside their images.

    A view stands wherever its image is fitted on, and nowhere else: what is scored is scored
    without views.

    Args:
        table: that holds so many views.
        views: of each training image; 0 for the images alone.
        train: rows of the table.
        folds: (rows to fit on, rows to score).
    """
    if not views or table.views is None:
        return table.features, table.labels, train, folds
    both = Stacked(table.features, table.views, table.training_rows, views)
    parts = [(both.beside(fitted), scored) for fitted, scored in folds]
    return both, both.labels(table.labels), both.beside(train), parts
