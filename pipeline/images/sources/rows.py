"""Tables whose rows are images: Parquet and Arrow files, through pyarrow (the extra `parquet`).

A row holds the bytes of an image, or a path, or both in a struct as Hugging Face's `datasets`
writes it; a column says its class, perhaps by number with the names in the file's own notes.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import accumulate
from threading import Lock
from typing import Any, NamedTuple

from pipeline.errors import BadImage, PipelineError
from pipeline.images.datasets.lists.columns import meaning
from pipeline.images.names import SPLIT_NAMES, joined, shown
from pipeline.images.opening import MAX_BYTES, TOO_BIG, VANISHED
from pipeline.images.sources import members
from pipeline.images.sources.address import kind_of
from pipeline.images.sources.files import Bytes, LocalBytes, as_file, open_bytes
from pipeline.images.sources.members import Listing, Member

#: Rows that are read at once, and how many of these are at hand: images are asked for about in
#: order, by as many threads as there are cores.
_ROWS, _AT_HAND = 32, 16
#: Names of columns of bytes, besides those that `columns.meaning` knows.
_BYTES = frozenset(("bytes", "image_bytes", "img_bytes", "content", "data", "jpg", "jpeg", "png"))


class Fields(NamedTuple):
    """Which columns of a table say what of its images.

    Attributes:
        image: the column of images; its own parts where it is a struct.
        data: the part of it that holds bytes, as a path in the table; "" where none does.
        path: likewise the part that holds paths.
        others: `label`, `split` and `group` → the column, as far as there are.
        names: of classes, where the label is their number.
        notes: sentences for the person.
    """

    image: str
    data: str
    path: str
    others: dict[str, str]
    names: tuple[str, ...]
    notes: tuple[str, ...]


class Rows:
    """A Parquet or Arrow file that is open.

    Args:
        address: of it.

    Raises:
        FileNotFoundError: there is none.
        PipelineError: it is none, it has no column of images, or pyarrow is not installed.
    """

    def __init__(self, address: str):
        self.name = address
        _pyarrow(address)
        import pyarrow

        kind = kind_of(address)
        self._data = open_bytes(address, whole=kind == "arrow")
        self._lock = Lock()
        try:
            self._table: _Parquet | _Arrow = (_TABLES[kind])(self._data)
        except (pyarrow.ArrowException, OSError, EOFError) as error:
            title = {"parquet": "Parquet", "arrow": "Arrow"}[kind]
            raise PipelineError(
                f"{shown(address)} is no whole {title} file: {str(error).splitlines()[0]}."
            ) from error
        self.fields = fields_of(self._table.schema, shown(address))

    @cached_property
    def _read(self) -> Listing:
        import pyarrow

        fields, found, faults = self.fields, list[Member](), list[str]()
        columns = [*fields.others.values(), *filter(None, [fields.path])]
        for group, count in enumerate(self._table.counts):
            start = len(found)
            try:
                there = iter(self._table.has_bytes(group, fields.data))
                for batch in self._table.batches(group, columns):
                    found += self._members(batch, there, len(found))
            except (pyarrow.ArrowException, OSError) as error:
                del found[start:]
                found += [Member(str(start + at), members.DAMAGED) for at in range(count)]
                why = str(error).splitlines()[0]
                faults.append(f"rows {start:,} to {start + count - 1:,} cannot be read ({why})")
        return Listing(tuple(found), tuple(faults), fields.notes, labelled=True)

    def _members(self, batch: Any, there: Iterator[bool], start: int) -> Iterable[Member]:
        fields = self.fields
        values = {what: batch.column(column).to_pylist() for what, column in fields.others.items()}
        paths = [None] * batch.num_rows
        if fields.path:
            paths = _part(batch, fields.path).to_pylist()
        for at in range(batch.num_rows):
            held, elsewhere = next(there), paths[at] or ""
            split = text(values["split"][at]) if "split" in values else ""
            label = values["label"][at] if "label" in values else None
            yield Member(
                str(start + at),
                "" if held or elsewhere else members.NO_BYTES,
                label=_named(label, fields.names),
                split=SPLIT_NAMES.get(split.casefold(), ""),
                group=text(values["group"][at]) if "group" in values else "",
                elsewhere="" if held else elsewhere,
            )

    def listing(self) -> Listing:
        """Return what it holds: a member for each row, by its number."""
        with self._lock:
            return self._read

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a row's image; see `members.Archive`."""
        import pyarrow

        if not (name.isdecimal() and int(name) < sum(self._table.counts)):
            raise BadImage(VANISHED)
        if not self.fields.data:
            raise BadImage(members.NO_BYTES)
        try:
            with self._lock:
                data = self._table.value(int(name), self.fields.data)
        except (pyarrow.ArrowException, OSError) as error:
            raise BadImage(members.DAMAGED) from error
        if data is None:
            raise BadImage(members.NO_BYTES)
        if len(data) > MAX_BYTES:
            raise BadImage(TOO_BIG)
        yield data


