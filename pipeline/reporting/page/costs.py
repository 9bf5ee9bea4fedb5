"""What each stage cost, and what the cache saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.store.costs import uses
from pipeline.store.records import HeadInfo, ModelInfo, PassCost

#: What a model's seconds are called.
_PARTS = {
    "activations": "activations of the frozen part",
    "head": "fitting its head again",
    "training": "training",
    "evaluation": "scoring",
}


def costs(
    images: int,
    cost: PassCost | None,
    heads: Sequence[HeadInfo],
    models: Sequence[ModelInfo],
) -> dict[str, Any]:
    """Return what was measured when things were made, and estimates of what was not computed again.

    An estimate is the number of passes that later work read from the cache, times what a pass took
    when it was computed. Where nothing was measured there is none.

    Args:
        images: N of the table.
        cost: of the table's provenance; None for a table of an earlier release.
        heads: every `head.json` of the table.
        models: every `model.json` of the table.

    Returns:
        `rows` with `stage`, `what`, `seconds` (None where unknown), and `saved` likewise.
    """
    rows = [{"stage": "features", **_features(images, cost)}]
    for info in heads:
        tried = len(info.trials)
        what = f"{info.clf} {info.id}: {tried} tried, {info.train_images:,} images"
        rows.append({"stage": "head", "what": what, "seconds": info.seconds})
    for model in models:
        parts = (f"{_PARTS.get(part, part)} {v:.1f} s" for part, v in model.seconds.items())
        what = f"{model.id}: {', '.join(parts)}"
        rows.append({"stage": "model", "what": what, "seconds": sum(model.seconds.values())})
    saved = [_of_heads(images, cost, heads), *(_of_model(info) for info in models)]
    return {"rows": rows, "saved": [line for line in saved if line is not None]}


def _features(images: int, cost: PassCost | None) -> dict[str, Any]:
    if cost is None:
        return {"what": f"{images:,} images; the time was not recorded", "seconds": None}
    computed, seconds = cost.computed, cost.seconds
    if not computed:
        return {"what": f"{images:,} images, every one from the cache", "seconds": seconds}
    rate = f"{computed:,} through the trunk, {computed / seconds:.0f} a second"
    return {"what": f"{images:,} images: {rate}", "seconds": seconds}


def _of_heads(
    images: int, cost: PassCost | None, heads: Sequence[HeadInfo]
) -> dict[str, Any] | None:
    if not heads:
        return None
    passes = images * len(heads)
    what = f"{len(heads)} {'head' if len(heads) == 1 else 'heads'} read {images:,} features each"
    known = cost is not None and cost.computed
    each = cost.seconds / cost.computed if cost is not None and known else None
    return {"what": what, "passes": passes, "seconds": None if each is None else passes * each}


def _of_model(info: ModelInfo) -> dict[str, Any] | None:
    if info.live or not info.epochs:
        return None
    computed, seconds = info.activations_computed, info.seconds["activations"]
    spared = uses(info) - computed
    return {
        "what": f"model {info.id} read activations over {info.epochs} epochs",
        "passes": spared,
        "seconds": spared * seconds / computed if computed else None,
    }
