"""The command line's options: of a dataclass of `pipeline.options`, and those of every command."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Any

import click

from pipeline.options import Options, flag, helps, types

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

as_json: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on standard output."
)
model: Decorator = click.option(
    "--with",
    "model",
    metavar="ID",
    help="The head or model: an id, how one begins, a folder, or a kind of head.",
)


def cache_and_json(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options `--cache` and `--json` to a command."""
    cache = click.option(
        "--cache", metavar="DIR", help="The cache's folder; else $PIPELINE_CACHE, else ./cache."
    )
    return cache(as_json(command))


def options_of(kind: type[Options]) -> Decorator:
    """Return what adds an option to a command for each field that a dataclass itself declares."""
    help, plain = helps(kind), types(kind)
    own = [field for field in fields(kind) if field.name in kind.__annotations__]

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for field in reversed(own):
            command = _option(field, plain[field.name][0], help.get(field.name))(command)
        return command

    return add


def _option(field: Field[Any], plain: type, help: str | None) -> Decorator:
    rule, default = field.metadata["rule"], field.default
    words = [*(rule.flags or (flag(field.name),)), field.name]
    if plain is bool and default:
        return click.option(*words, flag_value=False, default=True, type=bool, help=help)
    if plain is bool:
        return click.option(*words, is_flag=True, help=help)
    several = plain is tuple
    return click.option(
        *words,
        type=str if several else plain,
        multiple=several,
        default=() if several else default,
        show_default=default is not None and not several,
        metavar=rule.metavar or "|".join(rule.choices) or None,
        help=help,
    )


#: Under which the context of a command line keeps when it began.
BEGAN = "pipeline.began"


def elapsed() -> float:
    """Return the seconds since the command began, importing what it needs included."""
    return time.monotonic() - float(click.get_current_context().meta[BEGAN])


def output(done: Any, show: Callable[[Any], None], *, as_json: bool) -> None:
    """Print a result: as one JSON object, or as `show` prints it."""
    if as_json:
        print_json(done.to_json())
    else:
        show(done)


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
