"""Logits of any number of images, batch by batch: through the trunk, or through the cache."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import numpy as np

from pipeline.cores import usable_cores
from pipeline.errors import UsageError
from pipeline.extraction.compute import fill
from pipeline.extraction.crashes import noted
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.plan import SHARD_ROWS, find_rows
from pipeline.finetuning.model import Predictor
from pipeline.images import resizing
from pipeline.images.decoding.crops import crops_by_numpy
from pipeline.images.decoding.loader import AHEAD, load
from pipeline.images.decoding.reading import ABSENT, NO_PERMISSION
from pipeline.images.digest import StatMemo, digest_all
from pipeline.images.names import counted
from pipeline.images.opening import VANISHED
from pipeline.inference.options import ComputeOptions
from pipeline.progress import Progress
from pipeline.store.atomic import make_folder
from pipeline.store.cache import Cache
from pipeline.store.shards import Key
from pipeline.trunks.engines import openvino_engine
from pipeline.trunks.engines.choice import PYTORCH, batches_on, decoder_on, engine_for
from pipeline.trunks.engines.devices import choose_device
from pipeline.trunks.engines.engine import Engine, run_batches
from pipeline.trunks.engines.finite import FiniteRows
from pipeline.trunks.engines.openvino_engine import place
from pipeline.trunks.spec import LIBJPEG, FeatureKey

#: Images whose features are looked up, computed and committed together.
CHUNK = SHARD_ROWS
#: Images from which on a network is converted where nothing but answers is wanted: as many as the
#: loader takes at once, so that no list is read further for it. Converting takes about as long as
#: it saves on a few hundred images, but is kept, and then every later run is the faster one.
MANY = 64


@dataclass(frozen=True, eq=False)
class Scored:
    """A batch of consecutive images.

    Attributes:
        logits: [n, K], not calibrated; rows of bad images mean nothing.
        bad: position in the batch to the reason why an image could not be read.
        reused: how many features were in the cache already.
        remarks: position to what decoding converted, assumed or passed over, where it did.
    """

    logits: np.ndarray
    bad: dict[int, str]
    reused: int = 0
    remarks: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


def through_trunk(
    predictor: Predictor,
    sources: Iterable[str | bytes],
    options: ComputeOptions,
    cache: Cache,
    progress: Progress,
) -> Iterator[Scored]:
    """Yield the logits of images, in order; nothing of them is kept. See `Through`."""
    return Through(predictor, options, cache, progress)(sources)


@dataclass
class Through:
    """From images to logits; the engine is made when it is first needed, and stays.

    Attributes:
        predictor: a head or model.
        options: how to compute.
        store: where converted networks and the journal of what is decoded are.
        progress: told what a person should know.
        engine: None until it is needed.
    """

    predictor: Predictor
    options: ComputeOptions
    store: Cache
    progress: Progress
    engine: Engine | None = None

    def keeping(self, sources: Iterable[str | bytes]) -> Iterator[Scored]:
        """Yield the logits of images, in order; their features are kept. See `through_cache`."""
        return through_cache(self.predictor, sources, self.options, self.store, self.progress)

    def __call__(self, sources: Iterable[str | bytes]) -> Iterator[Scored]:
        """Yield the logits of images, in order; nothing of them is kept.

        Args:
            sources: paths, or the bytes themselves; any number.
        """
        predictor, options = self.predictor, self.options
        device = choose_device(options.device)
        precision = predictor.precision_on(device, options.precision)
        decoder = decoder_on(device, precision)
        batch_size, pinned, cut, _ = batches_on(device, decoder, options.batch_size)
        given = iter(sources)
        first = list(islice(given, AHEAD * batch_size))  # the loader takes as many at once
        light = len(first) < MANY and _needs_no_torch(predictor, options, self.store, device)
        names: deque[str] = deque()  # of images on their way

        def files() -> Iterator[tuple[str | bytes, None, int]]:
            for source in chain(first, given):
                names.append(source if isinstance(source, str) else "a picture")
                yield source, None, 0

        with ExitStack() as stack:
            batches = load(
                files(),
                predictor.preprocess,
                batch_size=batch_size,
                workers=options.workers or usable_cores(),
                pin=pinned,
                arrays=light,
                pad=False,
                guard=stack.enter_context(noted(self.store, self.progress)),
                cut=crops_by_numpy if light else cut,
            )
            stack.callback(batches.close)  # its threads end before their notes do
            for batch in batches:
                if len(batch.bad) < batch.count:
                    break
                # no trunk is loaded for nothing
                for _ in range(batch.count):
                    names.popleft()
                yield Scored(np.zeros((batch.count, len(predictor.classes))), batch.bad)
            else:
                return
            if self.engine is None:
                many = len(first) >= MANY
                self.engine = engine_of(predictor, options, self.store, many=many)
            engine = self.engine
            finite = FiniteRows(predictor.key.trunk, precision)
            for done, features in run_batches(engine, chain([batch], batches)):
                own = [names.popleft() for _ in range(done.count)]
                good = [slot for slot in range(done.count) if slot not in done.bad]
                lost = finite.bad(features[good], [own[slot] for slot in good])
                bad = done.bad | {good[at]: reason for at, reason in lost.items()}
                logits = np.zeros((done.count, len(predictor.classes)))
                if good := [slot for slot in good if slot not in bad]:
                    logits[good] = predictor.logits(features[good], engine)
                yield Scored(logits, bad, remarks=done.remarks)
            for note in engine.notes:
                self.progress.say(note)
            engine.notes.clear()


def _needs_no_torch(
    predictor: Predictor, options: ComputeOptions, cache: Cache, device: str
) -> bool:
    """Tell whether nothing but decoding would need torch, which takes longer than a few images."""
    return (
        "torch" not in sys.modules
        and device == "cpu"
        and options.engine not in PYTORCH
        and openvino_engine.available()
        and place(predictor.key, cache.compiled).exists()
        and resizing.alike(predictor.preprocess)
    )


def engine_of(predictor: Predictor, options: ComputeOptions, cache: Cache, *, many: bool) -> Engine:
    """Return the engine for a head's trunk, or for a model's, converted as a whole.

    `auto` means what it means in `make_engine`, so that a head sees features of the engine that its
    table came from; but few images do not wait for a conversion that is not in the cache.

    Args:
        predictor: whose features are wanted.
        options: how to compute.
        cache: where converted networks are kept, for all commands.
        many: whether there are `MANY` images or more.

    Raises:
        UsageError: the device or the engine is not there, or cannot compute this.
    """
    device = choose_device(options.device)
    convert = many or options.engine != "auto" or place(predictor.key, cache.compiled).exists()
    return engine_for(
        lambda: predictor.net, predictor.key, compiled=cache.compiled, device=device,
        asked=options.engine if convert else "torch",
        precision=predictor.precision_on(device, options.precision),
    )  # fmt: skip


def check_cache(predictor: Predictor, options: ComputeOptions) -> FeatureKey:
    """Return what the features depend on that a predictor takes from the cache.

    Raises:
        UsageError: for a model, whose features are no other's; or for another precision.
    """
    key = predictor.key
    if predictor.kind != "head":
        raise UsageError(
            f"--use-cache is for heads: the {predictor.title} has features of its own. Leave it "
            "out, or name a head."
        )
    if options.precision not in ("auto", key.precision):
        raise UsageError(
            f"--use-cache takes the features that the {predictor.title} was fitted on, in "
            f"{key.precision}; leave --precision out."
        )
    return key


def through_cache(
    predictor: Predictor,
    images: Iterable[str | bytes],
    options: ComputeOptions,
    cache: Cache,
    progress: Progress,
) -> Iterator[Scored]:
    """Yield the logits of images, in order; features that the cache lacks are computed and kept.

    Args:
        predictor: a head.
        images: paths, or the bytes themselves; any number.
        options: how to compute.
        cache: where features are.
        progress: told what a person should know.

    Raises:
        UsageError: as `check_cache`; or this machine cannot compute what is missing.
    """
    key = check_cache(predictor, options)
    extract = ExtractOptions(
        device=options.device, batch_size=options.batch_size, workers=options.workers
    )
    engine: Engine | None = None
    make_folder(cache.root)
    given = iter(images)
    rows = find_rows(cache, key, [], device=options.device)
    while part := list(islice(given, CHUNK)):
        keys, bad = _digests(part, cache, options.workers, progress)
        sources: dict[Key, str | bytes] = {}
        for position, wanted in keys.items():
            image = part[position]
            place = image if isinstance(image, bytes) else os.path.abspath(image)  # noqa: PTH100
            sources.setdefault(wanted, place)
        with cache.reading([key.fingerprint], list(sources)):
            index = rows.index
            if missing := int((~index.known(sources)).sum()):
                _check_precision(predictor, options, missing)
                # what is kept comes from the engine that `extract` would take, however few images
                engine = engine or engine_of(predictor, options, cache, many=True)
            if sources:
                fill(cache, extract, [rows], sources, engine=engine, progress=progress)
                cache.end_run(key.fingerprint, list(sources))
            bad |= {at: index.bad[wanted] for at, wanted in keys.items() if wanted in index.bad}
            good = [at for at in keys if at not in bad]
            logits = np.zeros((len(part), len(predictor.classes)))
            if good:
                logits[good] = predictor.classify(rows.gather([keys[at] for at in good]))
        computed = set(rows.computed)
        said = index.remarked([keys[at] for at in good])
        remarks = {good[place]: remarks for place, remarks in said.items()}
        yield Scored(logits, bad, sum(keys[at] not in computed for at in good), remarks)
    for note in dict.fromkeys(rows.notes):
        progress.say(note)


def _check_precision(predictor: Predictor, options: ComputeOptions, missing: int) -> None:
    """Refuse to compute rows in another arithmetic than they are kept in."""
    device, key = choose_device(options.device), predictor.key
    decodes = key.decoder in (LIBJPEG, decoder_on(device, key.precision))
    if predictor.precision_on(device) != key.precision or not decodes:
        how = key.precision if decodes else f"{key.precision} with nvJPEG"
        raise UsageError(
            f"{counted(missing, 'image')} have no features in the cache, and computing them in "
            f"{how} needs a GPU, not {device}: leave --use-cache out."
        )


def _digests(
    images: list[str | bytes], cache: Cache, workers: int | None, progress: Progress
) -> tuple[dict[int, Key], dict[int, str]]:
    """Return position → key of each image, and position → reason of what is none."""
    paths = {at: image for at, image in enumerate(images) if isinstance(image, str)}
    bad = {
        position: NO_PERMISSION
        for position, path in paths.items()
        if os.path.exists(path) and not os.access(path, os.R_OK)  # noqa: PTH110
    }
    asked = [position for position in paths if position not in bad]
    files = digest_all(
        Path.cwd(),
        [paths[position] for position in asked],
        StatMemo(cache.memo, progress.say),
        threads=workers or usable_cores(),
    )
    keys: dict[int, Key] = {
        at: (hashlib.sha256(image).digest(), 0)
        for at, image in enumerate(images)
        if isinstance(image, bytes)
    }
    for position, file in zip(asked, files, strict=True):
        if file.digest is None:
            bad[position] = ABSENT if file.reason == VANISHED else file.reason
        else:
            keys[position] = (file.digest, 0)
    return keys, bad
