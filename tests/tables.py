"""Tables of synthetic features: K clouds in D dimensions, split into train, val and test."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from records import SOURCE

from pipeline.store.records import Provenance
from pipeline.store.table import FeatureTable


def clouds(
    count: int, dim: int, classes: int, *, seed: int = 0, apart: float = 1.5
) -> tuple[np.ndarray, np.ndarray]:
    """Return features [count, dim] float32 and labels [count] int64, classes taking turns."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    means = rng.normal(0, apart / 2, (classes, dim))
    scale, shift = rng.uniform(0.2, 3, dim), rng.normal(0, 2, dim)
    x = (means[labels] + rng.normal(0, 1, (count, dim))) * scale + shift
    return x.astype(np.float32), labels


def make_table(
    path: Path | None = None,
    *,
    train: int = 60,
    val: int = 0,
    test: int = 0,
    dim: int = 24,
    classes: int = 3,
    seed: int = 0,
    apart: float = 1.5,
    features: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    splits: tuple[str, ...] | None = None,
    digests: tuple[str, ...] | None = None,
    groups: tuple[str, ...] | None = None,
    names: tuple[str, ...] | None = None,
    fingerprint: str = "f" * 64,
) -> FeatureTable:
    """Return a table of clouds; written to `path` and opened where one is given."""
    count = train + val + test if features is None else len(features)
    x, y = clouds(count, dim, classes, seed=seed, apart=apart)
    x = x if features is None else np.asarray(features, np.float32)
    y = y if labels is None else np.asarray(labels, np.int64)
    if names is None:
        names = tuple(f"class{k:03}" for k in range(classes))
    folder = [names[label] if label >= 0 else "unknown" for label in y]
    made = FeatureTable(
        features=x,
        labels=y,
        splits=splits or ("train",) * train + ("val",) * val + ("test",) * test,
        paths=tuple(f"{name}/{n:04}.jpg" for n, name in enumerate(folder)),
        digests=digests or tuple(digest(f"{seed}-{n}") for n in range(count)),
        classes=names,
        groups=groups,
        shards=(),
        provenance=provenance(fingerprint),
    )
    return made.write(path) if path is not None else made


def provenance(fingerprint: str = "f" * 64, **other: Any) -> Provenance:
    """Return the provenance of a table that no trunk made."""
    values = {
        "fingerprint": fingerprint,
        "key": {},
        **SOURCE,
        "data": "x",
        "root": "/nowhere",
        "seed": 0,
        "command": "pipeline extract x",
        "cache": "cache",
        "augment": "",
        "engine": "fake",
        "cost": None,
        "versions": {},
        "created": "2026-01-01T00:00:00Z",
    }
    return Provenance(**{**values, **other})


def digest(text: str) -> str:
    """Return a digest as a file's would look."""
    return hashlib.sha256(text.encode()).hexdigest()
