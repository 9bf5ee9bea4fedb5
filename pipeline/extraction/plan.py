"""What is wanted of which fingerprint, what is there, and what is missing, cut into parts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import numpy as np

from pipeline.errors import PipelineError
from pipeline.extraction.options import ExtractOptions
from pipeline.images.datasets.imageset import ImageSet
from pipeline.images.decoding.formats import claims
from pipeline.store.cache import Cache
from pipeline.store.shards import Index, Key, Keys, RowStore
from pipeline.trunks import spec
from pipeline.trunks.engines import devices
from pipeline.trunks.spec import LIBJPEG, FeatureKey, TrunkFacts

#: Rows of a part, rounded down to whole batches: what a kill can cost.
SHARD_ROWS = 256
#: Rows of a part where there are so many that it is a hundredth of the work: 42 MB of features of
#: 1280 numbers.
MOST_ROWS, PARTS = 8192, 100


@dataclass
class Rows:
    """The rows of one fingerprint that a run wants, as far as they exist.

    Attributes:
        key: what they depend on.
        store: where they are.
        index: what is there, the images that could not be decoded included.
        computed: (digest, view) of those that this run tried to compute.
        sides: short side, in pixels, of each image that this run decoded.
        notes: sentences for the person.
        seconds: that computing took, loading the trunk included.
    """

    key: FeatureKey
    store: RowStore
    index: Index
    computed: list[Key] = field(default_factory=list)
    sides: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def gather(self, keys: Sequence[Key]) -> np.ndarray:
        """Return the features of images that have a row, float32 [len(keys), D]; one at least."""
        (first,), _ = self.index.find(keys[:1])
        dim = self.store.rows(self.index.names[first]).shape[1]
        features = np.empty((len(keys), dim), np.float32)
        self.store.gather(self.index, keys, features)
        return features


class WantedImages:
    """The images of a data set, whose rows are wanted, and what of it cannot be taken.

    These are files that are no images, and images that cannot be decoded. What is called an image
    and is none counts as a bad one, not as a stray file.

    Args:
        images: that were found, with their digests.
        most: how many files may be bad; None for no limit.

    Attributes:
        keys: (digest, 0) of each image, in data set order.
        sources: each key to the path of the first image that has it, in the same order.
        left_out: path and reason of every stray file.
        total: images found, bad ones included.
    """

    def __init__(self, images: ImageSet, most: int | None):
        self.images, self.most = images, most
        self.keys: list[Key] = [(digest, 0) for digest in images.digests]
        self.files = Counter(self.keys)  # equal files are one row
        self.sources: dict[Key, str | bytes] = {}
        for key, path in zip(self.keys, images.paths, strict=True):
            self.sources.setdefault(key, f"{images.root}/{path}")
        self.false = [entry for entry in images.left_out if claims(*entry)]
        self.left_out = tuple(entry for entry in images.left_out if not claims(*entry))
        self.total = len(self.keys) + len(self.false)

    def views(self, index: Index | None, number: int) -> list[Key]:
        """Return (digest, 1 … number) of the labelled training images, in order.

        Args:
            index: that must have a row of each; None for all of them.
            number: of views.
        """
        if not number:
            return []
        train = np.array(self.images.splits or (), object) == "train"
        train &= self.images.labels >= 0
        if index is not None:
            train &= index.having(self.keys)
        digests = [self.keys[row][0] for row in np.flatnonzero(train)]
        return [(digest, view) for digest in digests for view in range(1, number + 1)]

    def listed(self, index: Index) -> list[tuple[str, str]]:
        """Return path and reason of every bad file of the data set."""
        paths, reasons = self.images.paths, self.reasons(index)
        return [*((paths[row], reason) for row, reason in reasons.items()), *self.false]

    def reasons(self, index: Index) -> dict[int, str]:
        """Return row to the reason of every image that has no row."""
        return {row: index.bad[key] for row, key in enumerate(self.keys) if key in index.bad}

    def remarks(self, index: Index) -> list[tuple[str, str]]:
        """Return path and remark of every image of which decoding says something."""
        paths = self.images.paths
        return [
            (paths[row], one) for row, said in index.remarked(self.keys).items() for one in said
        ]

    def check(self, index: Index) -> None:
        """Raise a `PipelineError` where more files are bad than are allowed."""
        count = sum(self.files[key] for key in index.bad) + len(self.false)
        if self.most is not None and count > self.most:
            raise PipelineError(
                f"{count} images could not be decoded, and --max-bad allows {self.most}. "
                f"{first(self.listed(index))} Fix or remove them, or allow more; what was computed "
                "is kept."
            )


def first(bad: list[tuple[str, str]], most: int = 5) -> str:
    """Return path and reason of the first few."""
    listed = "; ".join(f"{path}: {reason}" for path, reason in bad[:most])
    more = f"; and {len(bad) - most} more" if len(bad) > most else ""
    return f"{listed}{more}."


@dataclass(frozen=True)
class Part:
    """Consecutive images of a plan, about a shard: what is computed and committed together.

    Attributes:
        keys: (digest, view) of each.
        batches: that they are read in.
    """

    keys: tuple[Key, ...]
    batches: int


@dataclass(frozen=True, eq=False)
class Plan:
    """What one pass over images computes. Two plans are equal when they are the same object.

    Attributes:
        rows: of each fingerprint that the pass computes, one at least; all of one trunk,
            preprocessing and precision.
        wanted: (digest, view) of each image, in data set order.
        missing: of those that a fingerprint lacks to the path, or the bytes, likewise in order.
        parts: of these, in order.
    """

    rows: tuple[Rows, ...]
    wanted: tuple[Key, ...]
    missing: Mapping[Key, str | bytes]
    parts: tuple[Part, ...]

    @property
    def lacking(self) -> list[Rows]:
        """Return the rows of those fingerprints that lack some."""
        return [rows for rows in self.rows if rows.computed]


def feature_key(facts: TrunkFacts, options: ExtractOptions) -> FeatureKey:
    """Return what the rows depend on, the precision as it was asked for, the decoder not settled.

    Raises:
        UsageError: a layer or pooling that the trunk does not have.
    """
    layer, pool = spec.check_layer(facts, options.layer, options.pool)
    preprocess = facts.preprocess
    if options.image_size is not None:
        preprocess = preprocess.with_size(options.image_size)
    return FeatureKey(
        facts.name, facts.weights_digest, layer, pool, preprocess, options.precision, decoder="auto"
    )


def find_rows(
    cache: Cache, asked: FeatureKey, keys: Sequence[Key], *, device: str, engine: str = "auto"
) -> Rows:
    """Return what the cache holds; precision and decoder are settled here.

    They are what the hardware computes fastest, unless the cache holds rows of these images in
    others: then those of most of them, if this machine computes in these too, or of all. A note
    says so.

    Args:
        cache: where rows are.
        asked: what they depend on.
        keys: (digest, view) of those that are wanted; each once where they are `Keys`.
        device: where missing ones are computed.
        engine: that computes them. What it would compute in fp32 though bf16 is asked for is
            looked for, and filed, under fp32.

    Raises:
        UsageError: the device is not there, or does not compute in the precision asked for.
    """
    every = [_stored(cache, key) for key in asked.classes]
    if len(every) == 1:
        return every[0]
    auto = asked.precision == "auto"
    wanted = keys if isinstance(keys, Keys) else Keys.of(dict.fromkeys(keys))
    counts = [int(rows.index.having(wanted).sum()) for rows in every]
    for rows, count in zip(every, counts, strict=True):
        fits = count if auto else rows.key.precision == asked.precision
        lacking = wanted.take(~rows.index.known(wanted)) if fits else wanted
        if fits and all((digest, 0) in rows.index.bad for digest, _ in lacking):
            likely = devices.likely_precision(device) if auto else asked.precision
            return _noted(rows, count, len(wanted), likely)
    from pipeline.trunks.engines.choice import decoder_on, settled

    place = devices.choose_device(device)
    precision = devices.choose_precision(asked.precision, place)
    own = settled(precision, device=place, asked=engine)
    # the hardware computes in these too; what it emulates, an engine may round differently
    also = ("fp32", *(["fp16"] if place != "cpu" else [])) if auto else ()

    def usable(key: FeatureKey) -> bool:
        decodes = key.decoder in (LIBJPEG, decoder_on(place, key.precision))
        return decodes and key.precision in (own, *also)

    def rank(at: int) -> tuple[int, bool, bool]:  # most rows, then this machine's own way
        key = every[at].key
        mine = key.decoder == decoder_on(place, key.precision)
        return counts[at], key.precision == own, mine

    best = max((at for at, rows in enumerate(every) if usable(rows.key)), key=rank)
    rows = every[best]
    if rows.key.decoder != decoder_on(place, rows.key.precision):
        rows.notes.append(
            f"JPEGs are decoded by {rows.key.decoder}, and not on the GPU: the cache holds "
            f"{counts[best]:,} of the {len(wanted):,} rows so."
        )
    if auto:
        return _noted(rows, counts[best], len(wanted), own)
    if own != asked.precision:
        rows.notes.append(
            f"OpenVINO does not compute in {asked.precision} on this CPU: the features are "
            f"computed, and kept, in {own}."
        )
    return rows


def _stored(cache: Cache, key: FeatureKey) -> Rows:
    store = cache.rows(key.fingerprint)
    return Rows(key, store, store.index())


def _noted(rows: Rows, count: int, wanted: int, own: str) -> Rows:
    """Return rows with a note where `auto` is another precision than a machine's own."""
    if (precision := rows.key.precision) != own:
        rows.notes.append(
            f"--precision auto is {precision} here: the cache holds {count:,} of the "
            f"{wanted:,} rows in it."
        )
    return rows


