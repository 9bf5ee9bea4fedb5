"""Where parts of a plan are computed: in this process, in several, or by the workers of Dask."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.extraction.compute import compute_parts
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.plan import Done, Part, Plan
from pipeline.extraction.spread.on_dask import on_dask
from pipeline.extraction.spread.processes import in_processes
from pipeline.progress import Progress
from pipeline.store.cache import Cache
from pipeline.trunks import permitted
from pipeline.trunks.engines.devices import choose_device

if TYPE_CHECKING:
    from pipeline.trunks.registry import LoadedTrunk


def compute_anywhere(
    plan: Plan,
    parts: Iterable[Part],
    cache: Cache,
    options: ExtractOptions,
    progress: Progress,
    *,
    trunk: LoadedTrunk | None = None,
    total: int | None = None,
) -> Generator[Done]:
    """Do what `compute_parts` does, in as many processes as the options say.

    Without a word of theirs it is this one, or one for each GPU where there are several.
    """
    gpus = _gpus(options)
    if options.on is not None:
        return on_dask(plan, parts, cache, options, progress, gpus=gpus)
    count = options.processes or max(1, len(gpus))
    if count > 1:
        taken = [*parts]
        if len(taken) > 1:
            return in_processes(
                plan, taken, cache, options, progress, count=min(count, len(taken)), gpus=gpus
            )
        parts, options = taken, replace(options, processes=None)
    return compute_parts(plan, parts, cache, options, progress, trunk=trunk, total=total)


def _gpus(options: ExtractOptions) -> list[str]:
    """Return the GPUs of CUDA that may be used, as `CUDA_VISIBLE_DEVICES` has them."""
    if choose_device(options.device) != "cuda" or options.trunk.startswith(permitted.PREFIX):
        return []
    import torch

    known = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in known.split(",") if name.strip()]
    return (names or [str(at) for at in range(torch.cuda.device_count())])[
        : torch.cuda.device_count()
    ]
