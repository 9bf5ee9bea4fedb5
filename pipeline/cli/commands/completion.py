"""`pipeline completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

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
    """Print the script that completes commands and options in SHELL.

    \b
    Example:
      pipeline completion bash
    """
    from pipeline.cli import main

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "pipeline", "_PIPELINE_COMPLETE").source(), nl=False)
