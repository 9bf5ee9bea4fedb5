"""`MappedRows`: normalised rows that a process elsewhere reads from the table's file itself."""

from __future__ import annotations

import hashlib
import mmap
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.errors import PipelineError
from pipeline.heads.estimators.normalize import Normalizer, Stacked

_lock = threading.Lock()
_loaded: dict[str, np.ndarray] = {}  #: the rows that this process read last


@dataclass(frozen=True, eq=False)
class MappedRows:
    """Some rows of a table's features, to be read where they are needed.

    Attributes:
        path, offset, shape, dtype: of the map.
        used: int64 [n], the rows.
        normalizer: what is done to them.
        digest: sha256 of the first of them as it is here.
    """

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: str
    used: np.ndarray
    normalizer: Normalizer
    digest: str = field(repr=False)

    @classmethod
    def of(
        cls, normalizer: Normalizer, features: np.ndarray | Stacked, used: np.ndarray
    ) -> MappedRows | None:
        """Return what another process reads in place of features, None where these are no map."""
        if not isinstance(features, np.memmap) or not len(used):
            return None
        base: Any = features.base
        if not isinstance(base, mmap.mmap):  # a part of a map, which does not say of where
            return None
        return cls(
            str(features.filename), features.offset, features.shape, features.dtype.str, used,
            normalizer, _digest(features, used),
        )  # fmt: skip

    def load(self) -> np.ndarray:
        """Return the rows, float32 [n, D], normalised; kept for the next call for the same.

        Raises:
            PipelineError: the file is not there, or is another one.
        """
        parts: list[Any] = [self.path, self.offset, self.shape, self.dtype, self.digest]
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
        try:
            features = np.memmap(
                self.path, np.dtype(self.dtype), "r", offset=self.offset, shape=self.shape
            )
            same = _digest(features, self.used) == self.digest
        except (OSError, ValueError, IndexError) as error:
            raise PipelineError(
                f"A worker cannot read the table {self.path} ({error}): workers must see it at the "
                "same place."
            ) from error
        if not same:
            raise PipelineError(f"A worker sees another table at {self.path}.")
        return self.normalizer.apply(features, self.used)


def _digest(features: np.ndarray, used: np.ndarray) -> str:
    first = np.ascontiguousarray(features[used[:: max(1, len(used) // 8)]])
    return hashlib.sha256(first.tobytes()).hexdigest()
