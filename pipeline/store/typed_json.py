"""Frozen dataclasses that JSON can hold, read again by the types of their fields."""

from __future__ import annotations

import reprlib
import sys
from dataclasses import Field, asdict, dataclass, fields, is_dataclass
from functools import cache
from types import NoneType
from typing import Any, Self, get_args, get_origin, get_type_hints, is_typeddict

from pipeline.arguments import plain

#: Levels that values may be nested, so that none exhausts the stack.
DEEPEST = 32


@dataclass(frozen=True)
class Record:
    """A frozen dataclass that JSON can hold."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; fields whose metadata say `stored: False` stay out."""
        kept = {f.name for f in _stored(self)}
        return {name: _json(value) for name, value in asdict(self).items() if name in kept}

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """Return the inverse of `to_json`; keys that are no fields are ignored.

        Raises:
            ValueError: what is missing, or which value is not of its type: the rest of a sentence
                that begins with the file's name.
        """
        if not isinstance(values, dict):
            raise ValueError("holds no JSON object")
        if not _shallow(values, DEEPEST):
            raise ValueError(f"is nested deeper than {DEEPEST} levels")
        read: Self = _parsed(cls, values, "")
        return read


def _json(value: Any) -> Any:
    """Return a value that JSON can hold: hours of work are not lost for what is said about them."""
    value = plain(value, str)
    if isinstance(value, dict):
        return {str(key): _json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        simple = {type(one) for one in value} <= {int, float, str}  # a large confusion
        kind = tuple if isinstance(value, tuple) else list
        return value if simple else kind(_json(one) for one in value)
    return value if isinstance(value, bool | int | float | str | None) else str(value)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _stored(record: Any) -> list[Field[Any]]:
    """Return the fields of a record, or of its type, that JSON holds."""
    return [f for f in fields(record) if f.metadata.get("stored", True)]


def _parsed(kind: Any, value: Any, name: str) -> Any:
    """Return a JSON value as a field's type says.

    Args:
        kind: a record, a `TypedDict`, `tuple`, `dict`, `X | None`, `Any` or a plain type.
        value: from JSON.
        name: of the field, with the names of those that it is in, for the message.
    """
    arguments, origin = get_args(kind), get_origin(kind)
    if NoneType in arguments:
        return None if value is None else _parsed(arguments[0], value, name)
    if kind is Any:
        return value
    if is_typeddict(kind) and isinstance(value, dict):
        return {**value, **_members(kind, sorted(_hints(kind)), value, name)}
    if is_dataclass(kind) and isinstance(value, dict):
        return kind(**_members(kind, sorted(f.name for f in _stored(kind)), value, name))  # type: ignore
    if origin in (tuple, list) and isinstance(value, list):
        of = arguments[0]
        if origin is tuple and arguments[-1] is not Ellipsis:
            if len(arguments) == len(value):
                pairs = zip(arguments, value, strict=True)
                return tuple(_parsed(one, item, name) for one, item in pairs)
        elif of in (int, str) and {type(item) for item in value} <= {of}:  # a large confusion
            return origin(value)
        else:
            return origin(_parsed(of, item, f"{name}[{n}]") for n, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _parsed(arguments[1], one, f"{name}.{key:.20}") for key, one in value.items()}
    if type(value) is kind and kind is not float:
        return value
    if kind is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return value  # neither infinite nor no number, nor an integer that no float can hold
    raise ValueError(f"has {reprlib.repr(value)} for {name}, not {_word(kind)}")


def _members(kind: Any, names: list[str], value: dict[str, Any], within: str) -> dict[str, Any]:
    place = f"{within}." if within else ""
    if lost := [place + name for name in names if name not in value]:
        raise ValueError(f"lacks {', '.join(lost)}")
    hints = _hints(kind)
    return {name: _parsed(hints[name], value[name], place + name) for name in names}


def _shallow(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value
    parts = (one for one in inner if isinstance(one, dict | list))
    return levels > 0 and all(_shallow(one, levels - 1) for one in parts)


def _word(kind: Any) -> str:
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    if get_origin(kind) in (tuple, list):
        fixed = get_origin(kind) is tuple and get_args(kind)[-1] is not Ellipsis
        return f"a list of {len(get_args(kind))}" if fixed else "a list"
    return words.get(kind, "an object")
