"""How many images a GPU takes at once: found on noise before a run's first row, and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pipeline.extraction import engines
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.plan import Parts, Plan
from pipeline.store.cache import Cache

#: A batch of twice the size is taken where it is faster by this, up to so many images.
GAIN, MOST = 1.05, 1024
#: Batches below which the images of a run are too few to look for a size.
WORTH = 64


def settled(
    plan: Plan, cache: Cache, options: ExtractOptions, make_engine: Callable[[], Any]
) -> Plan:
    """Return a plan in batches of the size that computes fastest here.

    Only on CUDA, where none was asked for and the images are many. A run that was killed goes on
    with the size that it had found, since another one may round otherwise.

    Args:
        plan: of this process alone.
        cache: whose manifest of the run keeps the size.
        options: of the run.
        make_engine: returns the engine of the plan; called where a size has to be found.
    """
    key, parts = plan.rows[0].key, plan.parts
    if options.batch_size is not None or not engines.batches_of(key, options).pinned:
        return plan
    runs = [(rows.key.fingerprint, plan.wanted) for rows in plan.rows]
    size = next(filter(None, (cache.batch_size(*run) for run in runs)), None)
    if size is None and len(parts.keys) >= WORTH * parts.batch_size:
        size = fastest(make_engine().rate, parts.batch_size)
        for run in runs:
            cache.begin_run(*run, batch_size=size)
    if size in (None, parts.batch_size):
        return plan
    return replace(plan, parts=Parts(parts.keys, parts.sources, batch_size=size))


def fastest(rate: Callable[[int], float], size: int) -> int:
    """Return the size from which on twice as many images at once bring less than `GAIN`.

    Args:
        rate: images a second in batches of a size; 0 where these do not fit the memory.
        size: to begin with.
    """
    before = rate(size)
    while before and 2 * size <= MOST and (twice := rate(2 * size)) >= GAIN * before:
        size, before = 2 * size, twice
    return size
