"""An advice as the cache keeps it, for the tests of who reads it: nothing is measured for these."""

from __future__ import annotations

from typing import Any

AGREEMENT = {
    "images": 60,
    "accuracy": 0.9,
    "interval": [0.8, 0.95],
    "random_baseline": 0.33,
    "p": 0.001,
}
FORECAST = {
    "images": 120, "accuracy": 0.93, "interval": [0.85, 0.98], "gain": 0.02,
    "gain_interval": [-0.01, 0.05],
}  # fmt: skip


def advice(table_id: str, **fields: Any) -> dict[str, Any]:
    """Return what `pipeline.store.advice.write` takes, every part of it there."""
    points = [
        {"images": n, "accuracies": [low, high], "accuracy": high, "interval": [low - 0.1, 0.96]}
        for n, low, high in ((15, 0.7, 0.74), (30, 0.8, 0.82), (60, 0.89, 0.91))
    ]
    return {
        "created": "2024-05-06T07:08:09Z",
        "recipe": {"sample": 1000, "data": None, "device": "auto", "workers": None, "seed": 5},
        "table": "/nowhere/t.h5",
        "table_id": table_id,
        "trunk": "fake",
        "size": {
            "images": 60, "classes": 3, "smallest": 19, "median": 20.0, "largest": 21,
            "looked_at": 60,
        },
        "majority": 0.35,
        "neighbours": AGREEMENT,
        "linear": {**AGREEMENT, "accuracy": 0.92},
        "reference": {
            "images": 50, "linear": 0.9, "random_linear": 0.6, "neighbours": 0.88,
            "random_neighbours": 0.52,
        },
        "similarity": {"share": 0.71, "interval": [0.64, 0.77], "against": "random weights"},
        "curve": {
            "measured_on": "val and test", "held_images": 40, "points": points,
            "forecasts": [FORECAST], "check": {**FORECAST, "images": 60},
        },
        "gains": [
            {
                "model": "abcdef012345", "unfreeze": "layer4", "split": "test", "chose": False,
                "images": 20, "train_images": 60, "head": 0.8, "head_interval": [0.7, 0.9],
                "accuracy": 0.85, "interval": [0.75, 0.95], "log_loss_fell": 0.1,
                "log_loss_error": None, "head_alone": None, "model_alone": 3, "kept_head": False,
                "gained": 0.05, "verdict": "unclear",
            }
        ],
        "recommendation": {
            "size": "small", "similarity": "similar", "action": "head", "title": "Fit a head.",
            "commands": ["pipeline fit-head gone --clf all"],
            "reasons": ["Small: 60 training images.", "Similar: 71%."],
            "sources": ["cs231n: https://cs231n.github.io/"],
        },
        "notes": ["A note of a file\udcff."],
        "seconds": 12.5,
        **fields,
    }  # fmt: skip
