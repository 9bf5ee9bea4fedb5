"""The choice as the page shows it: which heads and models there are, and what they scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pipeline.heads.leaderboard import Ranked
from pipeline.store import timings
from pipeline.store.cache import Cache
from pipeline.store.result_records import HeadInfo, HeadTrial, ModelInfo
from pipeline.store.results import Info
from pipeline.store.score_records import Metrics
from pipeline.store.table import FeatureTable

#: Penalty curves are drawn of so many heads at most, one of each kind, and learning curves of so
#: many models, the best ones.
MOST_CURVES = 6


def groups(
    board: Sequence[Ranked[Info]], title: Callable[[Info], str]
) -> list[tuple[str, list[Ranked[Info]]]]:
    """Return a leaderboard in its groups, each with what its places have in common.

    Args:
        board: of `pipeline.heads.leaderboard`.
        title: returns what a group has in common.
    """
    titles = {place.group: title(place.info) for place in board}
    return [
        (text, [place for place in board if place.group == group]) for group, text in titles.items()
    ]


def lowest(heads: Sequence[Ranked[HeadInfo]], models: Sequence[Ranked[ModelInfo]]) -> float:
    """Return where the scale of all intervals begins: a tenth, at most 0.9."""
    shown: list[Metrics] = [values for one in heads for values in one.info.metrics.values()]
    shown += [values.model for one in models for values in one.info.metrics.values()]
    return scale(values.interval for values in shown)


def scale(intervals: Iterable[Sequence[float]]) -> float:
    """Return the tenth at which a scale for some intervals begins, at most 0.9."""
    return min([0.9, *(int(low * 10) / 10 for low, _ in intervals)])


def penalty_curves(board: Sequence[Ranked[HeadInfo]]) -> list[dict[str, Any]]:
    """Return the score over the penalty of the best head of each kind that tried several."""
    found: dict[str, dict[str, Any]] = {}
    for info in (one.info for one in board):
        if info.clf not in found and (curve := penalty_curve(info)) is not None:
            found[info.clf] = curve
    return list(found.values())[:MOST_CURVES]


def penalty_curve(info: HeadInfo) -> dict[str, Any] | None:
    """Return what a head scored on held-out images over the parameter that it tried most values of.

    Each combination of the other parameters is a line of its own. None where nothing was tried or
    compared, or no parameter is a number.
    """
    trials = [trial for trial in info.trials if trial["score"] is not None]
    values: dict[str, set[float]] = {}
    for trial in trials:
        for name, value in trial["parameters"].items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                values.setdefault(name, set()).add(value)
    if not values or info.score is None:
        return None
    parameter = max(values, key=lambda name: len(values[name]))
    if len(values[parameter]) < 2:
        return None
    lines: dict[str, list[HeadTrial]] = {}
    for trial in trials:
        others = {k: v for k, v in trial["parameters"].items() if k != parameter}
        label = ", ".join(f"{name} = {short(value)}" for name, value in others.items())
        if parameter in trial["parameters"]:
            lines.setdefault(label, []).append(trial)
    measure, on = info.recipe["select"], _held_out(info)
    choice = ", ".join(f"{name} = {short(value)}" for name, value in info.parameters.items())
    return {
        "head": info.id,
        "kind": info.clf,
        "parameter": parameter,
        "log": min(values[parameter]) > 0 and max(values[parameter]) > 20 * min(values[parameter]),
        "measure": measure,
        "on": on,
        "chosen": [info.parameters[parameter], abs(info.score)],
        "lines": [_line(label, parameter, part) for label, part in sorted(lines.items())],
        "sentence": f"{info.clf}: {measure} on {on} over {parameter}, {len(trials)} tried; "
        f"chosen {choice}, {abs(info.score):.4f} ± {info.spread:.4f}.",
    }


def _line(label: str, parameter: str, trials: list[HeadTrial]) -> dict[str, Any]:
    trials = sorted(trials, key=lambda trial: trial["parameters"][parameter])
    return {
        "label": label or "mean, and spread over folds",
        "x": [trial["parameters"][parameter] for trial in trials],
        "y": [abs(trial["score"] or 0) for trial in trials],
        "spread": [trial["spread"] for trial in trials],
    }


def _held_out(info: HeadInfo) -> str:
    return f"{info.folds} folds of train" if info.selected_on == "cv" else "val"


def learning_curve(info: ModelInfo) -> str:
    """Return a model's learning curve in a sentence."""
    head, kept = info.chosen.start, info.chosen.model
    what = "from scratch" if info.from_scratch else f"{info.unfreeze} unfrozen"
    return (
        f"Model {info.id}, {what}: log-loss {head.log_loss:.4f} of its head and "
        f"{kept.log_loss:.4f} of what is kept ({info.kept}) on {info.selected_on} "
        f"({kept.images:,} images)."
    )


def short(value: Any) -> str:
    """Return a parameter for people."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


#: What a model's seconds are called.
_PARTS = {
    "activations": "activations of the frozen part",
    "head": "fitting its head again",
    "training": "training",
    "evaluation": "scoring",
}


def costs(
    table: FeatureTable,
    cache: Cache,
    heads: Sequence[HeadInfo],
    models: Sequence[ModelInfo],
) -> list[dict[str, Any]]:
    """Return what the table, each head and each model cost, and what the cache saved of it.

    Args:
        table: that the page is about.
        cache: whose memo knows what a pass takes.
        heads: every `head.json` of the table.
        models: every `model.json` of the table.

    Returns:
        The fields of `StageCost`, and `what` was made.
    """
    cost = table.provenance.cost
    computed, seconds = (0, None) if cost is None else (cost.computed, cost.seconds)
    what = f"{len(table.labels):,} images"
    if computed and seconds:
        what += f", {computed / seconds:.0f} passes a second"
    features = timings.of_features(table, cache, computed=computed, seconds=seconds)
    rows = [{**vars(features), "what": what}]
    for info in heads:
        tried = len(info.trials)
        what = f"{info.clf} {info.id}: {tried} tried, {info.train_images:,} images"
        rows.append({**vars(timings.of_heads([info], (), seconds=info.seconds)), "what": what})
    for model in models:
        parts = ", ".join(f"{_PARTS.get(k, k)} {v:.1f} s" for k, v in model.seconds.items())
        seconds = sum(model.seconds.values())
        tuning = timings.of_tuning(model, cache, reused=False, seconds=seconds)
        rows.append({**vars(tuning), "what": f"{model.id}: {parts}"})
    return rows


def cost_of_page(spent: dict[str, float]) -> dict[str, Any]:
    """Return what the page itself cost, as a row of `costs`.

    Args:
        spent: seconds by part.
    """
    parts = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in spent.items())
    return {**vars(timings.StageCost("page", sum(spent.values()))), "what": parts}
