"""Options that several commands share."""

from __future__ import annotations

import json
import time
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

artefact: Decorator = click.option(
    "--with",
    "asked",
    metavar="ID",
    help="The head or model: an id, how one begins, a folder, or a kind of head.",
)
device: Decorator = click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda|mps"
)
batch_size: Decorator = click.option(
    "--batch-size",
    type=int,
    metavar="N",
    help="Images at once.  [default: 32 on a CPU, 128 on CUDA, 64 on MPS]",
)
workers: Decorator = click.option(
    "--workers",
    type=int,
    metavar="N",
    help="Decoding threads.  [default: the cores that the process may use]",
)
_MEANS: tuple[Decorator, ...] = (
    click.option(
        "--precision",
        default="auto",
        show_default=True,
        metavar="auto|fp32|bf16|fp16",
        help="auto: that of the stored predictions.",
    ),
    device,
    click.option(
        "--engine",
        default="auto",
        show_default=True,
        metavar="auto|torch|openvino",
        help="What runs the network. auto: what extract takes; PyTorch for a few images.",
    ),
    batch_size,
    workers,
)
calibration: Decorator = click.option(
    "--no-calibration",
    "calibration",
    flag_value=False,
    default=True,
    type=bool,
    help="Probabilities as in the stored predictions, without the fitted temperature.",
)


def means(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `pipeline.inference.options.Means`: how to compute."""
    for option in reversed(_MEANS):
        command = option(command)
    return command


#: Under which the context of a command line keeps when it began.
BEGAN = "pipeline.began"


def elapsed() -> float:
    """Return the seconds since the command began, importing what it needs included."""
    return time.monotonic() - float(click.get_current_context().meta[BEGAN])


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
