"""The leaderboard of models, each beside the head that it started from."""

from __future__ import annotations

from typing import Any


def board(models: list[dict[str, Any]], table_id: str) -> list[dict[str, Any]]:
    """Return the models of a table, best first, the best marked `best`.

    They are compared by log-loss on the images that chose their epochs, those that beat their heads
    before the others. Where these images or those that were learned from differ, they stand in
    another `group`. A model that does not beat its head is never the best: the head is.
    """

    def order(info: dict[str, Any]) -> tuple[bool, float]:
        return not info["beats_head"], info["metrics"][info["selected_on"]]["model"]["log_loss"]

    groups: dict[str, list[dict[str, Any]]] = {}
    for info in models:
        if info["table_id"] == table_id:
            groups.setdefault(info["compared_on"], []).append(info)
    found = []
    for number, group in enumerate(groups.values()):
        for place, info in enumerate(sorted(group, key=order)):
            found.append({**info, "group": number, "best": not place and info["beats_head"]})
    return found


def trained_on(info: dict[str, Any]) -> str:
    """Return what the models of a group learned from and were compared on, in words."""
    on = info["selected_on"]
    images = info["metrics"][on]["model"]["images"]
    return (
        f"trained on {info['train_images']:,} images, epoch chosen on {on} ({images:,} images) by "
        "log-loss"
    )
