"""Which table a word means."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import UsageError, nearest
from pipeline.images.datasets.builtin import BUILTIN
from pipeline.store.cache import Cache
from pipeline.store.table import FeatureTable


def named(cache: Cache, word: str) -> FeatureTable | None:
    """Return the table that a word names, None where it names a folder, a file or a built-in set.

    A word is the path of a table; else, where no file or folder has that name, a table's name, its
    data's name or its id.

    Raises:
        UsageError: there is nothing of that name.
    """
    path = Path(word).expanduser()
    if path.exists():
        return FeatureTable.open(path) if path.suffix == ".h5" else None
    stems = [file.stem for file in cache.table_files()]
    known = {*stems, *(stem.split("--")[0] for stem in stems), *(s.split("--")[-1] for s in stems)}
    if word in known:
        return cache.open_table(word)
    if word in BUILTIN:
        return None
    raise UsageError(
        f"There is no table, folder or file '{word}'.{nearest(word, [*known, *BUILTIN])} "
        "`pipeline status` lists the tables."
    )
