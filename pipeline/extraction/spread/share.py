"""`extract_part`: one of several processes that compute the rows of a data set, on any hosts.

Each computes a share of the parts of a plan that is the same for all of them, without a lock and
without talking to the others. `extract` then assembles the table, and computes what is missing.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.arguments import named
from pipeline.errors import UsageError
from pipeline.extraction import engines
from pipeline.extraction.compute import check_there
from pipeline.extraction.extract import prepare
from pipeline.extraction.options import DEFAULT_TRUNK, ExtractOptions
from pipeline.extraction.plan import Part, Rows, feature_key, find_rows, make_plan
from pipeline.extraction.spread.anywhere import compute_anywhere
from pipeline.extraction.spread.plan_file import PlanFile
from pipeline.extraction.wanted import WantedImages
from pipeline.images.datasets.given import AnyData, Data, as_data
from pipeline.images.views import CLASSIC
from pipeline.progress import Progress, Silent
from pipeline.store.cache import Cache
from pipeline.store.shards import Key, Keys

if TYPE_CHECKING:
    from pipeline.trunks.registry import LoadedTrunk

#: What tells a process which of several it is: number, how many there are, the first number, and
#: the step from one to the next.
_SCHEDULERS = {
    "a Slurm array": (
        "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN",
        "SLURM_ARRAY_TASK_STEP",
    ),
    "torchrun": ("RANK", "WORLD_SIZE", "", ""),
}  # fmt: skip


@dataclass(frozen=True)
class Share:
    """Which of several processes this one is. Two are equal when both numbers are.

    Attributes:
        number: from 1.
        of: how many there are.
    """

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def asked(cls, part: Any, environment: Mapping[str, str] = os.environ) -> Share:
        """Return the share that `2/8` or `auto` means.

        Args:
            part: as a person gave it.
            environment: what `auto` reads: that of a Slurm array, or of torchrun.

        Raises:
            UsageError: it means none.
        """
        text = part if isinstance(part, str) else ""
        if text == "auto":
            return cls._of_scheduler(environment)
        found = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(
                f"--part {named(part)} is not one of 1/N … N/N, such as 2/8, and not auto, which "
                "reads them from a Slurm array or torchrun."
            )
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def _of_scheduler(cls, environment: Mapping[str, str]) -> Share:
        there = {
            name: variables for name, variables in _SCHEDULERS.items()
            if all(variable in environment for variable in variables[:2])
        }  # fmt: skip
        if len(there) != 1:
            names = " and ".join(there) or "neither a Slurm array nor torchrun"
            raise UsageError(f"--part auto: this process is started by {names}. Give --part I/N.")
        ((name, variables),) = there.items()
        try:
            number, count, first, step = (
                int(environment.get(variable, default))
                for variable, default in zip(variables, ("", "", "0", "1"), strict=True)
            )
        except ValueError as error:
            raise UsageError(f"--part auto: {', '.join(variables[:2])}: {error}.") from error
        at, rest = divmod(number - first, max(1, step))
        if rest or not 0 <= at < count:
            raise UsageError(
                f"--part auto: {variables[0]}={number} is none of the {count} numbers of {name} "
                "that follow each other. Give --part I/N."
            )
        return cls(at + 1, count)

    def numbers(self, count: int) -> list[int]:
        """Return the numbers of its parts among `count`, in random order.

        A second process of the same share then does other parts first.
        """
        own = [*range(self.number - 1, count, self.of)]
        random.SystemRandom().shuffle(own)
        return own


@dataclass(frozen=True)
class PartsDone:
    """What `extract_part` did.

    Attributes:
        part: which share, such as `2/8`.
        fingerprint: of the rows.
        parts: of the whole plan; none where every row was there.
        share: of these, the parts of this share.
        done: of these, the parts that this run computed.
        images: images and views that this run computed.
        bad: path and reason of every image that this run could not decode.
        notes: sentences for the person.
        seconds: of the whole run.
        images_per_second: over the seconds that computing took.
    """

    part: str
    fingerprint: str
    parts: int
    share: int
    done: int
    images: int
    bad: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    seconds: float
    images_per_second: float

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            **vars(self),
            "bad": [{"path": path, "reason": reason} for path, reason in self.bad],
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 2),
        }


def extract_part(
    data: AnyData = None,
    part: str = "auto",
    *,
    trunk: str = DEFAULT_TRUNK,
    weights: str | Path = "default",
    keys: str = "name",
    layer: str | Sequence[str] | None = None,
    pool: str | None = None,
    views: int = 0,
    augment: str = CLASSIC,
    image_size: int | None = None,
    precision: str = "auto",
    dtype: str = "float32",
    device: str = "auto",
    engine: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    processes: int | None = None,
    on: str | None = None,
    name: str | None = None,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
    wait: bool = True,
    max_bad: int | None = None,
    rehash: bool = False,
    cache: str | Path | None = None,
) -> PartsDone:
    """Compute a share of the rows that `extract` needs, beside other processes on any hosts.

    They share the cache's folder and nothing else. `extract` with the same arguments makes the
    table when they have ended, and computes what is missing then.

    Args:
        data: as in `extract`, like the options.
        part: `2/8` for the second of eight shares; `auto` for that of a Slurm array or torchrun.
        trunk, weights, keys, layer, pool, views, augment, image_size, precision, dtype: as in
            `extract`; give the same to all, the precision too where their machines differ.
        device, engine, batch_size, workers, processes, max_bad, rehash: as in `extract`.
        on: cannot be given with a share.
        name, val_fraction, test_fraction, seed, wait: taken, so that the same arguments serve both;
            they change nothing here, except which images are of train where there are `views`.
        cache: a folder that all of them see; else `$PIPELINE_CACHE`, else `./cache`.

    Returns:
        What it did; `images` is how many it computed.

    Raises:
        UsageError: an option that cannot be right, or no share is meant; a `ValueError` too.
        PipelineError: there are no images, more are bad than `max_bad`, the weights cannot be had,
            or a file cannot be read or written.
    """
    share = Share.asked(part)
    options = ExtractOptions.of(locals())
    return compute_share(as_data(data), share, options, Cache.at(cache))


def compute_share(
    data: Data,
    share: Share,
    options: ExtractOptions,
    cache: Cache,
    progress: Progress | None = None,
) -> PartsDone:
    """Do what `extract_part` does and report on it."""
    began = time.monotonic()
    progress = progress or Silent()
    if options.on is not None:
        raise UsageError("--part is for processes that know nothing of each other: leave --on out.")
    facts, trunk, gathered = prepare(data, options, cache, progress)
    wanted = WantedImages(gathered, options.max_bad)
    views = wanted.view_sources(None, options.view_numbers)
    asked, every = feature_key(facts, options), {**wanted.sources, **views}
    with cache.reading(asked.fingerprints, list(every)):
        rows = find_rows(cache, asked, list(every), device=options.device, engine=options.engine)
        parts = [
            _Sharing(share, rows, sources, options, cache).run(trunk, progress, wanted)
            for sources in (wanted.sources, views)
            if sources
        ]
    bad = [(str(every[key]), rows.index.bad[key]) for key in rows.computed if key in rows.index.bad]
    return PartsDone(
        part=str(share),
        fingerprint=rows.key.fingerprint,
        parts=sum(whole for whole, _, _ in parts),
        share=sum(own for _, own, _ in parts),
        done=sum(done for _, _, done in parts),
        images=len(rows.computed) - len(bad),
        bad=tuple(bad),
        notes=tuple(dict.fromkeys([*gathered.notes, *facts.notes, *rows.notes])),
        seconds=time.monotonic() - began,
        images_per_second=len(rows.computed) / rows.seconds if rows.seconds else 0.0,
    )


class _Sharing:
    """The share of one pass: over the images, or over their views.

    Args:
        share: which one.
        rows: what is there; completed in place by what this share computes.
        sources: (digest, view) to the path of each image that is wanted, in data set order.
        options: how to compute.
        cache: where rows and plans are kept.
    """

    def __init__(
        self,
        share: Share,
        rows: Rows,
        sources: Mapping[Key, str | bytes],
        options: ExtractOptions,
        cache: Cache,
    ):
        self.share, self.rows, self.sources = share, rows, sources
        self.options, self.cache = options, cache

    def run(
        self, trunk: LoadedTrunk | None, progress: Progress, wanted: WantedImages
    ) -> tuple[int, int, int]:
        """Compute what is not done; return the parts of the plan, of the share, and computed."""
        rows, keys = self.rows, tuple(self.sources)
        if self.options.rehash:
            for key in keys:
                rows.index.bad.pop(key, None)
        wanted.check(rows.index)
        every = Keys.of(keys)
        lacking = list(every.take(~rows.index.known(every)))
        if not lacking:
            return 0, 0, 0
        self.cache.begin_run(rows.key.fingerprint, keys)
        plan_file = self._plan_file(lacking)
        sources = dict(self.sources.items())
        paths = [sources[key] for key in plan_file.keys]
        plan = plan_file.plan(self.cache, paths, wanted=keys, index=rows.index)
        numbers = self.share.numbers(len(plan.parts))
        done, began = 0, time.monotonic()
        for one in compute_anywhere(
            plan, self._undone(plan_file, plan.parts, numbers), self.cache, self.options, progress,
            trunk=trunk, total=sum(len(plan.parts[number].keys) for number in numbers),
        ):  # fmt: skip
            plan_file.note(one)
            plan.enter(one)
            rows.computed += one.part.keys
            check_there(one.part, rows.index, self.sources)
            wanted.check(rows.index)
            done += 1
        rows.store.keep(rows.index)
        rows.notes += plan.rows[0].notes
        rows.seconds += time.monotonic() - began
        return len(plan.parts), len(numbers), done

    def _plan_file(self, lacking: list[Key]) -> PlanFile:
        """Return the plan of those who began before, where it holds all that is lacking."""
        size = self.options.batch_size
        for found in PlanFile.find(self.cache, self.rows, tuple(self.sources)):
            if set(lacking) <= set(found.keys) and size in (None, found.batch_size):
                return found
        rows = replace(self.rows, computed=lacking)
        batches = engines.batches_of(rows.key, self.options)
        plan = make_plan(self.cache, [rows], self.sources, batch_size=batches.size)
        return PlanFile.write(self.cache, plan)

    def _undone(
        self, plan_file: PlanFile, parts: Sequence[Part], numbers: Sequence[int]
    ) -> Iterator[Part]:
        """Yield the parts of the share that are not done when they are asked for."""
        for number in numbers:
            there = self.rows.index.known(parts[number].keys).all()
            if not there and plan_file.shards(number) is None:
                yield parts[number]
