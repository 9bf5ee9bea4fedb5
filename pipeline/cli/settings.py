"""`pipeline.toml` in the current folder: options remembered, a section for each command."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from pipeline.errors import PipelineError, UsageError, nearest

FILE = "pipeline.toml"


def read(group: click.Group, context: click.Context) -> dict[str, Any]:
    """Return what the file says, as click's `default_map` of a group; empty without a file.

    click checks the values when the command runs, as those of the command line.

    Args:
        group: whose commands the sections are of.
        context: of the group.

    Raises:
        UsageError: it is no TOML, or has sections and options that there are not, all in one
            message.
        PipelineError: the system cannot read it.
    """
    try:
        values = tomllib.loads(Path(FILE).read_bytes().decode())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise PipelineError(f"{FILE} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # of TOML, or of UTF-8
        raise UsageError(f"{FILE} is not TOML: {error}.") from error
    faults: list[str] = []
    found = _sections(group, context, values, "", faults)
    if faults:
        raise UsageError(" ".join(faults))
    if context.invoked_subcommand == "run":
        found["run"] = {**_fallback(found), **found.get("run", {})}
    return found


def _sections(
    group: click.Group, context: click.Context, values: dict[str, Any], above: str,
    faults: list[str],
) -> dict[str, Any]:  # fmt: skip
    found: dict[str, Any] = {}
    for name, section in values.items():
        command = group.get_command(context, name)
        if not isinstance(section, dict):
            faults.append(
                f"{FILE}: {name} stands outside of a section; put it under that of its command, "
                f"such as [{above}{group.list_commands(context)[0]}]."
            )
        elif command is None:
            hint = nearest(name, group.list_commands(context))
            faults.append(f"{FILE}: there is no command for the section [{above}{name}].{hint}")
        elif isinstance(command, click.Group):
            found[name] = _sections(command, context, section, f"{above}{name}.", faults)
        else:
            found[name] = _options(command, section, f"{above}{name}", faults)
    return found


def _options(
    command: click.Command, values: dict[str, Any], section: str, faults: list[str]
) -> dict[str, Any]:
    known = {
        name.removeprefix("--"): param
        for param in command.params
        if isinstance(param, click.Option)
        for name in param.opts
    }
    found: dict[str, Any] = {}
    for key, value in values.items():
        param = known.get(key.replace("_", "-"))
        if param is None:
            faults.append(f"{FILE}: [{section}] has no option {key}.{nearest(key, known)}")
        elif not param.is_flag:  # as text, so that click takes no 2.5 and no true for a number
            several = isinstance(value, list) and (param.multiple or param.nargs > 1)
            found[param.name or ""] = [*map(str, value)] if several else str(value)
        elif not isinstance(value, bool):
            faults.append(f"{FILE}: {key} in [{section}] must be true or false, not {value!r}.")
        elif value or param.is_bool_flag:
            on = _activation(param)
            found[param.name or ""] = on if value else not on
    return found


def _activation(param: click.Option) -> Any:
    """Return the value of a flag that is given; click 8.1 has another name for it."""
    return getattr(param, "flag_activation_value", param.flag_value)


def _fallback(found: dict[str, Any]) -> dict[str, Any]:
    """Return what `run` takes from the sections of its stages, shared options from [extract]."""
    from pipeline.workflow.options import SETTINGS

    places = {**{name: of[0] for name, of in SETTINGS.items()}, "cache": ("extract", "cache")}
    return {
        name: found[stage][field]
        for name, (stage, field) in places.items()
        if field in found.get(stage, {})
    }


def taken(context: click.Context) -> str:
    """Return what a command took from the file, as it would be typed; empty for nothing."""
    return " ".join(_words(context))


def _words(context: click.Context) -> Iterator[str]:
    for param in context.command.params:
        name = param.name or ""
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT_MAP:
            continue
        assert isinstance(param, click.Option)
        value = (context.default_map or {})[name]
        if param.multiple:
            yield shlex.join(word for one in value for word in (param.opts[-1], one))
        elif not param.is_flag:
            yield shlex.join([param.opts[-1], *(value if isinstance(value, list) else [value])])
        elif value == _activation(param):
            yield param.opts[-1]
