"""`FeatureTable`: one portable HDF5 file for a data set and a trunk. What stage two reads.

Plain contiguous datasets, readable with h5py alone: `features` [N, D] float32 (float16 where they
were given so), `labels` [N] int64 (-1: unknown), `splits`, `paths`, `digests` (hexadecimal
sha256), `classes`, `groups`, `shards` (the manifest), `provenance` (JSON), perhaps `views`
[T, V, D] float32, and `checksum` (sha256 over all of them).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.arguments import path_of
from pipeline.errors import DamagedError, PipelineError
from pipeline.store import hdf5
from pipeline.store.atomic import write_pieces
from pipeline.store.hdf5 import Streamed
from pipeline.store.records import TABLE_SCHEMA, Provenance

_FEATURES = ("features", "views")
_STRINGS = ("splits", "paths", "digests", "classes", "groups", "shards")


if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """The features of a data set's images, and all that is needed to know where they came from.

    Two tables with the same `table_id` have the same fingerprint, images, labels, splits and
    groups in the same order.

    Attributes:
        features: [N, D] float32 or float16; a read-only memory map of the file once opened.
        labels: [N] int64, index into `classes`; -1 where the label is unknown.
        splits: N names: `train`, `val`, `test`, or an empty string for unlabelled data.
        paths: N paths relative to `provenance.root`.
        digests: N sha256 of the images' bytes, hexadecimal.
        classes: K names, sorted.
        groups: N names, or None; a group never crosses splits.
        shards: the shards that the rows were copied from.
        provenance: fingerprint and its parts, trunk, weights, preprocessing, data, versions.
        path: the file, once written or opened.
        views: [T, V, D] float32, views 1 to V of the T images of `training_rows`, mapped as
            `features`; None without. They belong to the images and are no part of the id.
    """

    features: np.ndarray
    labels: np.ndarray
    splits: tuple[str, ...]
    paths: tuple[str, ...]
    digests: tuple[str, ...]
    classes: tuple[str, ...]
    groups: tuple[str, ...] | None
    shards: tuple[str, ...]
    provenance: Provenance
    path: Path | None = None
    views: np.ndarray | None = None

    @property
    def fingerprint(self) -> str:
        """Return the sha256 over everything that changes the stored numbers."""
        return self.provenance.fingerprint

    @cached_property
    def table_id(self) -> str:
        """Return sha256 over fingerprint, ordered digests, labels, splits and groups."""
        labels = [self.classes[label] if label >= 0 else None for label in self.labels.tolist()]
        parts = [self.fingerprint, self.digests, labels, self.splits, self.groups, self.classes]
        return hashlib.sha256(bytes(hdf5.text(parts)[()])).hexdigest()

    @property
    def split_counts(self) -> dict[str, int]:
        """Return the number of images of each split, in the order train, val, test."""
        counts = Counter(self.splits)
        return {name: counts[name] for name in ("train", "val", "test", "") if name in counts}

    @property
    def training_rows(self) -> np.ndarray:
        """Return the rows of the labelled training images, [T] int64."""
        rows = self.rows("train")
        return np.asarray(rows[self.labels[rows] >= 0])

    def groups_of(self, rows: np.ndarray) -> list[str] | None:
        """Return the names of the groups of some rows; None where the table has no groups."""
        return None if self.groups is None else [self.groups[row] for row in rows]

    def rows(self, split: str) -> np.ndarray:
        """Return the indices of a split's rows, [n] int64."""
        return np.flatnonzero(np.array(self.splits, dtype=object) == split)

    def to_pandas(self) -> pandas.DataFrame:
        """Return N rows: path, label (None where unknown), split, digest, group, and D features.

        Raises:
            PipelineError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise PipelineError("pandas is not installed: `pip install pandas`.") from error
        names = [self.classes[label] if label >= 0 else None for label in self.labels.tolist()]
        frame = pandas.DataFrame(np.asarray(self.features))
        columns = {"path": self.paths, "label": names, "split": self.splits, "digest": self.digests}
        columns["group"] = self.groups or [None] * len(names)
        for place, (name, values) in enumerate(columns.items()):
            frame.insert(place, name, list(values))
        return frame

    @classmethod
    def open(cls, path: str | Path) -> FeatureTable:
        """Open a table and check every byte of it against its checksum.

        Raises:
            PipelineError: there is no such file.
            DamagedError: not a table, damaged, truncated, or of another schema.
        """
        path = path_of(path, "A table's file")
        if not path.is_file():
            raise PipelineError(
                f"There is no table {path}. `pipeline status` lists the tables of the cache, "
                "`pipeline extract DATA` makes one."
            )
        with hdf5.Reader(path) as reader:
            values = reader.json("provenance")
            if not isinstance(values, dict) or values.get("schema") != TABLE_SCHEMA:
                raise DamagedError(
                    f"{path} is not a table of schema {TABLE_SCHEMA}: make it again with "
                    "`pipeline extract`, which reuses the rows in the cache where they fit."
                )
            names = [name for name in reader.names() if name != "checksum"]
            arrays = {
                name: reader.map(name) if name in _FEATURES else reader.array(name)
                for name in names
            }
            if bytes(reader.array("checksum")[()]).decode() != checksum(arrays):
                raise DamagedError(
                    f"The table {path} is damaged: its checksum differs. The command that made it "
                    f"makes it again: {values.get('command', 'pipeline extract')}"
                )
        try:
            provenance = Provenance.from_json(values)
        except ValueError as error:
            raise DamagedError(f"The table {path} is damaged: its provenance {error}.") from error
        texts = {n: hdf5.to_strings(arrays[n]) for n in _STRINGS if n in arrays}
        rows = len(arrays["features"])
        lengths = {len(arrays["labels"]), *(len(texts[n]) for n in ("splits", "paths", "digests"))}
        if lengths != {rows}:
            raise DamagedError(f"The table {path} is damaged: its columns differ in length.")
        columns: dict[str, Any] = {"groups": None, **texts}
        columns |= {n: arrays[n] for n in ("labels", *_FEATURES) if n in arrays}
        found = cls(provenance=provenance, path=path, **columns)
        if found.views is not None:
            shape = (len(found.training_rows), found.features.shape[1])
            if found.views.ndim != 3 or (found.views.shape[0], found.views.shape[2]) != shape:
                raise DamagedError(f"The table {path} is damaged: its views fit no images.")
        return found

    def write(
        self, path: Path, *, features: Streamed | None = None, views: Streamed | None = None
    ) -> FeatureTable:
        """Write the table whole, rename it into place, and return it opened.

        Args:
            path: of its file.
            features: in place of the table's, where they are too large to be in memory at once.
            views: likewise.
        """
        arrays: dict[str, np.ndarray] = {
            "provenance": hdf5.text(self.provenance.to_json()),
            "labels": self.labels.astype(np.int64),
        }
        for name in _STRINGS:
            values = getattr(self, name)
            if values is not None:
                arrays[name] = hdf5.strings(values)
        tail = {"features": features or _streamed(self.features)}
        if views is None and self.views is not None:
            views = _streamed(self.views)
        if views is not None:
            tail["views"] = views
        write_pieces(path, hdf5.pieces(arrays, _summed(arrays, tail)), what="the table")
        return FeatureTable.open(path)


def _streamed(array: np.ndarray) -> Streamed:
    """Return an array to write: float16 if it has it, else float32."""
    kind = np.float16 if array.dtype == np.float16 else np.float32
    return Streamed.of(np.ascontiguousarray(array, kind))


#: Share of the features that must be the same in every image to be told.
FLAT = 0.25


def flat_notes(features: np.ndarray, rows: np.ndarray | None = None) -> tuple[str, ...]:
    """Return a sentence where many features, or all, are the same in every image.

    Args:
        features: [N, D].
        rows: those that count; None for all.
    """
    count = len(features) if rows is None else len(rows)
    if count < 2:
        return ()
    wanted = np.arange(count) if rows is None else rows
    first = np.array(features[wanted[0]])
    flat = np.ones(len(first), bool)
    for start in range(0, count, 1024):
        flat &= (features[wanted[start : start + 1024]] == first).all(0)
        if flat.mean() < FLAT:  # mostly at once: a large table is not read whole
            return ()
    if not flat.all():
        return (f"{flat.sum():,} of {len(flat):,} features are the same in all {count:,} images.",)
    what = "Every feature of every image is zero" if not first.any() else (
        f"All {count:,} images have the same features"
    )  # fmt: skip
    return (
        f"{what}: no head can tell them apart. Look at the weights, or take another layer or "
        "trunk.",
    )


def checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """Return sha256 over the names, dtypes, shapes and bytes of arrays, in the order of names."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        _add(total, name, arrays[name])
    return total.hexdigest()


