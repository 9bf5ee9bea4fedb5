"""Several trunks, layers and poolings on the same images: how good, how fast, how large."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache as once
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.analysis.comparing.contenders import CompareRecipe, Contender
from pipeline.analysis.comparing.feature_cost import Cost, cost
from pipeline.errors import PipelineError
from pipeline.extraction.extract import Extraction, extract_tables
from pipeline.extraction.plan import feature_key
from pipeline.extraction.scan import gather
from pipeline.heads import fit_head
from pipeline.heads.leaderboard import leaderboard
from pipeline.heads.metrics import wilson
from pipeline.heads.options import HeadRecipe
from pipeline.options import from_options
from pipeline.progress import Progress, Silent
from pipeline.store.cache import Cache
from pipeline.store.table import FeatureTable
from pipeline.trunks import spec
from pipeline.trunks.spec import FeatureKey

if TYPE_CHECKING:
    from pipeline.trunks.registry import LoadedTrunk


@dataclass(frozen=True, eq=False)
class Result:
    """What came of one contender.

    Attributes:
        contender: trunk, weights, layer and pooling.
        table: of its features.
        head: `head.json` of the best of its heads.
        cost: of one image.
        front: whether no other is both as fast and as good, one of the two strictly.
    """

    contender: Contender
    table: FeatureTable
    head: dict[str, Any]
    cost: Cost
    front: bool = False

    @property
    def accuracy(self) -> float | None:
        """Return the cross-validated accuracy on the training images; None where untried."""
        score = self.head["score"]
        return None if score is None else float(score)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Return the 95% Wilson interval of `accuracy`."""
        if self.accuracy is None:
            return None
        images = int(self.head["train_images"])
        return wilson(round(self.accuracy * images), images)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        facts = self.table.provenance
        return {
            "title": self.contender.title,
            "trunk": facts["trunk"],
            "weights": facts["weights"],
            "layer": facts["layer"],
            "pool": facts["pool"],
            "dim": int(self.table.features.shape[1]),
            "precision": facts["precision"],
            "table": str(self.table.path),
            "table_id": self.table.table_id,
            "head": self.head["id"],
            "clf": self.head["clf"],
            "parameters": self.head["parameters"],
            "accuracy": self.accuracy,
            "interval": self.interval,
            "metrics": {
                split: {name: values[name] for name in ("images", "accuracy", "interval")}
                for split, values in self.head["metrics"].items()
            },
            **self.cost.to_json(),
            "front": self.front,
        }


@dataclass(frozen=True, eq=False)
class Race:
    """What `compare` found.

    Attributes:
        results: the fastest first.
        failed: a contender's title to the reason why there is no result of it.
        notes: sentences for the person.
        extracted: images that went through a trunk in this run, counted for each pass.
        name: of the data.
        seconds: of the whole run.
    """

    results: tuple[Result, ...]
    failed: dict[str, str]
    notes: tuple[str, ...]
    extracted: int
    name: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "results": [result.to_json() for result in self.results],
            "failed": self.failed,
            "notes": list(self.notes),
            "extracted": self.extracted,
            "seconds": round(self.seconds, 3),
        }


def compare_trunks(
    data: str | Path | None = None, *, cache: str | Path | None = None, **options: Any
) -> Race:
    """Compare trunks, layers and poolings on the same images, by accuracy and cost.

    Args:
        data: as in `pipeline.extract`.
        cache: the cache's folder; else `$PIPELINE_CACHE`, else `./cache`.
        **options: any field of `CompareRecipe`, by name: `trunks`, `layers`, `pools`, `clf`, …

    Raises:
        PipelineError: nothing could be compared.

    Example:
        >>> import pipeline
        >>> race = pipeline.compare_trunks("digits", layers="layer3,own")  # doctest: +SKIP
        >>> race.results[0].accuracy  # doctest: +SKIP
    """
    recipe = from_options(CompareRecipe, options, verb="compare_trunks")
    return run(data, recipe, Cache.at(cache))


def run(
    data: str | Path | None, recipe: CompareRecipe, cache: Cache, progress: Progress | None = None
) -> Race:
    """Do what `compare_trunks` does; what fails is left out and told at the end."""
    began = time.monotonic()
    progress = progress or Silent()
    contenders = recipe.contenders()
    gathered = gather(data, recipe.recipe(contenders[0]), cache, progress)
    race = _Running(data, recipe, cache, progress, gathered)
    for trunk in dict.fromkeys((one.trunk, one.weights) for one in contenders):
        race.trunk([one for one in contenders if (one.trunk, one.weights) == trunk])
    if not race.results:
        raise PipelineError(" ".join(dict.fromkeys(race.failed.values())))
    return Race(
        results=tuple(sorted(marked(race.results), key=lambda one: one.cost.milliseconds)),
        failed=race.failed,
        notes=tuple(dict.fromkeys(race.notes)),
        extracted=race.extracted,
        name=gathered.name,
        seconds=time.monotonic() - began,
    )


