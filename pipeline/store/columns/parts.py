"""`PartedRows`: rows in several files, each of them checked when a row of it is first read.

A part is an immutable HDF5 file with one dataset, `rows`, in the folder beside its table; its name
is the sha256 of its bytes. What is in the folder and no table names is waste.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import DamagedError, PipelineError
from pipeline.store import hdf5, shards
from pipeline.store.atomic import cannot, cannot_read, file_clock, remove, write_bytes, write_pieces
from pipeline.store.hdf5 import Streamed
from pipeline.store.index.segment import Stamp

#: Bytes of a column above which it lies in parts, and of a part.
LARGE, PART = 2 << 30, 256 << 20
#: Parts that are mapped at once: each takes a file descriptor.
MAPPED = 64
#: In the folder of the parts: the size and times under which each was last found whole. It may be
#: lost at any time.
WHOLE = "whole.json"
_NAME = re.compile(r"[0-9a-f]{64}\.h5")


def folder_of(table: Path) -> Path:
    """Return the folder of a table's parts."""
    return table.with_name(f"{table.stem}.parts")


class Part(NamedTuple):
    """A part of a column: its file's name, how many rows it has, and the file's size in bytes."""

    name: str
    rows: int
    size: int


class PartedRows:
    """Rows [N, ...] in parts; it is indexed, and turned into an array, like an array.

    Args:
        folder: of the parts.
        parts: in order.
        shape: of all rows together.
        dtype: of them.
        remedy: a sentence on what makes a damaged part again.
    """

    def __init__(
        self,
        folder: Path,
        parts: Sequence[Part],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        remedy: str = "",
    ):
        self.folder, self.parts, self.remedy = folder, tuple(parts), remedy
        self.shape, self.dtype, self.ndim = shape, dtype, len(shape)
        self._starts = np.array([0, *accumulate(part.rows for part in self.parts)])
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._maps: dict[int, np.ndarray] = {}  # those used last at the end
        self._whole: dict[int, Stamp] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items()
                if name not in ("_lock", "_maps", "_whole")}  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    @property
    def nbytes(self) -> int:
        """Return the bytes of all rows as an array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"PartedRows({str(self.folder)!r}, {self.parts!r})"

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("Rows in parts cannot be an array without a copy.")
        return np.asarray(self[:], dtype)

    def __getitem__(self, at: Any) -> np.ndarray:
        """Return what an array would: of a row, a slice or rows, perhaps with numbers beside them.

        Args:
            at: int, slice, or [n] int64 or [N] bool; or a tuple of one of these and further
                indices, arrays of as many numbers where the first is one.

        Raises:
            DamagedError: a part that has one of these rows is missing or not what it was.
            PipelineError: a system error.
        """
        first, *others = at if isinstance(at, tuple) else (at,)
        if isinstance(first, slice):
            start, stop, step = first.indices(len(self))
            number = self._number(start)
            if step == 1 and start < stop <= self._starts[number + 1]:
                low = int(self._starts[number])
                return self._part(number)[(slice(start - low, stop - low), *others)]
            first = np.arange(start, stop, step)
        elif isinstance(first, int | np.integer):
            row = range(len(self))[first]
            number = self._number(row)
            found: np.ndarray = self._part(number)[(row - int(self._starts[number]), *others)]
            return found
        rows = np.asarray(first)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        return self._pick(np.where(rows < 0, rows + len(self), rows), others)

    def _pick(self, rows: np.ndarray, others: Sequence[Any]) -> np.ndarray:
        """Return some rows, of each of them what further indices say."""
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"There are {len(self)} rows.")

        def beside(at: np.ndarray) -> list[Any]:
            return [one if isinstance(one, slice) else np.broadcast_to(one, len(rows))[at]
                    for one in others]  # fmt: skip

        none = np.zeros(0, np.int64)
        like = np.empty((1, *self.shape[1:]), self.dtype)[(none, *beside(none))]
        out = np.empty((len(rows), *like.shape[1:]), self.dtype)
        numbers = np.searchsorted(self._starts, rows, "right") - 1
        for number in np.flatnonzero(np.bincount(numbers, minlength=len(self.parts))).tolist():
            own = np.flatnonzero(numbers == number)
            out[own] = self._part(number)[(rows[own] - self._starts[number], *beside(own))]
        return out

    def _number(self, row: int) -> int:
        return max(0, min(len(self.parts), int(np.searchsorted(self._starts, row, "right"))) - 1)

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows, part by part."""
        for number in range(len(self.parts)):
            yield self._part(number)

    def _part(self, number: int) -> np.ndarray:
        """Return a part's rows, mapped."""
        with self._lock:
            rows = self._maps.pop(number, None)
            if rows is None:
                rows = self._opened(number)
            self._maps[number] = rows
            while len(self._maps) > MAPPED:
                del self._maps[next(iter(self._maps))]
            return rows

    def _opened(self, number: int) -> np.ndarray:
        stamp = self._stamp(number)
        if self._whole.get(number) != stamp:
            self.check(number)
            self._whole[number] = stamp
        part, path = self.parts[number], self.path(number)
        with hdf5.Reader(path) as reader:
            rows = reader.map("rows")
        if rows.shape != (part.rows, *self.shape[1:]) or rows.dtype != self.dtype:
            raise DamagedError(f"The part {path} has rows of another shape than its table says.")
        return rows

    def path(self, number: int) -> Path:
        """Return a part's file."""
        return self.folder / self.parts[number].name

    @property
    def paths(self) -> list[Path]:
        """Return the files of all parts."""
        return [self.folder / part.name for part in self.parts]

    def check(self, number: int) -> None:
        """Hash a part.

        Raises:
            DamagedError: it is missing, truncated, or not what it was. It counts as found whole by
                nobody from then on.
            PipelineError: a system error; it may be intact.
        """
        part, path = self.parts[number], self.path(number)
        try:
            try:
                size = path.stat().st_size
                right = size == part.size and _sha256(path) == part.name.removesuffix(".h5")
            except OSError as error:
                raise cannot_read("the part", path, error) from error
            if not right:
                what = "its sha256 is not its name" if size == part.size else (
                    f"it has {size:,} of {part.size:,} bytes"
                )  # fmt: skip
                raise DamagedError(f"The part {path} is damaged: {what}.")
        except DamagedError as error:
            with suppress(PipelineError):
                remove(self.folder / WHOLE)
            raise DamagedError(f"{error}{self.remedy and ' '}{self.remedy}") from error

    def damaged(self, *, trust: bool = False) -> dict[Path, str]:
        """Return the parts that are missing or not what they were, each with a sentence.

        Args:
            trust: those that have the size and times under which they were last found whole.
        """
        known, fresh, found = recall(self.folder) if trust else {}, dict[str, Stamp](), {}
        now = file_clock(self.folder) if trust and self.folder.is_dir() else 0.0
        for number, part in enumerate(self.parts):
            try:
                stamp = self._stamp(number)
                if known.get(part.name) != stamp:
                    self.check(number)
                    if stamp == self._stamp(number) and now - stamp.ctime_ns / 1e9 > shards.RACY:
                        fresh[part.name] = stamp
            except DamagedError as error:
                found[self.path(number)] = str(error)
        if fresh and not found:
            with suppress(PipelineError):  # a cache that may only be read
                remember(self.folder, fresh)
        return found

    def _stamp(self, number: int) -> Stamp:
        try:
            return Stamp.of(self.path(number).stat())
        except OSError as error:
            what = cannot_read("the part", self.path(number), error)
            raise type(what)(f"{what} {self.remedy}".rstrip()) from error

    def to_json(self) -> dict[str, Any]:
        """Return what a table's file says of its parts."""
        return {"shape": self.shape, "dtype": self.dtype.name, "parts": self.parts}

    @classmethod
    def of_json(cls, values: Any, folder: Path, remedy: str) -> PartedRows:
        """Return the inverse of `to_json`; no file is opened.

        Raises:
            ValueError: these are no parts, or do not make up the rows.
        """
        try:
            parts = [Part(str(name), int(rows), int(size)) for name, rows, size in values["parts"]]
            shape, dtype = tuple(int(n) for n in values["shape"]), str(values["dtype"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError("it does not say what its parts are") from error
        right = all(_NAME.fullmatch(part.name) and part.rows > 0 for part in parts)
        if not right or dtype not in ("float16", "float32") or len(shape) < 2 or min(shape) < 0:
            raise ValueError("it does not say what its parts are")
        if sum(part.rows for part in parts) != shape[0]:
            raise ValueError("its parts have not as many rows as it says")
        return cls(folder, parts, shape, np.dtype(dtype), remedy)


def write(folder: Path, rows: Streamed) -> PartedRows:
    """Write rows in parts, those that are there and whole left as they are.

    Args:
        folder: of the parts; made where it is missing.
        rows: [N, ...], of which about a part is in memory at once.

    Raises:
        PipelineError: the part and the system's reason; the parts before it stay for the next try.
    """
    own, parts, stamps = rows.shape[1:], list[Part](), dict[str, Stamp]()
    width = int(np.prod(own, dtype=object))
    count = max(1, PART // (width * rows.dtype.itemsize))
    for blocks in _cut(rows.blocks(), count * width):
        number = sum(block.size for block in blocks) // width
        part = Streamed((number, *own), rows.dtype, partial(list, blocks))
        pieces = list(hdf5.pieces({}, {"rows": part}))
        total = hashlib.sha256()
        for piece in pieces:
            total.update(piece)
        parts.append(Part(f"{total.hexdigest()}.h5", number, sum(map(len, pieces))))
        path = folder / parts[-1].name
        try:
            if path.exists() and path.stat().st_size == parts[-1].size and _sha256(path) == (
                total.hexdigest()
            ):  # fmt: skip
                os.utime(path)  # so that `gc` sees that it is in use
            else:
                write_pieces(path, pieces, what="the part")
            stamps[path.name] = Stamp.of(path.stat())
        except OSError as error:
            raise cannot(f"write the part {path}", error) from error
    with suppress(PipelineError):
        remember(folder, stamps)
    return PartedRows(folder, parts, rows.shape, rows.dtype)


def _cut(blocks: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    """Yield lists of flat blocks, of `size` numbers together, and one of the rest."""
    own, lacking = list[np.ndarray](), size
    for block in blocks:
        flat = np.ascontiguousarray(block).reshape(-1)
        while flat.size:
            own.append(flat[:lacking])
            lacking -= own[-1].size
            flat = flat[own[-1].size :]
            if not lacking:
                yield own
                own, lacking = [], size
    if own:
        yield own


def recall(folder: Path) -> dict[str, Stamp]:
    """Return the size and times under which parts were last found whole."""
    try:
        said = json.loads((folder / WHOLE).read_bytes())
        return {name: Stamp(*stamp) for name, stamp in said.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def remember(folder: Path, stamps: Mapping[str, Stamp]) -> None:
    """Write down under which size and times parts were found whole, beside what is known."""
    kept = {name: stamp for name, stamp in recall(folder).items() if (folder / name).exists()}
    text = json.dumps({**kept, **stamps}, sort_keys=True)
    write_bytes(folder / WHOLE, text.encode(), what="the list of whole parts")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
