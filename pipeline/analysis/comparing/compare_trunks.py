"""Several trunks, layers and poolings on the same images: how good, how fast, how large."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.analysis.comparing.feature_cost import measure
from pipeline.analysis.comparing.results import Race, Result, draw_results, marked
from pipeline.analysis.options import CompareOptions, Contender
from pipeline.errors import PipelineError
from pipeline.extraction.extract import Extraction, extract_tables
from pipeline.extraction.options import DEFAULT_TRUNK
from pipeline.extraction.plan import feature_key
from pipeline.extraction.scan import gather
from pipeline.heads import fit_head
from pipeline.heads.leaderboard import rank_heads
from pipeline.heads.options import FitHeadOptions
from pipeline.images.datasets.given import AnyData, Data, as_data
from pipeline.plotting import PICTURE
from pipeline.progress import Progress, Silent
from pipeline.store.atomic import make_folder
from pipeline.store.cache import Cache
from pipeline.store.outputs import DRAWN, output_path
from pipeline.trunks import permitted, spec
from pipeline.trunks.spec import FeatureKey

if TYPE_CHECKING:
    from pipeline.trunks.registry import LoadedTrunk


def compare_trunks(
    data: AnyData = None,
    *,
    trunks: str | Sequence[str] = DEFAULT_TRUNK,
    layers: str | Sequence[str] | None = None,
    pools: str | Sequence[str] | None = None,
    clf: str | Sequence[str] = "linear",
    folds: int = 5,
    image_size: int | None = None,
    precision: str = "auto",
    device: str = "auto",
    engine: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    jobs: int | None = None,
    seed: int = 0,
    output: str | Path | None = None,
    cache: str | Path | None = None,
) -> Race:
    """Compare trunks, layers and poolings on the same images, by accuracy and cost.

    Args:
        data: as in `pipeline.extract`.
        trunks: names with commas, each perhaps with its weights: `resnet18:random`; one's own as
            `module:function`, or as `own_trunk` names it.
        layers: with commas; several side by side joined by `+`; `own` for the trunk's own
            feature. None for that alone.
        pools: with commas; None for each layer's own.
        clf: heads, as `fit_head` has it; the best by selection counts.
        folds: of the cross-validation, at least 2.
        image_size: side of the input in pixels; None for the weights' own.
        precision: `auto`, `fp32`, `tf32`, `bf16` or `fp16`.
        device: `auto`, `cpu`, `cuda` or `mps`.
        engine: `auto`, `torch`, `compiled` or `openvino`.
        batch_size: images at once; None for the device's default.
        workers: decoding threads; None for the cores that the process may use.
        jobs: processes that fit heads; None for all cores.
        seed: of automatic splits, folds and estimators, from 0.
        output: PNG to draw; `comparisons/<name>.png` in the cache without it.
        cache: the cache's folder; else `$PIPELINE_CACHE`, else `./cache`.

    Returns:
        The results, the fastest first, and what failed.

    Raises:
        UsageError: an option that cannot be right; a `ValueError` too.
        PipelineError: nothing could be compared.

    Example:
        >>> import pipeline
        >>> race = pipeline.compare_trunks("digits", layers="layer3,own")  # doctest: +SKIP
        >>> race.results[0].accuracy  # doctest: +SKIP
    """
    return race(as_data(data), CompareOptions.of(locals()), Cache.at(cache))[0]


def race(
    data: Data, options: CompareOptions, cache: Cache, progress: Progress | None = None
) -> tuple[Race, Path]:
    """Do what `compare_trunks` does, and return where the picture is too.

    A contender that fails is left out and told at the end.
    """
    began = time.monotonic()
    progress = progress or Silent()
    options.check()
    if options.output is not None:
        output_path(options.output, mark=DRAWN, what=PICTURE)
    contenders = options.contenders()
    for one in contenders:
        permitted.permit(one.trunk)
    options.extraction(contenders[0]).check()
    make_folder(cache.root)
    running = _Running(data, options, cache, progress)
    for trunk in dict.fromkeys((one.trunk, one.weights) for one in contenders):
        running.trunk([one for one in contenders if (one.trunk, one.weights) == trunk])
    if not running.results:
        raise PipelineError(" ".join(dict.fromkeys(running.failed.values())))
    done = Race(
        results=tuple(sorted(marked(running.results), key=lambda one: one.cost.milliseconds)),
        failed=running.failed,
        notes=tuple(dict.fromkeys(running.notes)),
        extracted=running.extracted,
        name=running.images.name,
        seconds=time.monotonic() - began,
    )
    place = Path(options.output or cache.root / "comparisons" / f"{done.name}.png")
    draw_results(place, done.results)
    return done, place


class _Running:
    """The contenders so far: results, failures, and what a person should know."""

    def __init__(self, data: Data, options: CompareOptions, cache: Cache, progress: Progress):
        self.data, self.options, self.cache, self.progress = data, options, cache, progress
        self.images = gather(data, options.extraction(options.contenders()[0]), cache, progress)
        self.results: list[Result] = []
        self.failed: dict[str, str] = {}
        self.notes: list[str] = []
        self.extracted = 0

    def trunk(self, contenders: Sequence[Contender]) -> None:
        """Add what comes of all contenders of one trunk and its weights."""
        from pipeline.trunks import registry

        first, weights = self.options.extraction(contenders[0]), self.cache.weights
        try:
            facts, loaded = spec.resolve(
                first.trunk, first.weights, first.keys, size=first.image_size,
                memo=self.cache.memo, state_dir=weights,
            )  # fmt: skip
            trunk = loaded or registry.load(
                first.trunk, first.weights, keys=first.keys, size=first.image_size,
                state_dir=weights,
            )  # fmt: skip
        except PipelineError as error:
            self._fail(contenders, error)
            return
        fit = []
        for one in contenders:
            try:
                feature_key(facts, self.options.extraction(one))
                fit.append(one)
            except PipelineError as error:
                self._fail([one], error)
        for one, done in self._extracted(fit, facts, trunk):
            self.notes += done.notes
            try:
                self._add(one, done, trunk)
            except PipelineError as error:
                self._fail([one], error)

    def _extracted(
        self, contenders: list[Contender], facts: spec.TrunkFacts, trunk: LoadedTrunk
    ) -> list[tuple[Contender, Extraction]]:
        """Return the tables of one trunk, from one pass; where that fails, from one pass each."""
        if not contenders:
            return []
        try:
            done = extract_tables(
                self.data, [self.options.extraction(one) for one in contenders], self.cache,
                self.progress, gathered=self.images, facts=facts, trunk=trunk,
            )  # fmt: skip
        except PipelineError as error:
            if len(contenders) > 1:
                parts = (self._extracted([one], facts, trunk) for one in contenders)
                return [pair for part in parts for pair in part]
            self._fail(contenders, error)
            return []
        self.extracted += max(one.extracted for one in done)
        return list(zip(contenders, done, strict=True))

    def _add(self, contender: Contender, done: Extraction, trunk: LoadedTrunk) -> None:
        asked, title = self.options, contender.title
        heads = FitHeadOptions(clf=asked.clf, folds=asked.folds, jobs=asked.jobs, seed=asked.seed)
        fitted = fit_head.fit_heads(done.table, heads, self.cache, self.progress)
        self.failed |= {f"{title} {name}": reason for name, reason in fitted.failed.items()}
        best = rank_heads([head.info for head in fitted.heads], done.table.table_id)[0].info
        self.progress.start("measuring", 0)
        key = FeatureKey.of(done.table.provenance)
        price = measure(trunk, key, asked.extraction(contender), self.cache)
        self.results.append(Result(contender, done.table, best, price))
        accuracy = "untried" if best.score is None else f"{best.score:.3f}"
        self.progress.say(
            f"{title}: {best.clf} {accuracy} on folds of train, "
            f"{price.milliseconds:.2f} ms an image"
        )

    def _fail(self, contenders: Sequence[Contender], error: PipelineError) -> None:
        for one in contenders:
            self.failed[one.title] = str(error)
            self.progress.say(f"{one.title}: left out. {error}")
