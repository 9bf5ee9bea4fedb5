"""Options that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

cache: Decorator = click.option(
    "--cache",
    metavar="DIR",
    help="The cache's folder; else $PIPELINE_CACHE, else ./cache.",
)
as_json: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on standard output."
)


def print_json(values: Any) -> None:
    """Print one JSON object, names that are not UTF-8 escaped."""
    click.echo(json.dumps(values, indent=2, ensure_ascii=True))


def size(count: float) -> str:
    """Return a number of bytes for people: `21.4 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def shown(text: object) -> str:
    """Return text that any terminal takes: bytes that are not UTF-8 are replaced."""
    return str(text).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
