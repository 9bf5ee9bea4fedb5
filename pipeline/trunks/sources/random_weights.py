"""Random weights that pass signals: seeded, with BatchNorm calibrated on seeded noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.store import atomic
from pipeline.trunks.sources.weights import digest

SEED = 0
_IMAGES = 8
#: Least standard deviation over inputs, relative to the largest feature, that tells images apart.
_LEAST_SPREAD = 1e-3


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block under a seed, and leave torch's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def noise(count: int, side: int) -> Tensor:
    """Return seeded noise [count, 3, side, side] with as much in each octave, as photos have.

    White noise would not do: what averages over pixels would see nothing, and give photos values
    far from those that it was calibrated for (Field 1987: natural images have amplitude 1/f).
    """
    generator = torch.Generator().manual_seed(SEED)
    total = torch.zeros(count, 3, side, side)
    octave = 1
    while octave <= side:
        grid = torch.randn(count, 3, octave, octave, generator=generator)
        total += F.interpolate(grid, size=(side, side), mode="bilinear", align_corners=False)
        octave *= 2
    return (total - total.mean()) / total.std()


@torch.no_grad()
def calibrate(trunk: nn.Module, *, side: int) -> None:
    """Set every running statistic to those of seeded noise, in one forward pass.

    The pass has one thread: sums over parts depend on how many threads share them, and weights
    that are made again, on fewer cores or in another cache, are to be the same.

    Where there are none, convolutions and linear layers get He's initialisation (He et al. 2015,
    "Delving Deep into Rectifiers") instead: torch's own lets the signal of a deep network without
    normalisation (AlexNet) shrink until little but the biases is left. Transformers, whose norms
    keep no statistics, keep their library's own, with every layer scale at 1: as small as it
    starts in training, a class token would hardly see the image.

    Args:
        trunk: freshly initialised, in eval mode; left in eval mode.
        side: of the weights' own input, in pixels.
    """
    norms = [m for m in trunk.modules() if isinstance(getattr(m, "running_var", None), Tensor)]
    if not norms:
        if getattr(trunk, "prefix", None) is not None:
            _open_scales(trunk)
            return
        with seeded(SEED):
            _he(trunk)
        return
    momenta = [getattr(norm, "momentum", None) for norm in norms]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for norm in norms:
        norm.train()
        setattr(norm, "momentum", 1.0)  # noqa: B010  the statistics of this one batch
    try:
        trunk(noise(_IMAGES, side))
    finally:
        torch.set_num_threads(threads)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.eval()
            setattr(norm, "momentum", momentum)  # noqa: B010  mypy takes it for a Tensor


def _open_scales(trunk: nn.Module) -> None:
    for name, parameter in trunk.named_parameters():
        if parameter.ndim == 1 and "gamma" in name.rpartition(".")[2]:
            nn.init.ones_(parameter)


def _he(trunk: nn.Module) -> None:
    for module in trunk.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def tell_images_apart(features: Tensor) -> bool:
    """Return whether features [N, D] are finite and differ between images."""
    spread = features.std(0).max() / features.abs().max().clamp_min(1e-30)
    return bool(features.isfinite().all() and spread > _LEAST_SPREAD)


def load_or_make(path: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors kept at `path`, made first where they are missing or damaged.

    They are kept where the folder of that folder, the cache, is there.

    Args:
        path: a safetensors file that carries its own digest.
        make: gives the tensors by name.

    Raises:
        PipelineError: they could not be written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            promised = (file.metadata() or {}).get("digest")
        tensors = load_file(path)
        if digest(tensors) == promised:
            return tensors
    except (SafetensorError, FileNotFoundError):
        pass  # made again below
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in make().items()}
    if path.parent.parent.is_dir():  # a command that only reads makes no cache
        data = save(tensors, metadata={"digest": digest(tensors)})
        atomic.write_bytes(path, data, what="the random weights")
    return tensors
