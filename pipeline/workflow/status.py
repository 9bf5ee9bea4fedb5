"""What the cache has to work with."""

from __future__ import annotations

from typing import Any

from pipeline.errors import PipelineError
from pipeline.heads.leaderboard import rank_heads
from pipeline.store.cache import Cache
from pipeline.store.results import HEAD
from pipeline.store.table import FeatureTable

_SHOWN = ("trunk", "weights", "layer", "pool", "precision", "root", "created")


def tables(cache: Cache) -> list[dict[str, Any]]:
    """Return what each table is and its heads, newest first.

    A damaged table has the reason under `damaged` and nothing else.
    """
    current = cache.current()
    heads, _ = HEAD.every(cache.root)
    found = []
    for path in cache.table_files():
        entry: dict[str, Any] = {
            "name": path.stem,
            "path": str(path),
            "current": path == current,
            "bytes": path.stat().st_size,
        }
        try:
            table = FeatureTable.open(path)
        except PipelineError as error:
            found.append({**entry, "damaged": str(error)})
            continue
        found.append(
            {
                **entry,
                "table_id": table.table_id,
                "fingerprint": table.fingerprint,
                "images": len(table.labels),
                "dim": int(table.features.shape[1]),
                "classes": list(table.classes),
                "splits": table.split_counts,
                "heads": rank_heads(heads, table.table_id),
                **{name: getattr(table.provenance, name) for name in _SHOWN},
            }
        )
    return found