class _Parquet:
    """A Parquet file, whose rows come in groups and are read in order."""

    def __init__(self, data: Bytes):
        import pyarrow.parquet

        local = isinstance(data, LocalBytes)
        source = data.path if isinstance(data, LocalBytes) else as_file(data, 1 << 20)
        self._held = data
        self._file = pyarrow.parquet.ParquetFile(source, memory_map=local, pre_buffer=False)
        meta = self._file.metadata
        self.schema = self._file.schema_arrow
        self.counts = [meta.row_group(at).num_rows for at in range(meta.num_row_groups)]
        self._ends = list(accumulate(self.counts))
        self._near: deque[tuple[int, Any]] = deque(maxlen=_AT_HAND)
        self._group, self._next = -1, 0
        self._ahead: Iterator[Any] = iter(())

    def batches(self, group: int, columns: list[str]) -> Iterator[Any]:
        if columns:
            return self._read(group, columns, 1024)
        import pyarrow

        rows = pyarrow.array([{}] * self.counts[group], pyarrow.struct([]))
        return iter([pyarrow.RecordBatch.from_struct_array(rows)])

    def has_bytes(self, group: int, column: str) -> Iterator[bool]:
        """Yield whether each row of a group holds bytes.

        The statistics say so, which are left out where values are large; then the first row stands
        for the others, so that not all images are read. One without is told when it is read.
        """
        count = self.counts[group]
        known = None if column else count
        if column:
            meta = self._file.metadata.row_group(group)
            every = (meta.column(at) for at in range(meta.num_columns))
            stats = next((one.statistics for one in every if one.path_in_schema == column), None)
            known = stats.null_count if stats is not None and stats.has_null_count else None
            if known is None:
                first = next(self._read(group, [column], 1))
                known = 0 if _part(first, column)[0].is_valid else None
        if known in (0, count):
            yield from (known == 0 for _ in range(count))
            return
        for batch in self._read(group, [column], _ROWS):
            yield from _part(batch, column).is_valid().to_pylist()

    def _read(self, group: int, columns: list[str], rows: int) -> Iterator[Any]:
        found: Iterator[Any] = self._file.iter_batches(
            rows, row_groups=[group], columns=columns, use_threads=False
        )
        return found

    def value(self, row: int, column: str) -> bytes | None:
        for start, values in self._near:
            if start <= row < start + len(values):
                found: bytes | None = values[row - start].as_py()
                return found
        group = next(at for at, end in enumerate(self._ends) if row < end)
        if group != self._group or row < self._next:
            self._group, self._next = group, self._ends[group - 1] if group else 0
            self._ahead = self._read(group, [column], _ROWS)
        while True:
            try:
                batch = next(self._ahead)
            except Exception as error:
                self._group = -1  # a reader that has failed does not go on
                if isinstance(error, StopIteration):
                    raise OSError("the row group ends early") from error
                raise
            values = _part(batch, column)
            start, self._next = self._next, self._next + len(values)
            self._near.append((start, values))
            if row < self._next:
                value: bytes | None = values[row - start].as_py()
                return value


class _Arrow:
    """An Arrow file or stream, mapped into memory: what `datasets` keeps on disk."""

    def __init__(self, data: Bytes):
        import pyarrow

        assert isinstance(data, LocalBytes)
        self._held = data
        mapped = pyarrow.memory_map(data.path)
        if data.read_at(0, 6) == b"ARROW1":
            self._table = pyarrow.ipc.open_file(mapped).read_all()
        else:
            self._table = pyarrow.ipc.open_stream(mapped).read_all()
        self.schema = self._table.schema
        self._batches = self._table.to_batches()
        self.counts = [batch.num_rows for batch in self._batches]
        self._ends = list(accumulate(self.counts))

    def batches(self, group: int, columns: list[str]) -> Iterator[Any]:
        return iter([self._batches[group]])

    def has_bytes(self, group: int, column: str) -> Iterator[bool]:
        if not column:
            return iter([False] * self.counts[group])
        found: list[bool] = _part(self._batches[group], column).is_valid().to_pylist()
        return iter(found)

    def value(self, row: int, column: str) -> bytes | None:
        at = next(at for at, end in enumerate(self._ends) if row < end)
        batch = self._batches[at]
        start = self._ends[at] - batch.num_rows
        found: bytes | None = _part(batch.slice(row - start, 1), column)[0].as_py()
        return found


