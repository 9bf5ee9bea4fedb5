"""What the recipes have in common: options named as the command line names them, and checked."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from pipeline.errors import UsageError, nearest

R = TypeVar("R")


def option(name: str) -> str:
    """Return a field's option: `image_size` is `--image-size`."""
    return f"--{name.replace('_', '-')}"


def command_line(
    verb: str, words: Sequence[str], recipe: Any, *, without: Collection[str] = ()
) -> str:
    """Return the command line that asks for the same.

    Args:
        verb: the command.
        words: what follows it.
        recipe: a dataclass; a field that has its default is not said.
        without: fields that are not said either.
    """
    said = ["pipeline", verb, *words]
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if field.name not in without and value != field.default:
            said += [option(field.name)] if value is True else [option(field.name), str(value)]
    return shlex.join(said)


def faults(
    recipe: Any, *, least: Mapping[str, float], allowed: Mapping[str, Sequence[str | None]]
) -> list[str]:
    """Return a sentence for each field that is too small or not one of a few names.

    Args:
        recipe: a dataclass; None is allowed where it is the field's own way to say nothing.
        least: field to its smallest value.
        allowed: field to its values.
    """
    found = []
    for name, bound in least.items():
        value = getattr(recipe, name)
        if value is not None and value < bound:
            found.append(f"{option(name)} {value} is below {bound}.")
    for name, values in allowed.items():
        value = getattr(recipe, name)
        if value not in values:
            names = [value for value in values if value is not None]
            hint = nearest(str(value), names)
            found.append(f"{option(name)} '{value}' is not one of {', '.join(names)}.{hint}")
    return found


def from_options(recipe: type[R], options: Mapping[str, Any], *, verb: str) -> R:
    """Return a recipe of options given by name; a name that it lacks is told with the nearest."""
    fields = recipe.__dataclass_fields__  # type: ignore[attr-defined]
    for name in options:
        if name not in fields:
            raise UsageError(f"{verb} has no option '{name}'.{nearest(name, fields)}")
    return recipe(**options)
