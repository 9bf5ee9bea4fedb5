"""Where and how precisely to compute: what `auto` means on this machine."""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline.errors import UsageError

DEVICES = ("cpu", "cuda", "mps")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(asked: str) -> str:
    """Return the device that `auto` means here, or the one asked for if it is there.

    Raises:
        UsageError: the device is unknown or not available.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if asked == "auto":
        return next(name for name, available in there.items() if available)
    if asked not in there:
        raise UsageError(f"'{asked}' is not a device: auto, {', '.join(DEVICES)}.")
    if not there[asked]:
        found = ", ".join(name for name, available in there.items() if available)
        raise UsageError(f"This machine (or this build of torch) has no {asked}; it has {found}.")
    return asked


def choose_precision(asked: str, device: str) -> str:
    """Return the precision that `auto` means for a new store on this device.

    bf16 where the hardware computes in it (AMX or AVX512-BF16, CUDA from compute capability 8),
    else fp32.
    """
    if asked == "fp16" and device == "cpu":
        raise UsageError("fp16 needs a GPU; on a CPU give --precision bf16, fp32 or auto.")
    if asked != "auto":
        return asked
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device == "cpu" and cpu_has_bf16() else "fp32"


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Say whether this CPU multiplies bfloat16 in hardware."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return False  # not Linux: nothing is known, fp32 is right everywhere
    flags = set(text.split())
    return bool(flags & {"amx_bf16", "avx512_bf16", "bf16"})
