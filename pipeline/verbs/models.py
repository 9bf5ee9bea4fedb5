"""The leaderboard of models, each beside the head that it started from."""

from __future__ import annotations

from typing import Any

from pipeline.errors import PipelineError
from pipeline.store.cache import Cache
from pipeline.store.results import read_model


def all_models(cache: Cache) -> tuple[list[dict[str, Any]], list[str]]:
    """Return `model.json` of every model, newest first; and what is wrong with the others."""
    found, damaged = [], []
    folder = cache.root / "models"
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith(".") or not path.is_dir():
            continue
        try:
            found.append({**read_model(path), "path": str(path)})
        except PipelineError as error:
            damaged.append(str(error))
    return sorted(found, key=lambda info: str(info["created"]), reverse=True), damaged


def board(models: list[dict[str, Any]], table_id: str) -> list[dict[str, Any]]:
    """Return the models of a table, best first, the best marked `best`.

    They are compared by log-loss on the images that chose their epochs. Where these differ
    (another head's seed, another `--select-on`) they stand in another `group`. A model that does
    not beat its head is never the best: the head is.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for info in models:
        if info["table_id"] == table_id:
            groups.setdefault((info["selected_on"], info["train_images"]), []).append(info)
    found = []
    for number, group in enumerate(groups.values()):
        group.sort(key=lambda info: info["metrics"][info["selected_on"]]["model"]["log_loss"])
        for place, info in enumerate(group):
            found.append({**info, "group": number, "best": not place and info["beats_head"]})
    return found