_TABLES: dict[str, Any] = {"parquet": _Parquet, "arrow": _Arrow}


def fields_of(schema: Any, title: str) -> Fields:
    """Return which columns are which.

    Args:
        schema: of pyarrow.
        title: of the file, for people.

    Raises:
        PipelineError: none is one of images.
    """
    features = _features(schema)
    images = [name for name in schema.names if features.get(name, {}).get("_type") == "Image"]
    images = images or [f.name for f in schema if _is_struct_of_image(f.type)]
    images = images or [f.name for f in schema if _is_binary(f.type) and _like_image(f.name)]
    images = images or [f.name for f in schema if _is_binary(f.type)][:1]
    images = images or [f.name for f in schema if _is_text(f.type) and meaning(f.name) == "path"]
    if not images:
        raise PipelineError(
            f"{title} has no column of images: of bytes, of a struct of bytes and path, or of "
            f"paths with a name such as 'path' or 'image'. It has {joined(schema.names)}."
        )
    image, notes = images[0], []
    if len(images) > 1:
        notes.append(f"{title} has several columns of images: {image} is taken.")
    kind = schema.field(image).type
    data = path = ""
    if _is_struct_of_image(kind):
        parts = [kind.field(at).name for at in range(kind.num_fields)]
        data = f"{image}.bytes" if "bytes" in parts else ""
        path = f"{image}.path" if "path" in parts else ""
    else:
        data, path = (image, "") if _is_binary(kind) else ("", image)
    others = dict[str, str]()
    for name in schema.names:
        what = meaning(name)
        if what in ("label", "split", "group") and (what not in others or name == what):
            others[what] = name
    numbered = [n for n in schema.names if features.get(n, {}).get("_type") == "ClassLabel"]
    if len(numbered) == 1 or (numbered and others.get("label") not in numbered):
        others["label"] = numbered[0]
    if "label" in others and _is_nested(schema.field(others["label"]).type):
        notes.append(f"{title}: its column {others.pop('label')} holds lists, and is not used.")
    names = features.get(others.get("label", ""), {}).get("names", ())
    return Fields(image, data, path, others, tuple(map(str, names)), tuple(notes))


def _features(schema: Any) -> dict[str, Any]:
    """Return what Hugging Face's `datasets` says of the columns; nothing where it does not."""
    try:
        said = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {n: f for n, f in said.items() if isinstance(f, dict)} if isinstance(said, dict) else {}


def _named(label: Any, names: tuple[str, ...]) -> str:
    if names and isinstance(label, int):
        return names[label] if 0 <= label < len(names) else ""
    return text(label)


def text(value: Any) -> str:
    """Return a value as a class or group is named: a whole number without its point."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    return str(value).strip()


def _part(batch: Any, path: str) -> Any:
    """Return a column, or a part of one that is a struct; of a null struct nulls."""
    name, _, inner = path.partition(".")
    if path in batch.schema.names or not inner:
        return batch.column(path)
    import pyarrow.compute

    return pyarrow.compute.struct_field(batch.column(name), inner)


def _is_struct_of_image(kind: Any) -> bool:
    import pyarrow.types as types

    if not types.is_struct(kind):
        return False
    parts = {kind.field(at).name: kind.field(at).type for at in range(kind.num_fields)}
    return _is_binary(parts.get("bytes")) or (set(parts) == {"path"} and _is_text(parts["path"]))


def _is_binary(kind: Any) -> bool:
    import pyarrow.types as types

    return kind is not None and (types.is_binary(kind) or types.is_large_binary(kind))


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _is_nested(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_nested(kind))


def _like_image(name: str) -> bool:
    return meaning(name) == "path" or name.casefold() in _BYTES


def _pyarrow(address: str) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise PipelineError(
            f"{shown(address)} is read with pyarrow, which is not installed: "
            "`pip install 'headstart[parquet]'`."
        ) from error
