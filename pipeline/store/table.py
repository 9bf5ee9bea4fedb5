"""`FeatureTable`: a portable HDF5 file for a data set and a trunk. What stage two reads.

Plain contiguous datasets, readable with h5py alone: `features` [N, D] float32 (float16 where they
were given so), `labels` [N] int64 (-1: unknown), `splits`, `paths`, `digests` (hexadecimal
sha256), `classes`, `groups`, `shards` (the manifest), `provenance` (JSON), perhaps `views`
[T, V, D] float32; `features_checksum` and `views_checksum`, sha256 of these, and `checksum`, over
all the rest. Where features or views are large they lie in parts beside the file, and
`features_parts` or `views_parts` (JSON), which names the parts by their sha256, is in their place.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.arguments import path_of
from pipeline.errors import DamagedError, PipelineError
from pipeline.sequences import Digests, HexDigests, Texts
from pipeline.store import hdf5
from pipeline.store.atomic import write_pieces
from pipeline.store.columns import parts
from pipeline.store.columns.checked import Unread, checksum, summed
from pipeline.store.columns.parts import WHOLE, PartedRows
from pipeline.store.hdf5 import Streamed
from pipeline.store.records import TABLE_SCHEMA, Provenance

_AT_ONCE = 1 << 14  # values whose JSON is made at once
#: What may lie in parts, and is read when it is asked for.
LARGE = ("features", "views")
#: Texts of which many are equal, and those of which each image has its own.
_STRINGS, _NAMES = ("splits", "classes", "groups", "shards"), ("paths", "digests")


if TYPE_CHECKING:
    import pandas


class _Large:
    """A large column of a table: an `Unread` one is read when it is first asked for.

    Args:
        needed: whether each table has one; else it is None by default.
    """

    def __init__(self, *, needed: bool):
        self.needed = needed

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, table: Any, owner: type | None = None) -> Any:
        if table is None:  # a dataclass asks for its field's default
            if self.needed:
                raise AttributeError(self.name)
            return None
        column = table.stored[self.name]
        if isinstance(column, Unread):
            column = table.stored[self.name] = column.read()
        return column

    def __set__(self, table: Any, column: Any) -> None:
        vars(table).setdefault("_stored", {})[self.name] = column


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class FeatureTable:
    """The features of a data set's images, and all that is needed to know where they came from.

    Two tables with the same `table_id` have the same fingerprint, images, labels, splits and
    groups in the same order.

    Attributes:
        features: [N, D] float32 or float16; a read-only memory map of the file once opened, checked
            when it is first asked for, or `PartedRows` where they are large.
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

    if TYPE_CHECKING:
        features: np.ndarray
        views: np.ndarray | None = None
    else:
        features: Any = _Large(needed=True)
        views: Any = _Large(needed=False)
    labels: np.ndarray
    splits: tuple[str, ...]
    paths: Sequence[str]
    digests: Sequence[str]
    classes: tuple[str, ...]
    groups: tuple[str, ...] | None
    shards: tuple[str, ...]
    provenance: Provenance
    path: Path | None = None

    def __repr__(self) -> str:
        return f"FeatureTable({str(self.path)!r}, {len(self.labels):,} × {self.dim:,})"

    @property
    def fingerprint(self) -> str:
        """Return the sha256 over everything that changes the stored numbers."""
        return self.provenance.fingerprint

    @cached_property
    def table_id(self) -> str:
        """Return sha256 over fingerprint, ordered digests, labels, splits and groups."""
        labels = [self.classes[label] if label >= 0 else None for label in self.labels.tolist()]
        total = hashlib.sha256()
        for piece in _json([self.fingerprint, self.digests, labels, self.splits, self.groups,
                            self.classes]):  # fmt: skip
            total.update(piece)
        return total.hexdigest()

    @property
    def stored(self) -> dict[str, Any]:
        """Return `features` and `views` as they are: an array, `Unread`, `PartedRows` or None."""
        columns: dict[str, Any] = vars(self)["_stored"]
        return columns

    @property
    def dim(self) -> int:
        """Return D, the length of a feature, without reading one."""
        return int(self.stored["features"].shape[1])

    @property
    def view_count(self) -> int:
        """Return V, the views of each training image, without reading one."""
        views = self.stored["views"]
        return 0 if views is None else int(views.shape[1])

    @property
    def nbytes(self) -> int:
        """Return the bytes of the files that an opened table is kept in."""
        inside = [column for column in self.stored.values() if isinstance(column, PartedRows)]
        own = 0 if self.path is None else self.path.stat().st_size
        return own + sum(part.size for column in inside for part in column.parts)

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
        """Open a table and check all but its features and views, which are checked when asked for.

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
            large = {name: reader.map(name) for name in names if name in LARGE}
            arrays = {name: reader.array(name) for name in names if name not in LARGE}
            if bytes(reader.array("checksum")[()]).decode() != checksum(arrays):
                raise DamagedError(_damage(path, "its checksum differs", values.get("command")))
        try:
            provenance = Provenance.from_json(values)
        except ValueError as error:
            raise DamagedError(f"The table {path} is damaged: its provenance {error}.") from error
        columns: dict[str, Any] = {"groups": None, "labels": arrays["labels"]}
        columns |= {n: hdf5.to_strings(arrays[n]) for n in _STRINGS if n in arrays}
        columns |= {"paths": Texts(arrays["paths"]), "digests": _digests(path, arrays["digests"])}
        for name in LARGE:
            columns[name] = _column(name, large.get(name), arrays, path, provenance.command)
        lengths = {len(columns[n]) for n in ("features", "labels", "splits", "paths", "digests")}
        if len(lengths) > 1:
            raise DamagedError(f"The table {path} is damaged: its columns differ in length.")
        found = cls(provenance=provenance, path=path, **columns)
        if (views := found.stored["views"]) is not None:
            shape = (len(found.training_rows), found.dim)
            if len(views.shape) != 3 or (views.shape[0], views.shape[2]) != shape:
                raise DamagedError(f"The table {path} is damaged: its views fit no images.")
        return found

    def damaged(self, *, trust: bool = False) -> dict[Path, str]:
        """Hash features and views; return the files that are not what they were, with a sentence.

        Args:
            trust: parts that have the size and times under which they were last found whole.
        """
        found: dict[Path, str] = {}
        for name, column in list(self.stored.items()):
            if isinstance(column, PartedRows):
                found |= column.damaged(trust=trust)
            elif isinstance(column, Unread) and self.path is not None:
                try:
                    getattr(self, name)
                except DamagedError as error:
                    found[self.path] = str(error)
        return found

    @property
    def files(self) -> list[Path]:
        """Return the files that the table is kept in, its own and those of its parts."""
        parts = [path for column in self.stored.values() if isinstance(column, PartedRows)
                 for path in (*column.paths, column.folder / WHOLE)]  # fmt: skip
        return [*([] if self.path is None else [self.path]), *parts]

    def write(
        self, path: Path, *, features: Streamed | None = None, views: Streamed | None = None
    ) -> FeatureTable:
        """Write the table whole, rename it into place, and return it opened.

        What is larger than `parts.LARGE` is written in parts first, and its own file last.

        Args:
            path: of its file.
            features: in place of the table's, where they are too large to be in memory at once.
            views: likewise.
        """
        self._write(path, {"features": features, "views": views})
        return FeatureTable.open(path)

    def _write(self, path: Path, large: Mapping[str, Streamed | None]) -> None:
        arrays: dict[str, np.ndarray] = {
            "provenance": hdf5.text(self.provenance.to_json()),
            "labels": self.labels.astype(np.int64),
        }
        for name in (*_STRINGS, *_NAMES):
            values = getattr(self, name)
            if values is not None:
                arrays[name] = hdf5.strings(values)
        tail: dict[str, Streamed] = {}
        for name, given in large.items():
            if given is None and (own := getattr(self, name)) is not None:
                given = _streamed(own)
            if given is not None and given.nbytes > parts.LARGE:
                written = parts.write(parts.folder_of(path), given)
                arrays[f"{name}_parts"] = hdf5.text(written.to_json())
            elif given is not None:
                tail[name] = given
        behind = {name: Streamed.of(arrays[name]) for name in _NAMES}  # no copy is made of these
        within = {name: array for name, array in arrays.items() if name not in behind}
        pieces = hdf5.pieces(within, behind | summed(arrays, tail))
        write_pieces(path, pieces, what="the table")


def _digests(path: Path, array: np.ndarray) -> HexDigests:
    try:
        return HexDigests(Digests(np.frombuffer(bytes.fromhex(array.tobytes().decode()), np.uint8)))
    except ValueError as error:
        raise DamagedError(f"The table {path} is damaged: its digests are none.") from error


def _column(
    name: str,
    array: np.ndarray | None,
    arrays: Mapping[str, np.ndarray],
    path: Path,
    command: str,
) -> Unread | PartedRows | None:
    """Return a large column of a table's file, which nothing has been read of.

    Args:
        name: of `LARGE`.
        array: as it is in the file; None where it is not.
        arrays: what else is in the file.
        path: the file.
        command: that makes it.
    """
    if array is not None and array.ndim > 1 and f"{name}_checksum" in arrays:
        total = bytes(arrays[f"{name}_checksum"][()]).decode()
        return Unread(
            name, array, total, _damage(path, f"the checksum of its {name} differs", command)
        )
    if array is None and f"{name}_parts" in arrays:
        try:
            values = json.loads(bytes(arrays[f"{name}_parts"][()]))
            return PartedRows.of_json(values, parts.folder_of(path), _remedy(command))
        except ValueError as error:
            raise DamagedError(f"The table {path} is damaged: {error}.") from error
    if array is not None or name == "features":
        raise DamagedError(f"The table {path} is damaged: it has no rows of {name}, checksummed.")
    return None


def _damage(path: Path, what: str, command: Any) -> str:
    return f"The table {path} is damaged: {what}. {_remedy(command)}"


def _remedy(command: Any) -> str:
    return f"The command that made it makes it again: {command or 'pipeline extract'}"


def _streamed(array: np.ndarray | PartedRows) -> Streamed:
    """Return an array to write: float16 if it has it, else float32."""
    if isinstance(array, PartedRows):
        return Streamed(array.shape, array.dtype, array.blocks)
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


def _json(columns: Sequence[Any]) -> Iterator[bytes]:
    """Yield the JSON of columns piece by piece, since those of many images take much memory."""
    for number, column in enumerate(columns):
        yield b", " if number else b"["
        if column is None or isinstance(column, str):
            yield json.dumps(column).encode()
            continue
        for start in range(0, len(column), _AT_ONCE):
            some = json.dumps([*column[start : start + _AT_ONCE]]).encode()
            yield (b", " if start else b"[") + some[1:-1]
        yield b"]" if len(column) else b"[]"
    yield b"]"
