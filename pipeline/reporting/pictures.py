"""The pictures behind a table's rows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.cores import usable_cores
from pipeline.extraction.scan import root_of
from pipeline.images.decoding.reading import Guard, unguarded
from pipeline.images.decoding.thumbnails import Picture, pictures
from pipeline.store.table import FeatureTable


def of_rows(
    table: FeatureTable,
    rows: Sequence[int],
    *,
    side: int,
    data: str | Path | None = None,
    workers: int | None = None,
    guard: Guard = unguarded,
) -> Iterator[Picture]:
    """Yield a small picture of each row's image, in order; a bounded number is on its way.

    An image that has moved, or that no longer holds what it did when it was extracted, has the
    reason in place of its picture.

    Args:
        table: names paths and digests.
        rows: of the table.
        side: pixels that a picture must fit into.
        data: folder in which the images lie now; None for where they were.
        workers: threads; None for the cores that the process may use.
        guard: asked before each image is decoded.
    """
    root = root_of(table, data)
    files = (
        (os.path.join(root, table.paths[row]), bytes.fromhex(table.digests[row])) for row in rows
    )
    return pictures(files, side=side, workers=workers or usable_cores(), guard=guard)
