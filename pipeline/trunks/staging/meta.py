"""Networks without memory: built on the meta device, for their shapes."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class Weightless(TorchFunctionMode):
    """Makes parameters without memory, and leaves the arithmetic of builders alone.

    `torch.device("meta")` would also take the small tensors that RegNet's widths are computed of.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Send what allocates to the meta device."""
        kwargs = dict(kwargs or {})
        if func in (torch.empty, torch.zeros, torch.ones) and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)
