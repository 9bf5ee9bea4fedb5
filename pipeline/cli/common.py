"""What every command has besides its own: --log-file, and what `pipeline.toml` gave is told."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from pipeline.cli import log, settings


def common(command: click.Command) -> click.Command:
    """Return a command with what all have; its own is left as it is."""
    found = copy.copy(command)
    if isinstance(found, click.Group):
        found.commands = {name: common(one) for name, one in found.commands.items()}
        return found
    found.params = [*command.params, log.option()]
    assert command.callback is not None
    found.callback = _told(command.callback)
    return found


def _told(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Return a callback before which is told what the command took from `pipeline.toml`."""

    @wraps(callback)
    def call(**values: Any) -> Any:
        if not values.get("as_json") and (words := settings.taken(click.get_current_context())):
            log.echo(f"From {settings.FILE}: {words}", err=True)
        return callback(**values)

    return call
