"""From rows to a table: in data set order, with all that says where it came from."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import DamagedError, PipelineError
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.plan import Rows
from pipeline.images.datasets.given import Data
from pipeline.images.datasets.imageset import ImageSet
from pipeline.images.names import safe
from pipeline.images.remarks import TAKEN
from pipeline.images.sources.address import without_access
from pipeline.sequences import HexDigests
from pipeline.store.atomic import may_only_be_read, remove, write_bytes
from pipeline.store.cache import Cache
from pipeline.store.index.keys import Key, Keys, joined
from pipeline.store.records import PassCost, Provenance
from pipeline.store.table import FeatureTable
from pipeline.trunks.spec import TrunkFacts, installed

#: What of a table's provenance may differ where the table is the same.
_PASSING = {"created", "versions", "cost", "cache"}


def assemble(
    cache: Cache,
    images: ImageSet,
    rows: Rows,
    *,
    views: Sequence[Key],
    data: Data,
    options: ExtractOptions,
    facts: TrunkFacts,
    cost: PassCost,
) -> FeatureTable:
    """Return the table of images that have a row; written only where it is not there yet.

    A table that is there with more views than are asked for stays as it is, and so does one of the
    same rows in a cache that may only be read. The provenance of a new
    one is enough to load the trunk and find the images again.

    Args:
        cache: where tables are kept.
        images: with their digests, one at least.
        rows: of these.
        views: (digest, number) of each view of the training images, in order; none without.
        data: as in `extract`.
        options: as they were asked for.
        facts: of the trunk.
        cost: of computing what was missing.
    """
    index, key = rows.index, rows.key
    kept = Keys.of_digests(images.digests)
    shards = index.shards(joined([kept, Keys.of(views)]))
    provenance = Provenance(
        fingerprint=key.fingerprint,
        key=key.to_json(),
        trunk=facts.name,
        weights=facts.weights,
        weights_digest=facts.weights_digest,
        weights_asked=facts.weights_asked,
        keys=options.keys,
        layer=key.layer,
        pool=key.pool,
        precision=key.precision,
        decoder=key.decoder,
        dtype=key.dtype,
        preprocess=key.preprocess.to_json(),
        data=images.name,
        root=str(images.root),
        seed=options.seed,
        command=options.command_line(
            "extract", [] if data is None else [without_access(str(data))]
        ),
        cache=str(cache.root),
        augment=options.augment if views else "",
        engine="+".join(sorted({index.engines[shard] for shard in shards})),
        cost=cost,
        versions=installed(),
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    table = FeatureTable(
        features=np.empty((0, 0), np.float32),
        labels=images.labels,
        splits=images.splits or (),
        paths=images.paths,
        digests=HexDigests(images.digests),
        classes=images.classes,
        groups=images.groups,
        shards=tuple(shards),
        provenance=provenance,
    )
    name, trunk = options.name or images.name, safe(facts.name.replace("/", "-"))
    path = cache.tables / f"{name}--{trunk}--{table.table_id[:12]}.h5"
    held = _held(path, table)
    if held is not None and _says(held, table, options.views):
        return held
    features, crops = rows.store.stream(index, kept), None
    if views:
        shape = (len(views) // options.views, options.views)
        crops = rows.store.stream(index, views, shape)  # [T, V, D]
    try:
        return table.write(path, features=features, views=crops)
    except PipelineError as error:
        if held is None or not may_only_be_read(error):
            raise
        few = held.view_count < options.views
        if views and (few or held.provenance.augment != options.augment):
            raise
        return held  # of another command, or of images that lay elsewhere


def _held(path: Path, table: FeatureTable) -> FeatureTable | None:
    """Return the table at `path` where it is whole and of the same images."""
    try:
        held = FeatureTable.open(path) if path.exists() else None
    except DamagedError:
        return None
    if held is None or (held.table_id, held.paths) != (table.table_id, table.paths):
        return None
    return None if held.damaged(trust=True) else held


def _says(held: FeatureTable, table: FeatureTable, views: int) -> bool:
    """Tell whether a table of the same images says all that `table` says, or more."""
    richer = held.view_count > views
    before, now = held.provenance.to_json(), table.provenance.to_json()
    differing = {name for name, value in now.items() if before[name] != value}
    if richer:
        if not views:
            differing -= {"augment"}
        return set(held.shards) >= set(table.shards) and differing <= {*_PASSING, "command"}
    return held.shards == table.shards and differing <= _PASSING


def write_left_out(
    table: Path,
    left_out: Sequence[tuple[str, str]],
    bad: Sequence[tuple[str, str]],
    remarks: Sequence[tuple[str, str]] = (),
) -> Path | None:
    """Write every file that is not in a table, or not as it was, with the reason, beside it."""
    path = table.with_name(f"{table.stem}.left-out.csv")
    if not (left_out or bad or remarks):
        remove(path)
        return None
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "kind", "reason"])
    writer.writerows((path, "bad image", reason) for path, reason in bad)
    writer.writerows((path, "left out", reason) for path, reason in left_out)
    writer.writerows((path, TAKEN, remark) for path, remark in remarks)
    content = buffer.getvalue().encode("utf-8", "surrogateescape")
    if not path.exists() or path.read_bytes() != content:
        write_bytes(path, content, what="the list of what was left out")
    return path
