"""`head.json`, `model.json` and their parts by hand, for tests that need no fit."""

from pipeline.images.preprocess import Preprocess
from pipeline.store.records import FeatureSource
from pipeline.store.result_records import HeadInfo, ModelInfo
from pipeline.store.results import HEAD, MODEL
from pipeline.store.score_records import Calibration, Metrics, ModelScores, Paired, SplitMetrics

SOURCE = {
    "trunk": "fake",
    "weights": "random",
    "weights_digest": "d" * 64,
    "weights_asked": "random",
    "keys": "name",
    "layer": "feature",
    "pool": "own",
    "precision": "fp32",
    "decoder": "libjpeg-turbo",
    "dtype": "float32",
    "preprocess": Preprocess(10, 8).to_json(),
}
METRICS = {
    "images": 50,
    "accuracy": 0.8,
    "interval": (0.7, 0.9),
    "groups": None,
    "balanced_accuracy": 0.8,
    "f1_macro": 0.8,
    "log_loss": 0.5,
    "top5": None,
    "calibration_error": 0.1,
    "baseline": 0.5,
    "classes": (),
    "confusion": ((20, 5), (5, 20)),
}
RESULT = {
    "id": "a" * 12,
    "table_id": "t" * 64,
    "table": "/nowhere/t.h5",
    "fingerprint": "f" * 64,
    "trunk": "fake",
    "classes": ("ant", "bee"),
    "majority": "ant",
    "selected_on": "cv",
    "train_images": 80,
    "calibration": None,
    "notes": (),
    "versions": {},
    "created": "2026-01-01T00:00:00Z",
}
OPTIONS = {
    "select": "accuracy",
    "select_on": "cv",
    "folds": 5,
    "shots": None,
    "train_fraction": None,
    "class_weight": None,
    "views": 0,
    "seed": 0,
}


def metrics(**changes):
    """Return what a model, or its head, scored on a split."""
    return Metrics(**{**METRICS, **changes})


def split_metrics(**changes):
    """Return what a head scored on a split."""
    return SplitMetrics(**{**METRICS, "selected_on": False, **changes})


def model_scores(*, model=None, start=None, paired=None, selected_on=False):
    """Return what a model and its head scored on a split; each part as keywords of its own."""
    alone = {"head_alone": 1, "model_alone": 2, "p": 1.0, "log_loss_error": 0.01, "groups": None}
    return ModelScores(
        selected_on=selected_on,
        model=metrics(**(model or {})),
        start=metrics(**(start or {})),
        paired=Paired(**{**alone, **(paired or {})}),
    )


def calibration(temperature=2.0, **changes):
    """Return a temperature as it is kept."""
    values = {"on": "cv", "images": 80, "before": 0.6, "after": 0.5}
    return Calibration(temperature, **{**values, **changes})


def head_info(*, recipe=None, **changes):
    """Return `head.json`; `recipe` are its options that are no default."""
    values = {
        "schema": HEAD.schema,
        "clf": "logreg",
        "title": "logistic regression",
        "log_loss": True,
        "linear": True,
        "dim": 4,
        "features": FeatureSource(**SOURCE),
        "policy": "",
        "normalize": "standard",
        "parameters": {"C": 1.0},
        "temperature": 1.0,
        "selected_by": "accuracy",
        "folds": 5,
        "score": 0.8,
        "held_out_log_loss": 0.5,
        "spread": 0.01,
        "trials": (),
        "metrics": {},
        "repeats": None,
        "seconds": 1.5,
    }
    return HeadInfo(**{**RESULT, **values, "recipe": {**OPTIONS, **(recipe or {})}, **changes})


def model_info(**changes):
    """Return `model.json`; without `metrics`, it was scored on what chose its epoch."""
    chose = changes.get("selected_on", "val")
    values = {
        "schema": MODEL.schema,
        "finished": True,
        "head": "b" * 12,
        "head_clf": "logreg",
        "head_metrics": {},
        **{name: value for name, value in SOURCE.items() if name != "dtype"},
        "selected_on": chose,
        "from_scratch": False,
        "unfreeze": "layer4",
        "boundary": "layer3",
        "learns": (),
        "places": (),
        "l2": False,
        "standalone": False,
        "live": False,
        "recipe": {},
        "settings": {},
        "epochs": 3,
        "best_epoch": 2,
        "kept_recipe": "",
        "augmentation": {"policy": "crop+mirror", "images": 0, "scores": []},
        "decision": None,
        "uses": 0,
        "beats_head": True,
        "compared_on": "same",
        "metrics": {chose: model_scores(selected_on=True)},
        "handover": None,
        "moved": {},
        "history": (),
        "activations": "",
        "shards": (),
        "activations_computed": 0,
        "seconds": {"activations": 1.0, "head": 0.5, "training": 4.0, "evaluation": 0.25},
    }
    return ModelInfo(**{**RESULT, **values, **changes})
