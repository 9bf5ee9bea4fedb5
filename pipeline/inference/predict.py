"""From images to classes with probabilities, in a stream of bounded memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import PipelineError, UsageError
from pipeline.finetuning.predictor import Predictor
from pipeline.heads import resolve
from pipeline.images.datasets.picks import Pick, Picks
from pipeline.images.decoding.formats import EMPTY, NOT_AN_IMAGE, SUFFIXES
from pipeline.images.names import counted, joined, shown
from pipeline.inference import options
from pipeline.inference.logit_stream import check_cache, through_cache, through_trunk
from pipeline.inference.options import Means
from pipeline.inference.predictors import open_predictor
from pipeline.options import faults, from_options
from pipeline.progress import Progress, Silent
from pipeline.store.cache import Cache

TOP = 3
_LEAST = {"top": 1, **options.LEAST}


@dataclass(frozen=True, kw_only=True)
class PredictRecipe(Means):
    """The options of `predict`, besides those of `Means`. Equal recipes give equal predictions.

    Args:
        top: classes to give for each image; None for three.
        min_confidence: probability below which no class is predicted, in [0, 1]; None for never.
        calibration: divide logits by the temperature that was fitted on held-out images.
        use_cache: take features from the cache, and keep those that it lacks.
    """

    top: int | None = None
    min_confidence: float | None = None
    calibration: bool = True
    use_cache: bool = False

    def check(self) -> None:
        """Refuse values that cannot be right, all in one message.

        Raises:
            UsageError: what was given, what is allowed, the nearest name.
        """
        found = faults(self, least=_LEAST, allowed=options.ALLOWED)
        least = self.min_confidence
        if least is not None and not (math.isfinite(least) and 0 <= least <= 1):
            found.append(f"--min-confidence {least:g} is no probability from 0 to 1.")
        if found:
            raise UsageError(" ".join(found))


@dataclass(frozen=True)
class Prediction:
    """What is said of one image.

    Attributes:
        path: as it was given, or found.
        top: the likeliest classes with their probabilities, likeliest first; empty where the
            image could not be read.
        abstains: whether the likeliest is below `--min-confidence`.
        error: why the image could not be read; else empty.
    """

    path: str
    top: tuple[tuple[str, float], ...] = ()
    abstains: bool = False
    error: str = ""

    @property
    def prediction(self) -> str | None:
        """Return the likeliest class, None where it abstains or could not read the image."""
        return self.top[0][0] if self.top and not self.abstains else None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        if self.error:
            return {"path": self.path, "error": self.error}
        return {
            "path": self.path,
            "prediction": self.prediction,
            "confidence": self.top[0][1],
            "abstains": self.abstains,
            "top": [{"class": name, "probability": p} for name, p in self.top],
        }


@dataclass
class Tally:
    """What a run went through so far.

    Attributes:
        images: that were predicted.
        unreadable: that could not be read.
        abstained: of the images, below `--min-confidence`.
        skipped: files in folders that do not claim to be images and are none.
        reused: of the images, features that were in the cache.
        seconds: since it began.
    """

    images: int = 0
    unreadable: int = 0
    abstained: int = 0
    skipped: int = 0
    reused: int = 0
    seconds: float = 0.0


@dataclass
class Predicting:
    """A run of `predict`: iterate over it once.

    Attributes:
        predictor: that predicts.
        why: it was taken, where nobody named it.
        recipe: the options.
        picks: the images.
        cache: for `--use-cache`, and for what protects the run.
        progress: told what a person should know at once.
        tally: of what was gone through.
    """

    predictor: Predictor
    why: str
    recipe: PredictRecipe
    picks: Iterable[Pick]
    cache: Cache
    progress: Progress = field(default_factory=Silent)
    tally: Tally = field(default_factory=Tally)

    def __iter__(self) -> Iterator[Prediction]:
        """Yield a prediction for each image, in order, as batches are done.

        Raises:
            PipelineError: there was no image, or none that could be read.
        """
        began, tally = time.monotonic(), self.tally
        ahead, named = tee(self.picks)  # holds the few that are on their way
        paths = (pick.path for pick in ahead)
        through = through_cache if self.recipe.use_cache else through_trunk
        batches = through(self.predictor, paths, self.recipe, self.cache, self.progress)
        reasons: list[str] = []
        for batch in batches:
            chances = self.predictor.probabilities(batch.logits, calibrated=self.recipe.calibration)
            tally.reused += batch.reused
            for position, p in enumerate(chances):
                pick, error = next(named), batch.bad.get(position, "")
                tally.seconds = time.monotonic() - began
                if error and _is_stray(pick, error):
                    tally.skipped += 1
                    continue
                if error:
                    tally.unreadable += 1
                    if len(reasons) < 3:
                        reasons.append(f"{shown(pick.path)}: {error}")
                    yield Prediction(pick.path, error=error)
                else:
                    tally.images += 1
                    yield self._say(pick.path, p)
        if not tally.images:
            raise PipelineError(self._nothing(reasons))

    def _say(self, path: str, p: np.ndarray) -> Prediction:
        count = min(self.recipe.top or TOP, len(p))
        likeliest = np.argsort(-p, kind="stable")[:count]  # ties: the first class, as argmax does
        top = tuple((self.predictor.classes[k], float(p[k])) for k in likeliest.tolist())
        least = self.recipe.min_confidence
        abstains = least is not None and top[0][1] < least
        self.tally.abstained += abstains
        return Prediction(path, top, abstains)

    def _nothing(self, reasons: list[str]) -> str:
        tally = self.tally
        if tally.unreadable:
            more = tally.unreadable - len(reasons)
            also = f"; and {more:,} more" if more else ""
            listed = f"{'; '.join(reasons)}{also}"
            if tally.unreadable == 1:
                return f"The one image could not be read: {listed}."
            return f"None of {tally.unreadable:,} images could be read: {listed}."
        strays = f", and {counted(tally.skipped, 'file')} that are none" if tally.skipped else ""
        empty = getattr(self.picks, "empty", [])
        where = f" in {joined(empty)}" if empty else ""
        return f"There are no images{where}{strays}. Name files, folders or patterns of images."

    @property
    def notes(self) -> list[str]:
        """Return what the person should know, after the last image."""
        found, tally = [], self.tally
        if tally.skipped:
            found.append(f"Skipped in folders, being no images: {counted(tally.skipped, 'file')}.")
        if tally.images and (empty := getattr(self.picks, "empty", [])):
            found.append(f"There was nothing in {joined(empty)}.")
        return found


def _is_stray(pick: Pick, error: str) -> bool:
    """Tell whether a file beside images was never meant for one."""
    claims = Path(pick.path).suffix.lower() in SUFFIXES
    return pick.found and not claims and error in (NOT_AN_IMAGE, EMPTY)


def run(
    words: Sequence[str],
    recipe: PredictRecipe,
    cache: Cache,
    *,
    asked: Any = None,
    lines: Callable[[], Iterable[bytes]] = tuple,
    progress: Progress | None = None,
) -> Predicting:
    """Return a run over the images that words mean; it computes when it is iterated over.

    Args:
        words: images, after perhaps a head or model; see `artefacts.split` and `Picks`.
        recipe: the options.
        cache: where heads and models are.
        asked: the head or model; then all words are images.
        lines: of standard input, for `-`.
        progress: told what a person should know at once.
    """
    recipe.check()
    artefact = None
    if asked is None:
        artefact, words = resolve.split(cache, words)
    if not words:
        raise UsageError("No images. Name files, folders or patterns, or '-' for a list.")
    picks = Picks(words, lines, cache.data)
    artefact = artefact or resolve.find(cache, asked)
    predictor = open_predictor(artefact, cache)
    if recipe.use_cache:
        check_cache(predictor, recipe)
    return Predicting(predictor, artefact.why, recipe, picks, cache, progress or Silent())


def predict(
    images: Sequence[str | Path] | str | Path,
    artefact: Any = None,
    *,
    cache: str | Path | None = None,
    **options: Any,
) -> list[Prediction]:
    """Return what a head or model says of images.

    Args:
        images: files, folders or patterns.
        artefact: a `Head` or `Model`, its id or folder, a kind of head; the best of the current
            table without it.
        cache: the cache's folder; else `$PIPELINE_CACHE`, else `./cache`.
        **options: any field of `PredictRecipe`.

    Returns:
        One `Prediction` for each image, in order: `path`, `prediction`, `top`, `error`.

    Raises:
        PipelineError: with a sentence that says what to do.

    Example:
        >>> import pipeline
        >>> head = pipeline.fit_head(pipeline.extract("digits"), clf="logreg")
        >>> pipeline.predict("digits", head)[0].top  # doctest: +SKIP
    """
    recipe = from_options(PredictRecipe, options, verb="predict")
    words = [images] if isinstance(images, str | Path) else images
    store = Cache.at(cache)
    artefact = resolve.best(store) if artefact is None else artefact
    asked = artefact.folder if isinstance(artefact, resolve.Artefact) else artefact
    return list(run([str(word) for word in words], recipe, store, asked=asked))
