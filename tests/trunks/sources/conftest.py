from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import shufflenet_v2_x0_5
from weights_files import loaded, saved


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(3)
    return shufflenet_v2_x0_5().eval()


@pytest.fixture(scope="module")
def own_digest(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> str:
    return loaded(
        saved(tmp_path_factory.mktemp("own") / "a.pth", model.state_dict())
    ).weights_digest
