"""Weights of a small network, saved as files and loaded again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pipeline.trunks.registry import LoadedTrunk, load

NAME = "shufflenet_v2_x0_5"


def loaded(path: Path, name: str = NAME, **options: Any) -> LoadedTrunk:
    return load(name, str(path), state_dir=path.parent / "state", **options)


def saved(path: Path, held: Any) -> Path:
    torch.save(held, path)
    return path
