"""What a person should know of labels that look like something else than classes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.images.names import counted, joined, shown

#: Different numbers from which on labels look like a quantity.
MANY_NUMBERS = 10
#: What libraries write where there is no value.
_NOTHING = frozenset(["nan", "none", "null", "n/a", "<na>", "nat"])
_LIST = re.compile(r"\[.*\]|\{.*\}|\(.*,.*\)|.*\S[;|].*\S", re.DOTALL)


def label_notes(labels: Sequence[str]) -> list[str]:
    """Return sentences on labels that are numbers with many values, lists, or words for nothing.

    Args:
        labels: of each image, "" without one.
    """
    names = sorted({*labels} - {""})
    nothing = [name for name in names if name.casefold() in _NOTHING]
    notes = []
    numbers = [value for value in map(_number, names) if value is not None]
    if len(numbers) == len(names) - len(nothing) > MANY_NUMBERS and any(n % 1 for n in numbers):
        notes.append(
            f"The labels are numbers with {len(numbers):,} different values ({_few(names)}): each "
            "is read as a class of its own. Quantities cannot be learned; put them into bins."
        )
    for what, found in (
        ("look like lists of labels", _lists(names)),
        ("are words for no value", nothing),
    ):
        if found:
            count = sum(label in set(found) for label in labels)
            notes.append(
                f"Labels of {counted(count, 'image')} {what} ({_few(found)}): each is read as one "
                "class of its own. An image has one class here, or an empty label."
            )
    return notes


def _number(name: str) -> float | None:
    try:
        value = float(name.replace(",", "."))
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def _lists(names: Sequence[str]) -> list[str]:
    """Return the names that hold several: in brackets, with `;` or `|`, or of others with `,`."""
    single = set(names)
    commas = [
        name for name in names
        if "," in name and _number(name) is None
        and any(part.strip() in single for part in name.split(","))
    ]  # fmt: skip
    return sorted({*commas, *(name for name in names if _LIST.fullmatch(name))})


def _few(names: Sequence[str]) -> str:
    return joined([f"'{shown(name)}'" for name in names], 3)
