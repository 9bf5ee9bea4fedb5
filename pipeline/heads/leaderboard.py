"""The leaderboard of heads."""

from __future__ import annotations

from typing import Any

from pipeline.heads.registry import HEADS


def leaderboard(heads: list[dict[str, Any]], table_id: str) -> list[dict[str, Any]]:
    """Return those heads that are of a table, best first, the best by selection marked `best`.

    Only heads that were chosen by the same measure on the same images can be compared: they stand
    in one `group`, and each group has a best. Ties go to the simpler kind.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for info in heads:
        if info["table_id"] == table_id:
            groups.setdefault(group_of(info), []).append(info)
    board = []
    for number, group in enumerate(groups.values()):
        compared = [info for info in group if info["score"] is not None]
        compared.sort(key=lambda info: (-info["score"], _simplicity(info["clf"])))
        rest = [info for info in group if info["score"] is None]
        for place, info in enumerate([*compared, *rest]):
            board.append({**info, "group": number, "best": place == 0 and bool(compared)})
    return board


def _simplicity(name: str) -> int:
    return list(HEADS).index(name) if name in HEADS else len(HEADS)


def group_of(info: dict[str, Any]) -> tuple[Any, ...]:
    """Return what two heads must share for their selection scores to be compared."""
    recipe = info["recipe"]
    names = ("select", "select_on", "folds", "shots", "train_fraction", "seed")
    return tuple(recipe[name] for name in names)


def chosen_by(info: dict[str, Any]) -> str:
    """Return how a head of a group was chosen, in words."""
    recipe = info["recipe"]
    on = f"{recipe['folds']} folds of train" if recipe["select_on"] == "cv" else "val"
    part = f", {recipe['shots']} images a class" if recipe["shots"] else ""
    part += f", {recipe['train_fraction']:g} of train" if recipe["train_fraction"] else ""
    return f"chosen by {recipe['select']} on {on}{part}, seed {recipe['seed']}"
