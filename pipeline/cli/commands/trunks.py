"""`pipeline trunks`."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli import options
from pipeline.errors import PipelineError, UsageError

#: More trunks than this are listed by name alone: each has to be built to be described.
DESCRIBED = 24


@click.command()
@click.argument("pattern", required=False)
@options.as_json
def command(pattern: str | None, as_json: bool) -> None:
    """List the trunks whose name holds PATTERN (* and ? work), with what each is made of.

    Without PATTERN, or with one that fits many, the names alone: built-in, torchvision's, timm's.

    \b
    Examples:
      pipeline trunks resnet18
      pipeline trunks 'timm/convnext*pico'
    """
    from pipeline.trunks import registry

    found = registry.names(pattern)
    if not found:
        raise UsageError(f"No trunk's name holds '{pattern}'. `pipeline trunks` lists them all.")
    described = [_describe(name) for name in found] if len(found) <= DESCRIBED else []
    if as_json:
        options.print_json({"trunks": described or [{"name": name} for name in found]})
        return
    for facts in described:
        click.echo(_text(facts))
    if not described:
        for name in found:
            click.echo(name)
        click.echo(
            f"{len(found)} trunks; a pattern that fits at most {DESCRIBED} shows their stages.",
            err=True,
        )


def _describe(name: str) -> dict[str, Any]:
    from pipeline.trunks import registry

    try:
        return vars(registry.describe(name))
    except PipelineError as error:
        return {"name": name, "refused": str(error)}


def _text(facts: dict[str, Any]) -> str:
    if "refused" in facts:
        return f"{facts['name']}\n  cannot be used: {facts['refused']}"
    stages = "  ".join(
        f"{stage} {facts['channels'][stage]}/{facts['strides'][stage]}"
        for stage in facts["channels"]
    )
    hand = "at hand" if facts["at_hand"] else "not at hand"
    weights = f"{', '.join(facts['weights'])} ({hand})" if facts["weights"] else "random, FILE"
    neck = f"  neck {', '.join(facts['neck'])}" if facts["neck"] else ""
    return (
        f"{facts['name']}  ({facts['family']})\n"
        f"  stages (channels/stride)  {stages}{neck}\n"
        f"  D {facts['dim']:,}   parameters {facts['parameters'] / 1e6:.2f} M   "
        f"multiply-adds {facts['multiply_adds'] / 1e9:.2f} G at {facts['input_size']} px\n"
        f"  weights {weights}"
    )
