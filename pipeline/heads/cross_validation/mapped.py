"""`MappedRows`: normalised rows that a process elsewhere reads from the table's file itself."""

from __future__ import annotations

import hashlib
import mmap
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.errors import DamagedError, PipelineError
from pipeline.heads.estimators.normalize import AnyRows, Normalizer
from pipeline.store.columns.parts import PartedRows

_lock = threading.Lock()
_loaded: dict[str, np.ndarray] = {}  #: the rows that this process read last


@dataclass(frozen=True)
class Place:
    """Where an array lies in a file. Two are equal when they are the same place.

    Attributes:
        path, offset, shape, dtype: of its map.
    """

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: str

    def map(self) -> np.ndarray:
        """Return the array, mapped."""
        dtype = np.dtype(self.dtype)
        return np.memmap(self.path, dtype, "r", offset=self.offset, shape=self.shape)


@dataclass(frozen=True, eq=False)
class MappedRows:
    """Some rows of a table's features, to be read where they are needed.

    Attributes:
        place: of the features; `PartedRows` open, and check, their files where they are.
        used: int64 [n], the rows.
        normalizer: what is done to them.
        digest: sha256 of the first of them as it is here.
    """

    place: Place | PartedRows
    used: np.ndarray
    normalizer: Normalizer
    digest: str = field(repr=False)

    @classmethod
    def of(cls, normalizer: Normalizer, features: AnyRows, used: np.ndarray) -> MappedRows | None:
        """Return what another process reads in place of features, None where these are no map."""
        if not isinstance(features, np.memmap | PartedRows) or not len(used):
            return None
        place: Place | PartedRows
        if isinstance(features, PartedRows):
            place = features
        else:
            base: Any = features.base
            if not isinstance(base, mmap.mmap):  # a part of a map, which does not say of where
                return None
            place = Place(
                str(features.filename), features.offset, features.shape, features.dtype.str
            )
        return cls(place, used, normalizer, _digest(features, used))

    def load(self) -> np.ndarray:
        """Return the rows, float32 [n, D], normalised; kept for the next call for the same.

        Raises:
            PipelineError: the file is not there, or is another one.
        """
        parts: list[Any] = [self.place, self.digest]
        parts += [self.normalizer.kind, self.used.tobytes()]
        parts += [None if one is None else one.tobytes()
                  for one in (self.normalizer.mean, self.normalizer.scale)]  # fmt: skip
        key = hashlib.sha256(repr(parts).encode()).hexdigest()
        with _lock:
            if key not in _loaded:
                _loaded.clear()
                _loaded[key] = self._read()
            return _loaded[key]

    def _read(self) -> np.ndarray:
        where = self.place.path if isinstance(self.place, Place) else self.place.folder
        try:
            features = self.place.map() if isinstance(self.place, Place) else self.place
            same = _digest(features, self.used) == self.digest
        except (OSError, ValueError, IndexError, DamagedError) as error:
            raise PipelineError(
                f"A worker cannot read the table {where} ({error}): workers must see it at the "
                "same place."
            ) from error
        if not same:
            raise PipelineError(f"A worker sees another table at {where}.")
        return self.normalizer.apply(features, self.used)


def _digest(features: np.ndarray | PartedRows, used: np.ndarray) -> str:
    first = np.ascontiguousarray(features[used[:: max(1, len(used) // 8)]])
    return hashlib.sha256(first.tobytes()).hexdigest()
