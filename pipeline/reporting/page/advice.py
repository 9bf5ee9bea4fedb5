"""What `advise` found, as the page shows it: figures, curve, gains, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline import plotting
from pipeline.heads.uncertainty import wilson
from pipeline.images.names import counted
from pipeline.reporting.page import choice
from pipeline.store.result_records import HeadInfo, ModelInfo

#: How the features are asked, and what the figures of that are called.
_WAYS = (("nearest neighbour", "neighbours"), ("linear, by folds", "linear"))


def section(
    kept: dict[str, Any], *, heads: Sequence[HeadInfo], models: Sequence[ModelInfo]
) -> dict[str, Any]:
    """Return what the page says of an advice, besides what was kept.

    Args:
        kept: of `pipeline.store.advice`.
        heads: every `head.json` of the table.
        models: every `model.json` of the table.
    """
    figures = [(what, kept[name]) for what, name in _WAYS if kept[name] is not None]
    sample = [] if kept["reference"] is None else _sample(kept["reference"])
    shares = [values["interval"] for _, values in figures]
    shares += [interval for row in sample for _, interval in row["right"]]
    tuned = [gain[name] for gain in kept["gains"] for name in ("head_interval", "interval")]
    return {
        **kept,
        "newer": _newer(kept["created"], heads, models),
        "figures": figures,
        "sample": sample,
        "lowest": choice.scale(shares),
        "lowest_gain": choice.scale(tuned),
        "curve": None if kept["curve"] is None else _curve(kept["curve"]),
    }


def _newer(created: str, heads: Sequence[HeadInfo], models: Sequence[ModelInfo]) -> str | None:
    """Return what was made after the advice, or None."""
    later = [sum(info.created > created for info in infos) for infos in (heads, models)]
    words = [counted(n, word) for n, word in zip(later, ("head", "model"), strict=True) if n]
    return " and ".join(words) or None


def _sample(reference: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what pretrained and random weights have right, with 95% intervals."""
    images = reference["images"]
    rights = {what: (reference[name], reference[f"random_{name}"]) for what, name in _WAYS}
    return [
        {"what": what, "right": [(one, wilson(round(one * images), images)) for one in right]}
        for what, right in rights.items()
    ]


def _curve(curve: dict[str, Any]) -> dict[str, Any]:
    what = f"Accuracy on {curve['measured_on']} ({curve['held_images']:,} images)"
    ends = curve["points"][-2:]
    parts = [f"{one['accuracy']:.3f} with {one['images']:,}" for one in ends]
    parts += [
        f"forecast {one['accuracy']:.3f} [{one['interval'][0]:.3f}, {one['interval'][1]:.3f}] "
        f"with {one['images']:,}"
        for one in curve["forecasts"]
    ]
    whole = {**curve, "sentence": f"{what}: {', '.join(parts)} training images."}
    return {**whole, "svg": plotting.forecast(whole, name="advice-curve")}
