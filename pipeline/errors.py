"""Errors are sentences for the person who runs the command.

Domain code raises `PipelineError` or one of its few subclasses; only `pipeline.cli` prints
them and chooses the exit code.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PipelineError(Exception):
    """The work failed; the message says what was given, what is allowed, what to do next."""

    exit_code = 1


class UsageError(PipelineError, ValueError):
    """An option or argument that cannot be right, whatever the data; a `ValueError` too."""

    exit_code = 2


class DamagedError(PipelineError):
    """A file of the cache is damaged, truncated, missing or not what it claims to be."""


class LockedError(PipelineError):
    """Another process is doing the same work."""


class BadImage(PipelineError):
    """An image that cannot be read; the message is the reason, without the path.

    Raised only for what the bytes themselves say. Resource errors (memory, file descriptors,
    input/output) are never turned into a `BadImage`.
    """


def nearest(given: str, allowed: Iterable[str], *, most: int = 3) -> str:
    """Return ' Did you mean a, b or c?' for the names closest to `given`, or an empty string."""
    names = list(allowed)
    found = difflib.get_close_matches(given, names, n=most, cutoff=0.6)
    if not found:
        folded = {name.casefold(): name for name in names}
        found = [
            folded[name]
            for name in difflib.get_close_matches(given.casefold(), folded, n=most, cutoff=0.6)
        ]
    if not found:
        return ""
    text = found[0] if len(found) == 1 else f"{', '.join(found[:-1])} or {found[-1]}"
    return f" Did you mean {text}?"
