"""The leaderboards of heads and of models: what can be compared, and which is best."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from pipeline.heads.predictions import read_influence
from pipeline.heads.registry import HEADS
from pipeline.heads.uncertainty import standard_error
from pipeline.store.result_records import HeadInfo, ModelInfo
from pipeline.store.results import Info


@dataclass(frozen=True)
class Ranked(Generic[Info]):
    """A head or model in its place. Equal where the result and its place are.

    Attributes:
        info: `head.json` or `model.json`.
        group: number of those that it can be compared with.
        best: whether it is the best of its group.
    """

    info: Info
    group: int
    best: bool

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        place = {"path": str(self.info.folder), "group": self.group, "best": self.best}
        return {**self.info.to_json(), **place}


def _rank(
    infos: Iterable[Info],
    table_id: str,
    *,
    group: Callable[[Info], Hashable],
    order: Callable[[Sequence[Info]], Callable[[Info], Any]],
    can_win: Callable[[Info], bool],
) -> list[Ranked[Info]]:
    groups: dict[Hashable, list[Info]] = {}
    for info in infos:
        if info.table_id == table_id:
            groups.setdefault(group(info), []).append(info)
    return [
        Ranked(info, number, best=place == 0 and can_win(info))
        for number, members in enumerate(groups.values())
        for place, info in enumerate(sorted(members, key=order(members)))
    ]


def rank_heads(heads: Iterable[HeadInfo], table_id: str) -> list[Ranked[HeadInfo]]:
    """Return those heads that are of a table, best first, the best by selection marked.

    Only heads that were chosen by the same measure on the same images can be compared: they stand
    in one `group`, and each group has a best. Those whose score is within one paired standard
    error of the highest come first, by their log-loss: one is the best. Ties go to the simpler
    kind.
    """
    simplicity = {name: place for place, name in enumerate(HEADS)}

    def order(members: Sequence[HeadInfo]) -> Callable[[HeadInfo], Any]:
        tried = [info for info in members if info.score is not None]
        top = max(tried, key=lambda info: info.score or 0.0, default=None)

        def key(info: HeadInfo) -> Any:
            if info.score is None or top is None:  # those stay in the order that they came in
                return True, False, 0, 0
            worse, simple = not ties(info, top), simplicity.get(info.clf, len(HEADS))
            return False, worse, -info.score if worse else info.held_out_log_loss, simple

        return key

    return _rank(
        heads, table_id,
        group=group_of, order=order, can_win=lambda info: info.score is not None,
    )  # fmt: skip


def ties(info: HeadInfo, top: HeadInfo) -> bool:
    """Return whether a head's score is within one paired standard error of the highest."""
    gap = (top.score or 0.0) - (info.score or 0.0)
    if gap <= 0:
        return True
    if info.folder is None or top.folder is None:
        return False
    one, other = read_influence(info.folder), read_influence(top.folder)
    if one is None or other is None or len(one) != len(other):
        return False
    return gap <= standard_error(one - other) * (1 + 1e-9)


def rank_models(models: Iterable[ModelInfo], table_id: str) -> list[Ranked[ModelInfo]]:
    """Return the models of a table, best first, the best marked.

    They are compared by log-loss on the images that chose their epochs, those that beat their heads
    before the others. Where these images or those that were learned from differ, they stand in
    another `group`. A model that does not beat its head is never the best: the head is.
    """
    return _rank(
        models, table_id,
        group=lambda info: info.compared_on,
        order=lambda members: lambda info: (not info.beats_head, info.chosen.model.log_loss),
        can_win=lambda info: info.beats_head,
    )  # fmt: skip


def group_of(info: HeadInfo) -> tuple[Any, ...]:
    """Return what two heads must share for their selection scores to be compared."""
    asked = info.recipe
    part = asked["shots"], asked["train_fraction"]
    return asked["select"], asked["select_on"], asked["folds"], *part, asked["seed"]


def chosen_by(info: HeadInfo) -> str:
    """Return how a head of a group was chosen, in words."""
    options = info.recipe
    on = f"{options['folds']} folds of train" if options["select_on"] == "cv" else "val"
    part = f", {options['shots']} images a class" if options["shots"] else ""
    part += f", {options['train_fraction']:g} of train" if options["train_fraction"] else ""
    return f"chosen by {options['select']} on {on}{part}, seed {options['seed']}"


def trained_on(info: ModelInfo) -> str:
    """Return what the models of a group learned from and were compared on, in words."""
    images = info.chosen.model.images
    return (
        f"trained on {info.train_images:,} images, compared by log-loss on {info.selected_on} "
        f"({images:,} images)"
    )