def make_plan(
    cache: Cache, several: Sequence[Rows], sources: Mapping[Key, str | bytes], *, batch_size: int
) -> Plan:
    """Return what is missing of `sources`, in parts of whole batches.

    A bad image keeps its place in its batch, and the last batch is padded: a run that was killed
    after any part goes on with the same batches, and so computes the same bits. For the same reason
    it goes on with the same network: where a killed run completed some fingerprints, the plan
    names them too, since a network converted for fewer of them may round otherwise.

    Args:
        cache: whose manifests tell what a killed run had begun.
        several: rows of one trunk, preprocessing and precision, whose `computed` says what each
            lacks; one at least lacks some.
        sources: (digest, view) to the path of each image that is wanted, or its bytes, in data set
            order.
        batch_size: images in a batch.
    """
    wanted = tuple(sources)
    together = tuple(
        rows for rows in several
        if rows.computed or cache.has_begun(rows.key.fingerprint, wanted)
    )  # fmt: skip
    lacked = {key for rows in several for key in rows.computed}
    missing = {key: source for key, source in sources.items() if key in lacked}
    keys = tuple(missing)
    ends = accumulate(part_sizes(len(keys), batch_size), initial=0)
    cut = [keys[start:end] for start, end in pairwise(ends)]
    parts = tuple(Part(part, math.ceil(len(part) / batch_size)) for part in cut)
    return Plan(together, wanted, missing, parts)


def part_sizes(count: int, batch_size: int) -> list[int]:
    """Return of how many images each part is: of whole batches, small ones first.

    The first commit comes within seconds; later a kill costs a hundredth of the work at most, or
    `SHARD_ROWS`, and the shards of many images are few.
    """
    sizes: list[int] = []
    size, most = SHARD_ROWS, max(SHARD_ROWS, min(MOST_ROWS, count // PARTS))
    while count > 0:
        sizes.append(min(count, batch_size * max(1, size // batch_size)))
        count -= sizes[-1]
        size = min(2 * size, most)
    return sizes
