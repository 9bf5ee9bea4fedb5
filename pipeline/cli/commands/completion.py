"""`pipeline completion`, and what the shells are told of values."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

SHELLS = ("bash", "zsh", "fish")
#: What each shell is told to do with the script.
_USE = {
    "bash": 'eval "$(pipeline completion bash)"   in ~/.bashrc',
    "zsh": 'eval "$(pipeline completion zsh)"   in ~/.zshrc',
    "fish": "pipeline completion fish > ~/.config/fish/completions/pipeline.fish",
}


@click.command(epilog="\b\n" + "\n".join(f"{shell}: {use}" for shell, use in _USE.items()))
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the script that completes commands, options and their values in SHELL.

    \b
    Example:
      pipeline completion bash
    """
    from pipeline.cli import main

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "pipeline", "_PIPELINE_COMPLETE").source(), nl=False)


class Value(click.types.StringParamType):
    """Text that a shell can complete.

    Args:
        names: gives what it may be, as far as that can be listed.
        paths: `file` or `dir` where it may be a path; else empty.
    """

    def __init__(self, names: Callable[[click.Context], Iterable[str]], paths: str = ""):
        self.names, self.paths = names, paths

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the names that begin so, behind the last comma, and that paths may too."""
        before, comma, last = incomplete.rpartition(",")
        found = [
            CompletionItem(f"{before}{comma}{name}")
            for name in self.names(ctx)
            if name.startswith(last)
        ]
        return found + ([CompletionItem(incomplete, type=self.paths)] if self.paths else [])


def completable(param: click.Parameter) -> click.types.ParamType[Any]:
    """Return the type of an option or argument, with what a shell can complete of it.

    Names are those of `_NAMES`, and else the words of the metavar: `auto|fp32|bf16`.
    """
    if type(param.type) is not click.types.StringParamType:
        return param.type
    metavar = param.metavar or ""
    words = tuple(word for word in metavar.split("|") if re.fullmatch("[a-z][a-z0-9-]*", word))
    paths = {"DIR": "dir"}.get(metavar, "file" if "FILE" in metavar else "")
    if isinstance(param, click.Argument):
        paths = "file"
    known = None if paths == "dir" else _NAMES.get(param.name or "")
    return Value(known or (lambda ctx: words), paths)


def _heads(ctx: click.Context) -> list[str]:
    from pipeline.heads.registry import HEADS

    return [*HEADS, "all"] if ctx.info_name in ("fit-head", "run") else list(HEADS)


def _layers(ctx: click.Context) -> tuple[str, ...]:
    from pipeline.trunks.spec import LAYERS

    return LAYERS


def _places(ctx: click.Context) -> tuple[str, ...]:
    return (*_layers(ctx), "all", "none")


def _data(ctx: click.Context) -> list[str]:
    from pipeline.images.datasets.builtin import BUILTIN

    return list(BUILTIN)


def _tables(ctx: click.Context) -> list[str]:
    """Return the names of the cache's tables; makes no cache where there is none."""
    from pipeline.store.cache import ENVIRONMENT

    root = ctx.params.get("cache") or os.environ.get(ENVIRONMENT) or "cache"
    return sorted(path.stem for path in (Path(root) / "tables").glob("*.h5"))


_NAMES: Mapping[str, Callable[[click.Context], Iterable[str]]] = {
    "weights": lambda ctx: ("default", "random"),
    "clf": _heads,
    "head": _heads,
    "words": _heads,
    "asked": _heads,
    "layer": _layers,
    "layers": _layers,
    "unfreeze": _places,
    "data": _data,
    "table": _tables,
}
