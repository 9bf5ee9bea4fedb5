"""From images to classes with probabilities, in a stream of bounded memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.arguments import plain
from pipeline.errors import PipelineError, UsageError
from pipeline.finetuning.model import Model, Predictor, open_predictor
from pipeline.heads import resolve
from pipeline.heads.head import Head
from pipeline.images.datasets.given import images_in
from pipeline.images.datasets.picks import Pick, Picks
from pipeline.images.decoding.formats import EMPTY, NOT_READ, Unread, claims
from pipeline.images.decoding.pictures import AnyImage
from pipeline.images.names import counted, joined, shown
from pipeline.images.remarks import Remarks
from pipeline.inference.bursts import bursts
from pipeline.inference.logit_stream import Scored, Through, check_cache
from pipeline.inference.options import PredictOptions
from pipeline.progress import Progress, Silent
from pipeline.store.cache import Cache

TOP = 3
#: Images of a list on standard input that are taken together at most.
BURST = 1024


@dataclass(frozen=True)
class Prediction:
    """What is predicted for one image.

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
        options: of `predict`.
        picks: the images.
        cache: for `--use-cache`, and for what protects the run.
        progress: told what a person should know at once.
        tally: of what was gone through.
        unread: files of kinds that are recognised and not read.
        remarks: what decoding converted, assumed or passed over.
        through: computes; made for the run where there is none that stays.
    """

    predictor: Predictor
    why: str
    options: PredictOptions
    picks: Picks
    cache: Cache
    progress: Progress = field(default_factory=Silent)
    tally: Tally = field(default_factory=Tally)
    unread: Unread = field(default_factory=Unread)
    remarks: Remarks = field(default_factory=Remarks)
    through: Through | None = None

    def __iter__(self) -> Iterator[Prediction]:
        """Yield a prediction for each image, in order, as batches are done.

        Raises:
            PipelineError: there was no image, or none that could be read.
        """
        began, tally = time.monotonic(), self.tally
        reasons: list[str] = []
        for batch, named in self._batches():
            probabilities = self.predictor.probabilities(
                batch.logits, calibrated=self.options.calibration
            )
            tally.reused += batch.reused
            for position, p in enumerate(probabilities):
                pick, error = next(named), batch.bad.get(position, "")
                tally.seconds = time.monotonic() - began
                self.unread.add(pick.path, error)
                if error and _is_stray(pick, error):
                    tally.skipped += 1
                    continue
                if error:
                    tally.unreadable += 1
                    if len(reasons) < 3:
                        reasons.append(f"{shown(pick.path)}: {error}")
                    yield Prediction(pick.path, error=error)
                else:
                    for remark in batch.remarks.get(position, ()):
                        self.remarks.add(pick.path, remark)
                    tally.images += 1
                    yield self._predicted(pick.path, p)
        if not tally.images:
            raise PipelineError(self._nothing(reasons))

    def _batches(self) -> Iterator[tuple[Scored, Iterator[Pick]]]:
        """Yield the logits of images in batches, and the images from the first of the batch on."""
        through = self.through or Through(self.predictor, self.options, self.cache, self.progress)
        parts: Iterable[Iterable[Pick]] = [self.picks]
        if self.picks.listed:  # somebody may wait for the answer before they go on
            parts = bursts(self.picks, BURST)
        for part in parts:
            ahead, named = tee(part)  # holds the few that are on their way
            sources = (pick.source for pick in ahead)
            for batch in through.keeping(sources) if self.options.use_cache else through(sources):
                yield batch, named

    def _predicted(self, path: str, p: np.ndarray) -> Prediction:
        count = min(self.options.top or TOP, len(p))
        likeliest = np.argsort(-p, kind="stable")[:count]  # ties: the first class, as argmax does
        top = tuple((self.predictor.classes[k], float(p[k])) for k in likeliest.tolist())
        least = self.options.min_confidence
        abstains = least is not None and top[0][1] < least
        self.tally.abstained += abstains
        return Prediction(path, top, abstains)

    def _nothing(self, reasons: list[str]) -> str:
        tally, known = self.tally, " ".join(["", *self.unread.notes])
        if tally.unreadable:
            more = tally.unreadable - len(reasons)
            also = f"; and {more:,} more" if more else ""
            listed = f"{'; '.join(reasons)}{also}"
            if tally.unreadable == 1:
                return f"The one image could not be read: {listed}.{known}"
            return f"None of {tally.unreadable:,} images could be read: {listed}.{known}"
        strays = f", and {counted(tally.skipped, 'file')} that are none" if tally.skipped else ""
        where = f" in {joined(self.picks.empty)}" if self.picks.empty else ""
        return (
            f"There are no images{where}{strays}.{known} Name files, folders or patterns of images."
        )

    @property
    def notes(self) -> list[str]:
        """Return what the person should know, after the last image."""
        notes, tally = self.picks.notes, self.tally
        if tally.skipped:
            notes.append(f"Skipped in folders, being no images: {counted(tally.skipped, 'file')}.")
        notes += [*self.unread.notes, *self.remarks.notes]
        if tally.images and self.picks.empty:
            notes.append(f"There was nothing in {joined(self.picks.empty)}.")
        return notes


def _is_stray(pick: Pick, error: str) -> bool:
    """Tell whether a file beside images was never meant for one."""
    return pick.found and error in (*NOT_READ, EMPTY) and not claims(pick.path, error)


def start(
    words: Sequence[Any],
    options: PredictOptions,
    cache: Cache,
    *,
    model: str | Path | None = None,
    lines: Callable[[], Iterable[bytes]] = tuple,
    progress: Progress | None = None,
) -> Predicting:
    """Return a run over the images that words mean; it computes when it is iterated over.

    Args:
        words: images, after perhaps a head or model; see `resolve.split` and `Picks`.
        options: of `predict`.
        cache: where heads and models are.
        model: the head or model; then all words are images.
        lines: of standard input, for `-`.
        progress: told what a person should know at once.
    """
    options.check()
    artefact = None
    if model is None:
        artefact, words = resolve.split(cache, words)
    if not words:
        raise UsageError("No images. Name files, folders or patterns, or '-' for a list.")
    picks = Picks(words, lines, cache.data)
    artefact = artefact or resolve.find(cache, model)
    predictor = open_predictor(artefact, cache)
    if options.use_cache:
        check_cache(predictor, options)
    return Predicting(predictor, artefact.why, options, picks, cache, progress or Silent())


def predict(
    images: AnyImage | Iterable[AnyImage],
    model: Head | Model | str | Path | None = None,
    *,
    top: int | None = None,
    min_confidence: float | None = None,
    calibration: bool = True,
    use_cache: bool = False,
    precision: str = "auto",
    device: str = "auto",
    engine: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    cache: str | Path | None = None,
) -> list[Prediction]:
    """Return what a head or model says of images. `predict_stream` yields the same one by one.

    Args:
        images: files, folders with all below them, patterns, or the name of a built-in set; or in
            memory PIL images, files or their bytes, uint8 arrays [H, W, 3], [H, W, 4] or [H, W],
            uint16 arrays [H, W]. One, or any number in a sequence or in a data frame's column.
        model: a `Head` or `Model`, its id or folder, a kind of head; the best of the current
            table without it.
        top: classes to give for each image, likeliest first; None for three.
        min_confidence: probability below which no class is predicted, in [0, 1]; None for never.
        calibration: divide logits by the temperature that was fitted on held-out images.
        use_cache: take a head's features from the cache, and keep those that it lacks.
        precision: `fp32`, `tf32`, `bf16`, `fp16`, or `auto` for that of the stored predictions.
        device: `auto`, `cpu`, `cuda` or `mps`.
        engine: `torch`, `compiled`, `openvino`, or `auto`: what `extract` takes; PyTorch for a few
            images.
        batch_size: images at once; None for the device's default.
        workers: decoding threads; None for the cores that the process may use.
        cache: the cache's folder; else `$PIPELINE_CACHE`, else `./cache`.

    Returns:
        One `Prediction` for each image, in order: `path` (`picture 3` for the fourth where that is
        in memory), `prediction`, `top` (pairs of class and probability), `error` where the image
        could not be read.

    Raises:
        UsageError: an option that cannot be right; a `ValueError` too.
        PipelineError: there is no such head or model, no image, or none that could be read.

    Example:
        >>> import pipeline
        >>> head = pipeline.fit_head(pipeline.extract("digits"), clf="logreg")
        >>> pipeline.predict("digits", head)[0].top  # doctest: +SKIP
    """
    return list(_stream(images, model, PredictOptions.of(locals()), cache))


def predict_stream(
    images: AnyImage | Iterable[AnyImage],
    model: Head | Model | str | Path | None = None,
    *,
    top: int | None = None,
    min_confidence: float | None = None,
    calibration: bool = True,
    use_cache: bool = False,
    precision: str = "auto",
    device: str = "auto",
    engine: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    cache: str | Path | None = None,
) -> Iterator[Prediction]:
    """Yield what a head or model says of images, as batches are done, in bounded memory.

    Arguments, what is yielded and what is raised are those of `predict`; errors of the arguments
    come at once, those of images when they are reached.
    """
    return iter(_stream(images, model, PredictOptions.of(locals()), cache))


def _stream(
    images: AnyImage | Iterable[AnyImage],
    model: Head | Model | str | Path | None,
    options: PredictOptions,
    cache: str | Path | None,
) -> Predicting:
    options.check()
    words, store = _words(images), Cache.at(cache)
    folder = resolve.find(store, model).folder
    return start(words, options, store, model=folder)


class Session:
    """A head or model that stays loaded and answers as often as it is asked.

    The first answer waits for the network, the others only for themselves. Not for several threads
    at once.

    Args:
        model: a `Head` or `Model`, its id or folder, a kind of head; the best of the current
            table without it.
        top: as in `predict`; likewise all that follow.

    Raises:
        UsageError: an option that cannot be right; a `ValueError` too.
        PipelineError: there is no such head or model.

    Example:
        >>> import pipeline
        >>> head = pipeline.fit_head(pipeline.extract("digits"), clf="logreg")
        >>> pipeline.Session(head)("digits")[0].prediction  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Head | Model | str | Path | None = None,
        *,
        top: int | None = None,
        min_confidence: float | None = None,
        calibration: bool = True,
        use_cache: bool = False,
        precision: str = "auto",
        device: str = "auto",
        engine: str = "auto",
        batch_size: int | None = None,
        workers: int | None = None,
        cache: str | Path | None = None,
    ):
        self.options, self.store = PredictOptions.of(locals()), Cache.at(cache)
        self.options.check()
        predictor = open_predictor(resolve.find(self.store, model), self.store)
        if use_cache:
            check_cache(predictor, self.options)
        self.through = Through(predictor, self.options, self.store, Silent())

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the K classes."""
        return self.through.predictor.classes

    def __call__(self, images: AnyImage | Iterable[AnyImage]) -> list[Prediction]:
        """Return a prediction for each image, as `predict` does.

        Args:
            images: as `predict` takes them.

        Raises:
            PipelineError: there is no image, or none that could be read.
        """
        picks = Picks(_words(images), tuple, self.store.data)
        return list(
            Predicting(
                self.through.predictor, "", self.options, picks, self.store, through=self.through
            )
        )


def _words(images: AnyImage | Iterable[AnyImage]) -> list[Any]:
    """Return images as the words that `Picks` takes."""
    images = plain(images, str)
    several = images_in(images)
    return [images] if several is None else list(several)
