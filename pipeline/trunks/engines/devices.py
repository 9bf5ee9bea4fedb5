"""Where and how precisely to compute: what `auto` means on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.errors import UsageError

DEVICES = ("cpu", "cuda", "mps")
#: Without one of these, Linux has no GPU that torch could use.
_GPUS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd", "/dev/nvmap")


def choose_device(asked: str) -> str:
    """Return the device that `auto` means here, or the one asked for if it is there.

    Raises:
        UsageError: the device is unknown or not available.
    """
    if asked not in ("auto", *DEVICES):
        raise UsageError(f"'{asked}' is not a device: auto, {', '.join(DEVICES)}.")
    if asked == "cpu" or (asked == "auto" and _surely_none()):
        return "cpu"
    import torch

    usable = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    names = [name for name, available in usable.items() if available]
    if asked != "auto" and asked not in names:
        raise UsageError(
            f"This machine (or this build of torch) has no {asked}; it has {', '.join(names)}."
        )
    return names[0] if asked == "auto" else asked


def _surely_none() -> bool:
    """Say whether there is no GPU, without torch, which takes a second to import."""
    return (
        "torch" not in sys.modules
        and sys.platform == "linux"
        and not any(Path(node).exists() for node in _GPUS)
    )


def choose_precision(asked: str, device: str) -> str:
    """Return the precision that `auto` means for a new store on this device.

    bf16 where the hardware computes in it (AMX or AVX512-BF16, CUDA from compute capability 8),
    else fp32.
    """
    if asked == "fp16" and device == "cpu":
        raise UsageError("fp16 needs a GPU; on a CPU give --precision bf16, fp32 or auto.")
    if asked == "tf32" and device != "cuda":
        raise UsageError("tf32 needs an NVIDIA GPU; give --precision fp32 or auto.")
    if asked != "auto":
        return asked
    if device == "cuda":
        import torch

        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device == "cpu" and cpu_has_bf16() else "fp32"


def likely_precision(asked_device: str) -> str:
    """Return what `auto` most likely is here, without torch: a GPU is taken for a recent one."""
    gpu = asked_device != "cpu" and any(Path(node).exists() for node in _GPUS)
    return "bf16" if gpu or cpu_has_bf16() else "fp32"


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Say whether this CPU multiplies bfloat16 in hardware."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return False  # not Linux: nothing is known, fp32 is right everywhere
    flags = set(text.split())
    return bool(flags & {"amx_bf16", "avx512_bf16", "bf16"})
