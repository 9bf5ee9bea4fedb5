"""How a GPU multiplies float32: IEEE products, or TF32's, which keep ten bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Compute the block's float32 products on CUDA in IEEE arithmetic, or in TF32 for `tf32`.

    torch's flags are as before when it ends. From torch 2.9 on the flags are `fp32_precision`; to
    read the older `allow_tf32` where a program set the newer ones is an error there.
    """
    cuda: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    if hasattr(getattr(cudnn, "conv", None), "fp32_precision"):
        flags, value = [(cuda, "fp32_precision"), (cudnn.conv, "fp32_precision")], "ieee"
        wanted: Any = "tf32" if precision == "tf32" else value
    else:
        flags, wanted = [(cuda, "allow_tf32"), (cudnn, "allow_tf32")], precision == "tf32"
    level = torch.get_float32_matmul_precision() if isinstance(wanted, bool) else None
    before = [getattr(where, name) for where, name in flags]
    try:
        for where, name in flags:
            setattr(where, name, wanted)
        yield
    finally:
        for (where, name), old in zip(flags, before, strict=True):
            setattr(where, name, old)
        if level is not None:  # which allow_tf32 sets too, to one of two of its three values
            torch.set_float32_matmul_precision(level)
