"""Small trunks with random weights, for the tests of what trains them."""

from functools import cache
from pathlib import Path

import pytest
import torch

from pipeline.trunks.registry import LoadedTrunk, load


@cache
def _loaded(name: str, folder: Path) -> LoadedTrunk:
    return load(name, "random", state_dir=folder)


@pytest.fixture(scope="session")
def weights_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture
def trunk(weights_folder):
    """Return a function from a trunk's name to a fresh copy of it."""
    import copy
    from dataclasses import replace

    def fresh(name: str = "resnet18") -> LoadedTrunk:
        held = _loaded(name, weights_folder)
        return replace(held, module=copy.deepcopy(held.module))

    return fresh


def crops(count: int, side: int = 64, seed: int = 0) -> torch.Tensor:
    """Return random uint8 crops [count, 3, side, side]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