def _summed(arrays: Mapping[str, np.ndarray], tail: Mapping[str, Streamed]) -> dict[str, Streamed]:
    """Return what comes behind the arrays, hashed when it goes by, and the checksum of all."""
    total, left = hashlib.sha256(), sorted({*arrays, *tail}, reverse=True)

    def until(name: str) -> None:
        while left and left[-1] != name:
            before = left.pop()
            _add(total, before, arrays[before])

    def blocks(name: str) -> Iterator[np.ndarray]:
        until(name)
        left.pop()
        total.update(_described(name, tail[name]))
        for block in tail[name].blocks():
            total.update(hdf5.as_bytes(block))
            yield block

    def last() -> list[np.ndarray]:
        until("")
        return [np.array(total.hexdigest().encode(), "S64")]

    summed = {name: replace(tail[name], blocks=partial(blocks, name)) for name in sorted(tail)}
    return {**summed, "checksum": Streamed((), np.dtype("S64"), last)}


def _add(total: hashlib._Hash, name: str, array: np.ndarray) -> None:
    total.update(_described(name, array))
    if array.size:
        total.update(hdf5.as_bytes(array))


def _described(name: str, array: np.ndarray | Streamed) -> bytes:
    return f"{name}|{array.dtype.kind}{array.dtype.itemsize}|{array.shape}|".encode()
