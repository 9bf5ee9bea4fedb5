"""Which of a person's own networks may be made: making one runs their code. Imports no torch."""

from __future__ import annotations

import os

from pipeline.errors import PipelineError
from pipeline.trunks.addresses import address_of

#: What names a network that was given as an object in Python.
PREFIX = "own/"
#: Names with commas that a person permits to every command of a shell.
VARIABLE = "PIPELINE_TRUNKS"
#: Permitted in this process, since a person named them in it. It only grows.
_PERMITTED: set[str] = set()


def is_own(name: str) -> bool:
    """Return whether a trunk is a person's own: `mypackage.mymodule:make`, or `own/NAME`."""
    return (":" in name and address_of(name) is None) or name.startswith(PREFIX)


def permit(name: str) -> None:
    """Let a person's own network be made: they named it themselves, no file did."""
    if is_own(name):
        _PERMITTED.add(name)


def check(name: str) -> None:
    """Refuse to make a network that only a file names: opening a file runs no code.

    Raises:
        PipelineError: nobody has permitted it.
    """
    named = {word.strip() for word in os.environ.get(VARIABLE, "").split(",")}
    if name not in _PERMITTED | named:
        raise PipelineError(
            f"This was made with your own network {name}, whose code has to run again, and no file "
            f"may ask for that. Where you trust it, set {VARIABLE}={name}."
        )
