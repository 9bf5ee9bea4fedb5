"""What a head's search said of images that it had not seen: kept with it, it judges labels, too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from pipeline.errors import PipelineError
from pipeline.heads import predictions
from pipeline.heads.cross_validation.candidates import Fold
from pipeline.heads.cross_validation.near_duplicates import NearDuplicate
from pipeline.heads.options import FitHeadOptions
from pipeline.heads.task import split_rows
from pipeline.store.result_records import HeadInfo
from pipeline.store.table import FeatureTable


class Judgement(NamedTuple):
    """What a head says of images that it has not seen.

    Attributes:
        head: it.
        folds: (rows that were fitted on, rows that were judged), those of val and test the last.
        probabilities: [n, K] float64 of the judged rows, fold by fold.
    """

    head: HeadInfo
    folds: list[Fold]
    probabilities: np.ndarray


def judgement(
    table: FeatureTable, group_ids: np.ndarray, heads: Iterable[HeadInfo]
) -> Judgement | None:
    """Return what the head of the best log-loss said, None where there is no head that can judge.

    It can if it is a logistic regression on all training images of the table, chosen by folds,
    with no classes weighed, and saw neither a judged image nor one that belongs to it.

    Args:
        table: with labels.
        group_ids: int64 [N], which images belong together.
        heads: of any table.
    """
    able = [
        one
        for one in heads
        if one.table_id == table.table_id
        and one.linear and one.log_loss and one.folds and not one.partial
        and one.recipe["class_weight"] is None
    ]  # fmt: skip
    for head in sorted(able, key=lambda one: one.held_out_log_loss or 0.0):
        try:
            found = _judgement(table, head)
        except PipelineError:  # it is damaged: `pipeline cache verify` tells, here another will do
            continue
        if not any(
            np.isin(group_ids[held], group_ids[fitted]).any() for fitted, held in found.folds
        ):
            return found
    return None


def _judgement(table: FeatureTable, head: HeadInfo) -> Judgement:
    options = FitHeadOptions.recorded(head.recipe, f"The head {head.folder}")
    duplicates = [NearDuplicate(**pair) for pair in head.near_duplicates]
    task = split_rows(table, options, [], duplicates)
    folds = [*task.folds, *((task.train, rows) for rows in task.reported.values())]
    rows, probabilities = predictions.unseen(head, table)
    if not np.array_equal(rows, np.concatenate([held for _, held in folds])):
        raise PipelineError(f"The predictions of the head {head.folder} are of other images.")
    return Judgement(head, folds, probabilities)
