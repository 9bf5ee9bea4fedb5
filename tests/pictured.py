"""Tables whose images exist, for the tests of what shows them: no trunk runs for these."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from conftest import picture
from tables import clouds, make_table

from pipeline.store.cache import Cache
from pipeline.store.table import FeatureTable

SPLITS = ("train", "train", "train", "val", "test")


def pictured(
    cache: Cache,
    root: Path,
    *,
    classes: tuple[str, ...] = ("ants", "bees", "wasps"),
    count: int = 60,
    dim: int = 12,
    files: tuple[str, ...] = (),
    splits: tuple[str, ...] = SPLITS,
    apart: float = 1.2,
    name: str = "photos",
) -> FeatureTable:
    """Write pictures and a table of clouds that names them, the cache's current one.

    Args:
        cache: where the table goes.
        root: folder of the pictures; made.
        classes: K names, sorted; images take turns.
        count: N.
        dim: D.
        files: names of the first files; the others are numbered.
        splits: taken in turns by each class's images.
        apart: of the clouds; near 0 the classes cannot be told apart.
        name: of the table.
    """
    root.mkdir(parents=True)
    features, labels = clouds(count, dim, len(classes), apart=apart)
    paths = (*files, *(f"{n:04}.png" for n in range(len(files), count)))
    digests = []
    for n, path in enumerate(paths):
        data = picture(n)
        (root / path).write_bytes(data)
        digests.append(hashlib.sha256(data).hexdigest())
    made = make_table(
        features=features,
        labels=labels,
        splits=tuple(splits[n // len(classes) % len(splits)] for n in range(count)),
        digests=tuple(digests),
        names=classes,
    )
    given = replace(made.provenance, root=str(root), data=name)
    made = replace(made, paths=paths, provenance=given)
    path = cache.tables / f"{name}--fake--{made.table_id[:12]}.h5"
    opened = made.write(path)
    cache.set_current(path)
    return opened


def shuffled(table: FeatureTable, seed: int = 0) -> np.ndarray:
    """Return probabilities [N, K] that have nothing to do with the labels."""
    chances = np.random.default_rng(seed).random((len(table.labels), len(table.classes)))
    return chances / chances.sum(1, keepdims=True)
