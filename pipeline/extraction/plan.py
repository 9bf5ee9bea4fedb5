"""What is wanted of which fingerprint, what is there, and what is missing, cut into parts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import overload

import numpy as np

from pipeline.extraction.options import ExtractOptions
from pipeline.store.cache import Cache
from pipeline.store.shards import Index, Key, Keys, RowStore
from pipeline.trunks import spec
from pipeline.trunks.engines import devices
from pipeline.trunks.spec import LIBJPEG, FeatureKey, TrunkFacts

#: Rows of a part, rounded down to whole batches: what a kill can cost; and of the first one, so
#: that something is committed within seconds also where a second computes ten.
SHARD_ROWS, FIRST_ROWS = 256, 32
#: Rows of a part where there are so many that it is a hundredth of the work: 42 MB of features of
#: 1280 numbers.
MOST_ROWS, PARTS = 8192, 100


@dataclass(frozen=True)
class Shard:
    """A committed shard and what is in it, without the rows.

    Attributes:
        name: of its file.
        keys: (digest, view) of each row.
        bad: (digest, view) and reason of each image of its batches that has no row.
        remarks: (digest, view) to what decoding converted, assumed or passed over.
        engine: what computed the rows.
    """

    name: str
    keys: Sequence[Key]
    bad: tuple[tuple[Key, str], ...]
    remarks: Mapping[Key, tuple[str, ...]]
    engine: str


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

    def enter(self, shard: Shard) -> None:
        """Take a committed shard into the index; of two rows of a key the smaller name's stays."""
        self.store.enter(
            self.index, shard.name, shard.keys, bad=shard.bad, remarks=shard.remarks,
            engine=shard.engine,
        )  # fmt: skip

    def look_up(self, name: str) -> Shard:
        """Return a shard that another process committed; its bytes are hashed.

        Raises:
            DamagedError: it is not there, or damaged.
        """
        keys, meta = self.store.check(name)
        remarks = {
            (bytes.fromhex(digest), view): tuple(found)
            for digest, view, *found in meta.get("remarks", ())
        }
        bad = tuple(((bytes.fromhex(digest), view), why) for digest, view, why in meta["bad"])
        return Shard(name, keys, bad, remarks, meta["engine"])

    def gather(self, keys: Sequence[Key]) -> np.ndarray:
        """Return the features of images that have a row, float32 [len(keys), D]; one at least."""
        (first,), _ = self.index.find(keys[:1])
        dim = self.store.rows(self.index.names[first]).shape[1]
        features = np.empty((len(keys), dim), np.float32)
        self.store.gather(self.index, keys, features)
        return features


@dataclass(frozen=True)
class Part:
    """Consecutive images of a plan, about a shard: what is computed and committed together.

    Attributes:
        number: its place in the plan, from 0.
        keys: (digest, view) of each.
        sources: the path of each, or its bytes.
        batches: that they are read in.
    """

    number: int
    keys: tuple[Key, ...]
    sources: tuple[str | bytes, ...]
    batches: int


@dataclass(frozen=True)
class Done:
    """What came of a part of a plan.

    Attributes:
        part: that was computed.
        shards: of each fingerprint of the plan, those that its rows were committed in.
        passing: (digest, view) and reason of images that could not be read this time, and of which
            no shard says so.
        sides: short side, in pixels, of each image that was decoded.
        notes: sentences for the person.
    """

    part: Part
    shards: tuple[tuple[Shard, ...], ...]
    passing: tuple[tuple[Key, str], ...] = ()
    sides: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Plan:
    """What one pass over images computes. Two plans are equal when they are the same object.

    Attributes:
        rows: of each fingerprint that the pass computes, one at least; all of one trunk,
            preprocessing and precision.
        wanted: (digest, view) of each image, in data set order.
        parts: of those that a fingerprint lacks, likewise in order.
    """

    rows: tuple[Rows, ...]
    wanted: Sequence[Key]
    parts: Parts

    @property
    def lacking(self) -> list[Rows]:
        """Return the rows of those fingerprints that lack some."""
        return [rows for rows in self.rows if rows.computed]

    def enter(self, done: Done) -> None:
        """Take what came of a part into the rows."""
        for rows, shards in zip(self.rows, done.shards, strict=True):
            for shard in shards:
                rows.enter(shard)
            there = rows.index.having(key for key, _ in done.passing)
            for (key, reason), known in zip(done.passing, there.tolist(), strict=True):
                if not known:
                    rows.index.bad[key] = reason
            rows.sides += done.sides
            rows.notes += [note for note in done.notes if note not in rows.notes]


class Parts(Sequence[Part]):
    """The parts of images in order, each of whole batches and made when it is asked for.

    Args:
        keys: (digest, view) of each image.
        sources: the path of each, or its bytes.
        batch_size: images in a batch.
        ends: of each part, the number of images until there; None for those of `part_sizes`.
    """

    def __init__(
        self,
        keys: Sequence[Key],
        sources: Sequence[str | bytes],
        *,
        batch_size: int,
        ends: Sequence[int] | None = None,
    ):
        self.keys, self.sources, self.batch_size = keys, sources, batch_size
        self.ends = [*accumulate(part_sizes(len(keys), batch_size))] if ends is None else [*ends]

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, number: int) -> Part: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Part]: ...
    def __getitem__(self, number: int | slice) -> Part | Sequence[Part]:
        if isinstance(number, slice):
            return [self[at] for at in range(*number.indices(len(self)))]
        if not 0 <= number < len(self):
            raise IndexError(number)
        own = slice(self.ends[number - 1] if number else 0, self.ends[number])
        keys, sources = tuple(self.keys[own]), tuple(self.sources[own])
        return Part(number, keys, sources, math.ceil(len(keys) / self.batch_size))


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
        facts.name, facts.weights_digest, layer, pool, preprocess, options.precision,
        dtype=options.dtype, decoder="auto",
    )  # fmt: skip


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
    parts = Parts(tuple(missing), tuple(missing.values()), batch_size=batch_size)
    return Plan(together, wanted, parts)


def part_sizes(count: int, batch_size: int) -> list[int]:
    """Return of how many images each part is: of whole batches, small ones first.

    The first part is a small batch or two, and each is at most twice as large as the one before;
    later a kill costs a hundredth of the work at most, or `SHARD_ROWS`, and the shards of many
    images are few.
    """
    sizes: list[int] = []
    size, most = min(FIRST_ROWS, SHARD_ROWS), max(SHARD_ROWS, min(MOST_ROWS, count // PARTS))
    while count > 0:
        sizes.append(min(count, batch_size * max(1, size // batch_size)))
        count -= sizes[-1]
        size = min(2 * size, most)
    return sizes
