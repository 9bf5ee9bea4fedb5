"""The pictures behind a table's rows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.cores import usable_cores
from pipeline.errors import PipelineError
from pipeline.images.decoding.reading import Guard, unguarded
from pipeline.images.decoding.thumbnails import Picture, pictures
from pipeline.images.names import shown
from pipeline.store.table import FeatureTable


def root_of(table: FeatureTable, data: str | Path | None = None) -> Path:
    """Return the folder that a table's paths are relative to.

    Args:
        table: names the folder that it was extracted from.
        data: where the images lie now; None for where they were.

    Raises:
        PipelineError: `data` is not a folder.
    """
    root = Path(data or table.provenance["root"]).expanduser().absolute()
    if data is not None and not root.is_dir():
        raise PipelineError(f"--data {shown(root)} is not a folder.")
    return root


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
