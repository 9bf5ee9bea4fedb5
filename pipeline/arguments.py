"""What Python callers give: values of other libraries made plain; sentences on what is no path."""

from __future__ import annotations

import errno
import math
import os
import reprlib
from collections.abc import Mapping
from contextlib import suppress
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any

from pipeline.errors import UsageError

#: Longest value that a sentence quotes.
_SHORT = 60


def plain(value: Any, kind: type) -> Any:
    """Return a value as one of Python's own types, where it means one; else as it is.

    A path is its text; a number of NumPy, or a tensor without axes, is Python's; a list is a tuple.

    Args:
        value: from outside.
        kind: that is wanted: `str`, `int`, `float`, `bool` or `tuple`.
    """
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if kind is tuple and isinstance(value, list | tuple):
        return tuple(plain(one, str) for one in value)
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral) and kind is not float:
        return int(value)
    if isinstance(value, Real):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    if kind is str and isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, str):
        return str.__str__(value)
    return value


def file_and_key(path: Path) -> tuple[Path, str | None]:
    """Return the file and the key of `FILE::KEY`; the key is None where there is none.

    A file that is really called so is a file.
    """
    name, mark, key = str(path).rpartition("::")
    return (path, None) if not mark or path.exists() else (Path(name), key)


def named(value: Any) -> str:
    """Return a value for a sentence: as Python writes it where that is short, else its type."""
    text = ""
    if type(value) in (bool, float, str, bytes, list, tuple, dict, NoneType):
        text = reprlib.repr(value)
    elif type(value) is int and abs(value) < 10**_SHORT:
        text = str(value)
    if 0 < len(text) <= _SHORT and "\n" not in text:
        return text
    return f"an object of type {type(value).__name__}"


def instead(value: Any) -> str:
    """Return the sentence on what to give in place of an object of torch; else nothing."""
    if hasattr(value, "state_dict") and hasattr(value, "parameters"):
        return (
            " Name a network of your own with pipeline.own_trunk(network, name=…, preprocess=…) "
            "and give that name as the trunk; weights alone are a file of torch.save."
        )
    tensors = isinstance(value, Mapping) and any(hasattr(one, "dtype") for one in value.values())
    return " Write the tensors with torch.save, and give the file." if tensors else ""


def path_of(given: Any, what: str, *, like: str = "a text or a path") -> Path:
    """Return a path that a person gave, `~` replaced.

    Args:
        given: from outside.
        what: it is for, at the beginning of a sentence.
        like: what is allowed there.

    Raises:
        UsageError: it is no path.
    """
    if not isinstance(given, str | os.PathLike):
        raise UsageError(f"{what} must be {like}, not {named(given)}.{instead(given)}")
    path = Path(os.fsdecode(given))
    if "\0" in str(path):
        raise UsageError(f"{what} must be {like}, and {named(str(path))} has a zero byte.")
    with suppress(RuntimeError):  # ~name of nobody: a name like any other
        path = path.expanduser()
    try:
        path.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError(
                f"{what} must be {like}, and '{str(path)[:20]}…' is longer than a path can be."
            ) from error
    return path
