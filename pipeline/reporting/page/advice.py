"""What `advise` found, as the page shows it: figures, curve, gains, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline import plotting
from pipeline.heads.metrics import wilson
from pipeline.images.names import counted, shown
from pipeline.reporting.page import choice
from pipeline.store.records import HeadInfo, ModelInfo

#: How the features are asked, and what the figures of that are called.
_WAYS = (("nearest neighbour", "neighbours"), ("linear, by folds", "linear"))


def section(
    kept: dict[str, Any], *, heads: Sequence[HeadInfo], models: Sequence[ModelInfo]
) -> dict[str, Any]:
    """Return what the page says of an advice.

    Args:
        kept: of `pipeline.store.advice`.
        heads: every `head.json` of the table.
        models: every `model.json` of the table.
    """
    kept = _printed(kept)
    advice = kept["recommendation"]
    figures, sample = _figures(kept), _sample(kept["reference"])
    gains = [_gain(gain) for gain in kept["gains"]]
    shares = [*figures, *(row[of] for row in sample["rows"] for of in ("own", "random"))]
    tuned = [one for gain in gains for one in (gain["start"], gain["tuned"])]
    return {
        "title": advice["title"],
        "quadrant": f"{advice['size']}, {advice['similarity']}",
        "commands": advice["commands"],
        "reasons": advice["reasons"],
        "sources": advice["sources"],
        "notes": kept["notes"],
        "made": f"{kept['created'][:10]} {kept['created'][11:16]} UTC",
        "newer": _newer(kept["created"], heads, models),
        **{name: kept[name] for name in ("size", "similarity", "majority")},
        "figures": figures,
        "sample": sample,
        "lowest": choice.scale(one["interval"] for one in shares),
        "curve": None if kept["curve"] is None else _curve(kept["curve"]),
        "gains": gains,
        "lowest_gain": choice.scale(one["interval"] for one in tuned),
    }


def _printed(value: Any) -> Any:
    """Return the same with text that can be printed."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, dict):
        return {name: _printed(one) for name, one in value.items()}
    return [_printed(one) for one in value] if isinstance(value, list) else value


def _newer(created: str, heads: Sequence[HeadInfo], models: Sequence[ModelInfo]) -> str | None:
    """Return what was made after the advice, or None."""
    later = [sum(info.created > created for info in infos) for infos in (heads, models)]
    words = [counted(n, word) for n, word in zip(later, ("head", "model"), strict=True) if n]
    return " and ".join(words) or None


def _figures(kept: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "what": what,
            **_right(kept[name]),
            "random_baseline": kept[name]["random_baseline"],
            "p": kept[name]["p"],
        }
        for what, name in _WAYS
        if kept[name] is not None
    ]


def _sample(reference: dict[str, Any] | None) -> dict[str, Any]:
    if reference is None:
        return {"images": 0, "rows": []}
    images = reference["images"]

    def right(accuracy: float) -> dict[str, Any]:
        interval = wilson(round(accuracy * images), images)
        return _right({"images": images, "accuracy": accuracy, "interval": interval})

    rows = [
        {"what": what, "own": right(reference[name]), "random": right(reference[f"random_{name}"])}
        for what, name in _WAYS
    ]
    return {"images": images, "rows": rows}


def _curve(curve: dict[str, Any]) -> dict[str, Any]:
    what = f"Accuracy on {curve['measured_on']} ({curve['held_images']:,} images)"
    ends = curve["points"][-2:]
    said = [f"{one['accuracy']:.3f} with {one['images']:,}" for one in ends]
    said += [
        f"forecast {one['accuracy']:.3f} [{one['interval'][0]:.3f}, {one['interval'][1]:.3f}] "
        f"with {one['images']:,}"
        for one in curve["forecasts"]
    ]
    whole = {**curve, "sentence": f"{what}: {', '.join(said)} training images."}
    return {**whole, "svg": plotting.forecast(whole, name="advice-curve")}


def _gain(gain: dict[str, Any]) -> dict[str, Any]:
    head = {"images": gain["images"], "accuracy": gain["head"], "interval": gain["head_interval"]}
    verdict = "no epoch beat the head" if gain["kept_head"] else gain["verdict"]
    return {**gain, "verdict": verdict, "start": _right(head), "tuned": _right(gain)}


def _right(values: dict[str, Any]) -> dict[str, Any]:
    return {
        "images": values["images"],
        "accuracy": values["accuracy"],
        "interval": values["interval"],
        "chose": bool(values.get("chose")),
    }
