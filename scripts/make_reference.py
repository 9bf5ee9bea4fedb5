"""Write docs/reference.md from the help texts.

A test holds the page to them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from pipeline.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
WIDTH = 96
HEAD = """# Reference

Every command with its options, as `--help` prints them. This page is made by
`python scripts/make_reference.py`; change the help texts, not the page.
"""


def page() -> str:
    """Return the page: a section for each command."""
    with click.Context(main, info_name="pipeline", **_shape(main)) as context:
        return "\n".join([HEAD, *_sections(main, context)])


def _sections(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yield a command's section, and for a group those of its commands."""
    text = command.get_help(context).rstrip()
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    yield f"## {context.command_path}\n\n```text\n{lines}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            with click.Context(below, info_name=name, parent=context, **_shape(below)) as inner:
                yield from _sections(below, inner)


def _shape(command: click.Command) -> dict[str, object]:
    return {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}


if __name__ == "__main__":
    PAGE.write_text(page())
