"""The state of an unfinished run, from which `--resume` goes on to the same bits."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pipeline.errors import DamagedError, PipelineError
from pipeline.finetuning.prepare import Handover
from pipeline.finetuning.training import Training
from pipeline.progress import Progress
from pipeline.store.atomic import write_bytes


def states_of(folder: Path, model: str) -> list[Path]:
    """Return the states of unfinished runs of a model, given its id, and of their candidates."""
    return list(folder.glob(f"{model}[.-]*"))


def take_up(
    tuner: Training, saved: Path, resume: bool | None, progress: Progress
) -> dict[str, Any] | None:
    """Put an unfinished run's state into the training and return its facts, None without one."""
    try:
        kept = read_state(saved)
        if kept is not None:
            tuner.restore(*kept)
    except PipelineError as error:
        if resume:
            raise type(error)(f"{error} Run the same command without --resume.") from error
        progress.say(f"{error} Starting over.")
        return None
    return None if kept is None else kept[1]


def keep_state(tuner: Training, saved: Path, agreed: Handover | None) -> None:
    """Write the state from which `--resume` goes on."""
    tensors, facts = tuner.state()
    write_state(saved, tensors, {**facts, "handover": None if agreed is None else asdict(agreed)})


def write_state(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write a state and rename it into place.

    Args:
        path: a `.safetensors` file.
        tensors: by name, any device.
        facts: plain JSON values.

    Raises:
        PipelineError: the file and the system's reason.
    """
    on_cpu = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    image = save(on_cpu, metadata={"facts": json.dumps(facts)})
    write_bytes(path, image, what="the state of the run")


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return a state, or None where there is none.

    Raises:
        DamagedError: it cannot be read.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise DamagedError(
            f"The state of the unfinished run {path} is damaged ({error})."
        ) from error
