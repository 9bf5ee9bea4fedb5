"""Which trunks there are, from a table, so that listing or refusing a name imports no library.

`names.json` is of one release of torchvision and of timm; `scripts/make_trunks.py` writes it. Where
others are installed, or a program has imported timm and may have added to it, the libraries are
asked.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

from pipeline.errors import UsageError, nearest
from pipeline.trunks import permitted

#: What names of timm's begin with.
TIMM = "timm/"
TABLE = "names.json"
LIBRARIES = ("timm", "torchvision")


@dataclass(frozen=True)
class Listed:
    """The trunks of one release of each library. Equal when they list the same.

    Attributes:
        names: of those that there are: built in, torchvision's, timm's.
        refused: name to the sentence on why it is not one of them.
    """

    names: tuple[str, ...]
    refused: dict[str, str]


def check(name: str) -> None:
    """Refuse a name that is known to be no trunk's, before a library is imported to look for it.

    Raises:
        UsageError: there is none, or it cannot be cut into stages.
    """
    if permitted.is_own(name) or (found := table()) is None:
        return
    base = name.partition(".")[0] if name.startswith(TIMM) else name
    if base in found.refused:
        raise UsageError(found.refused[base])
    if base not in found.names:
        raise unknown(name, found.names)


def unknown(name: str, every: Sequence[str]) -> UsageError:
    """Return the error for a name that no source knows.

    Args:
        name: as it was given.
        every: names that there are.
    """
    in_timm = TIMM + name
    hint = f" Did you mean {in_timm}?" if in_timm in every else nearest(name, every)
    return UsageError(f"There is no trunk {name!r}.{hint} `pipeline trunks` lists what there is.")


def matching(every: Sequence[str], pattern: str | None) -> list[str]:
    """Return the names that match a pattern, all without one.

    Args:
        every: names.
        pattern: part of a name, or a pattern with `*` and `?`; capitals do not count.
    """
    if not pattern:
        return list(every)
    wanted = pattern.casefold()
    if not any(sign in wanted for sign in "*?["):
        wanted = f"*{wanted}*"
    return [name for name in every if fnmatchcase(name.casefold(), wanted)]


def table() -> Listed | None:
    """Return the table; None where it is not known to be that of what is installed."""
    return None if "timm" in sys.modules else _read()


@cache
def _read() -> Listed | None:
    kept = json.loads(files("pipeline.trunks").joinpath(TABLE).read_text("utf-8"))
    if kept["versions"] != installed():
        return None
    refused = {name: why.format(name) for why, part in kept["refused"].items() for name in part}
    return Listed(tuple(kept["names"]), refused)


def installed() -> dict[str, str]:
    """Return the versions of the libraries; empty where one is not installed."""
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library).partition("+")[0]
        except PackageNotFoundError:
            found[library] = ""
    return found