class _Running:
    """The contenders so far: results, failures, and what a person should know."""

    def __init__(
        self, data: str | Path | None, recipe: CompareRecipe, cache: Cache, progress: Progress,
        gathered: Any,
    ):  # fmt: skip
        self.data, self.recipe, self.cache = data, recipe, cache
        self.progress, self.gathered = progress, gathered
        self.results: list[Result] = []
        self.failed: dict[str, str] = {}
        self.notes: list[str] = []
        self.extracted = 0

    def trunk(self, contenders: Sequence[Contender]) -> None:
        """Add what comes of all contenders of one trunk and its weights."""
        first, cache = self.recipe.recipe(contenders[0]), self.cache
        try:
            facts, loaded = spec.resolve(
                first.trunk, first.weights, first.keys, memo=cache.memo, state_dir=cache.weights
            )
        except PipelineError as error:
            self._fail(contenders, error)
            return

        @once
        def load() -> LoadedTrunk:
            from pipeline.trunks import registry

            return loaded or registry.load(
                first.trunk, first.weights, keys=first.keys, state_dir=cache.weights
            )

        fit = []
        for one in contenders:
            try:
                feature_key(facts, self.recipe.recipe(one))
                fit.append(one)
            except PipelineError as error:
                self._fail([one], error)
        for one, done in self._extracted(fit, facts, loaded):
            self.notes += done.notes
            try:
                self._add(one, done, load)
            except PipelineError as error:
                self._fail([one], error)

    def _extracted(
        self, contenders: list[Contender], facts: spec.TrunkFacts, loaded: LoadedTrunk | None
    ) -> list[tuple[Contender, Extraction]]:
        """Return the tables of one trunk, from one pass; where that fails, from one pass each."""
        if not contenders:
            return []
        try:
            done = extract_tables(
                self.data, [self.recipe.recipe(one) for one in contenders], self.cache,
                self.progress, gathered=self.gathered, facts=facts, trunk=loaded,
            )  # fmt: skip
        except PipelineError as error:
            if len(contenders) > 1:
                parts = (self._extracted([one], facts, loaded) for one in contenders)
                return [pair for part in parts for pair in part]
            self._fail(contenders, error)
            return []
        self.extracted += max(one.extracted for one in done)
        return list(zip(contenders, done, strict=True))

    def _add(self, contender: Contender, done: Extraction, load: Any) -> None:
        heads = HeadRecipe(
            clf=self.recipe.clf, folds=self.recipe.folds, jobs=self.recipe.jobs,
            seed=self.recipe.seed,
        )  # fmt: skip
        fitted = fit_head.run(done.table, heads, self.cache, self.progress)
        for name, reason in fitted.failed.items():
            self.failed[f"{contender.title} {name}"] = reason
        best = leaderboard([head.info for head in fitted.heads], done.table.table_id)[0]
        self.progress.start("measuring", 0)
        key = FeatureKey.of(done.table.provenance)
        price = cost(self.cache, key, self.recipe.recipe(contender), load)
        result = Result(contender, done.table, best, price)
        self.results.append(result)
        accuracy = "untried" if result.accuracy is None else f"{result.accuracy:.3f}"
        self.progress.say(
            f"{contender.title}: {best['clf']} {accuracy} on folds of train, "
            f"{price.milliseconds:.2f} ms an image"
        )

    def _fail(self, contenders: Sequence[Contender], error: PipelineError) -> None:
        for one in contenders:
            self.failed[one.title] = str(error)
            self.progress.say(f"{one.title}: left out. {error}")


def marked(results: Sequence[Result]) -> list[Result]:
    """Return the results with the Pareto front of milliseconds and accuracy marked."""
    tried = [one for one in results if one.accuracy is not None]
    return [replace(one, front=one in tried and not _beaten(one, tried)) for one in results]


def _beaten(one: Result, others: Sequence[Result]) -> bool:
    here = -one.cost.milliseconds, one.accuracy or 0.0
    there = ((-other.cost.milliseconds, other.accuracy or 0.0) for other in others)
    return any(pair != here and pair[0] >= here[0] and pair[1] >= here[1] for pair in there)
