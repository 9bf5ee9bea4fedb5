"""Names of files, classes and splits: which are hidden, how they are shown and made safe."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence

SPLITS = ("train", "val", "test")
#: What a split may be called, in any case.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
#: What operating systems and archives leave behind, besides names that begin with a dot.
_LITTER = frozenset(
    ["thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found"]
)
_LONGEST = 100  # bytes of a safe name; file systems allow 255 for all parts together


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is one that people do not mean as data."""
    return name.startswith(".") or name.casefold() in _LITTER


def shown(path: str | os.PathLike[str]) -> str:
    """Return a path as text that can be printed: bytes that are not UTF-8 become `�`."""
    return os.fsencode(path).decode("utf-8", "replace")


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return "'a', 'b' and 3 more": the first names, quoted, and how many are left."""
    return joined([f"'{shown(name)}'" for name in names], most)


def joined(parts: Sequence[str], most: int = 5) -> str:
    """Return "a, b and c" or "a, b and 3 more"."""
    first, rest = list(parts[:most]), len(parts) - most
    if rest > 0:
        first.append(f"{rest:,} more")
    return " and ".join([", ".join(first[:-1]), first[-1]] if len(first) > 1 else first)


def counted(number: int, singular: str, plural: str = "") -> str:
    """Return "1 file" or "1,200 files"."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def class_name(name: str) -> str:
    """Return a class's name as classes are matched: composed, so that 'é' is one on every disk."""
    return unicodedata.normalize("NFC", name)


def safe(name: str) -> str:
    """Return a name that can be part of a file's name anywhere, without `--`, never empty.

    Letters and digits of any script, `.`, `_` and `-` stay; everything else becomes one `-`.
    """
    name = unicodedata.normalize("NFC", name)
    name = re.sub(r"[^\w.-]+|-{2,}", "-", name)
    name = re.sub(r"-{2,}", "-", name).strip("-.")
    name = name.encode()[:_LONGEST].decode("utf-8", "ignore").rstrip("-.")
    return name or "images"
