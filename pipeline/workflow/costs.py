"""What each stage cost, and what the cache saved: from what was measured when it was computed."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.extraction.extract import Extraction
from pipeline.finetuning.finetune import Tuning
from pipeline.heads.fit_head import Fitting
from pipeline.store import costs
from pipeline.store.cache import Cache


@dataclass(frozen=True)
class Cost:
    """What a stage cost in this run. A pass is one image through the trunk or its frozen part.

    Attributes:
        stage: `features`, `heads` or `fine-tuning`.
        seconds: that it took.
        passes: that it made.
        saved_passes: that it would have made besides, with nothing kept.
        saved_seconds: that these, and what was found fitted already, took when they were computed;
            None where that is not known.
    """

    stage: str
    seconds: float
    passes: int
    saved_passes: int
    saved_seconds: float | None


def of_features(done: Extraction, cache: Cache) -> Cost:
    """Return the cost of stage one: a pass for each image, saved for those reused."""
    saved = _seconds(cache, done.table.fingerprint, done.reused)
    return Cost("features", done.seconds, done.extracted, done.reused, saved)


def of_heads(done: Fitting) -> Cost:
    """Return the cost of stage two, which makes no pass: saved is the fitting of heads reused."""
    saved = sum(head.info.seconds for head in done.heads if head.id in done.reused)
    return Cost("heads", done.seconds, 0, 0, saved)


def of_tuning(done: Tuning, cache: Cache) -> Cost:
    """Return the cost of stage three.

    Without the cache the frozen part would run anew for every image in every epoch (`uses`).
    """
    info = done.info
    made = 0 if done.reused else costs.uses(info) if info.live else int(info.activations_computed)
    spared = costs.uses(info) - made
    saved = _seconds(cache, info.activations, spared)
    if done.reused and saved is not None:
        saved += sum(info.seconds[part] for part in ("head", "training", "evaluation"))
    if done.reused and saved is None:  # of its activations is known what its own run computed
        saved = sum(info.seconds.values())
    return Cost("fine-tuning", done.seconds, made, spared, saved)


def _seconds(cache: Cache, fingerprint: str, passes: int) -> float | None:
    """Return what passes took, by the mean of all that were ever computed for a fingerprint."""
    if not passes:
        return 0.0
    each = costs.rate(cache.memo, fingerprint)
    return None if each is None else each * passes
