"""The state of an unfinished run, kept after every epoch, so that it can go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pipeline.errors import DamagedError
from pipeline.store.atomic import write_bytes


def keep(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
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


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
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
