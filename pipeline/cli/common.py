"""What every command has besides its own: --log-file, completion, and `pipeline.toml` told."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from pipeline.cli import log, settings
from pipeline.cli.commands.completion import completable


def common(command: click.Command) -> click.Command:
    """Return a command with what all have; its own is left as it is."""
    found = copy.copy(command)
    found.params = [_completable(param) for param in command.params]
    if isinstance(found, click.Group):
        found.commands = {name: common(one) for name, one in found.commands.items()}
        return found
    found.params.append(log.option())
    assert command.callback is not None
    found.callback = _told(command.callback)
    return found


def _completable(param: click.Parameter) -> click.Parameter:
    found = copy.copy(param)
    found.type = completable(param)
    return found


def _told(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Return a callback before which is told what the command took from `pipeline.toml`."""

    @wraps(callback)
    def call(**values: Any) -> Any:
        context = click.get_current_context()
        for_programs = values.get("as_json") or values.get("form")
        heard = context.find_object(log.Log)
        if for_programs and heard is not None:
            heard.leave_out_results()
        if not values.get("as_json") and (words := settings.taken(context)):
            click.echo(f"From {settings.FILE}: {words}", err=True)
        return callback(**values)

    return call
