"""Which table, head or model a word means: by id, folder, name or kind; or the best there is."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.arguments import path_of
from pipeline.errors import PipelineError, UsageError, nearest
from pipeline.heads.leaderboard import Ranked, rank_heads, rank_models
from pipeline.heads.registry import HEADS
from pipeline.images.datasets.builtin import BUILTIN
from pipeline.images.sources.address import is_data
from pipeline.store.cache import Cache
from pipeline.store.result_records import HeadInfo, ResultInfo
from pipeline.store.results import HEAD, MODEL, Kind
from pipeline.store.table import FeatureTable

#: Shortest beginning of an id that is taken for one.
SHORTEST = 4


@dataclass(frozen=True)
class Artefact:
    """A head or a model, not opened yet. Two are equal when they are the same folder.

    Attributes:
        kind: of result.
        folder: where it is kept.
        why: a sentence on why it was taken, where nobody named it; else empty.
    """

    kind: Kind[Any]
    folder: Path
    why: str = ""


def find_table(cache: Cache, word: str) -> FeatureTable | None:
    """Return the table that a word names, None where it names a folder, a file or a built-in set.

    A word is the path of a table; else, where no file or folder has that name, a table's name, its
    data's name or its id.

    Raises:
        UsageError: there is nothing of that name.
    """
    if is_data(word):
        return None
    path = path_of(word, "A table or folder")
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


def find(cache: Cache, asked: Any = None) -> Artefact:
    """Return the head or model that is meant.

    Args:
        cache: where heads and models are.
        asked: a `Head` or `Model`; an id, or how one begins; a folder; a kind of head, for the
            best of that kind on the current table; None for the best of the current table.

    Raises:
        PipelineError: there is none, or several fit.
    """
    if asked is None:
        return best(cache)
    asked = getattr(asked, "folder", None) or asked
    like = "a Head, a Model, an id, a folder or a kind of head"
    asked = os.fsdecode(path_of(asked, "A head or model", like=like))
    artefact = recognise(cache, asked)
    if artefact is not None:
        return artefact
    known = [path.name for kind in (HEAD, MODEL) for path in kind.folders(cache.root)]
    hint = nearest(asked, [*known, *HEADS])
    raise PipelineError(
        f"There is no head or model '{asked}' in {cache.root}.{hint} `pipeline heads` and "
        "`pipeline models` list those there are."
    )


def recognise(cache: Cache, word: str) -> Artefact | None:
    """Return the head or model that a word names, None where it names none.

    A word is the folder of one; else, where no file or folder has that name, an id or its first
    four digits or more; else a kind of head (`logreg`), of which the current table has one.

    Raises:
        PipelineError: several fit.
    """
    if is_data(word):
        return None
    path = path_of(word, "A head or model")
    for kind in (MODEL, HEAD):
        if (path / f"{kind.name}.json").is_file():
            return Artefact(kind, path.absolute())
    if path.exists():
        return None
    if len(word) >= SHORTEST and re.fullmatch("[0-9a-f]+", word):
        fits = [
            Artefact(kind, folder)
            for kind in (HEAD, MODEL)
            for folder in kind.folders(cache.root)
            if folder.name.startswith(word)
        ]
        if len(fits) > 1:
            listed = ", ".join(f"{one.kind.name} {one.folder.name}" for one in fits)
            raise PipelineError(f"'{word}' begins several ids: {listed}. Give more of one.")
        if fits:
            return fits[0]
    if word in HEADS:
        heads = heads_of(cache, cache.open_table())
        of_kind = next((one.info for one in heads if one.info.clf == word), None)
        if of_kind is None:
            have = ", ".join(f"{one.info.clf} {one.info.id}" for one in heads)
            raise PipelineError(
                f"The current table has no head of kind {word}{have and f'; it has {have}'}. Fit "
                f"one with `pipeline fit-head --clf {word}`."
            )
        return Artefact(HEAD, _folder(of_kind))
    return None


def split(cache: Cache, words: Sequence[str]) -> tuple[Artefact | None, list[str]]:
    """Return the head or model that the first word names, if it does, and the words after it.

    Raises:
        PipelineError: the first word looks like an id and is none, or fits several.
    """
    if not words:
        return None, []
    artefact = recognise(cache, words[0])
    if artefact is None and re.fullmatch("[0-9a-f]{12}", words[0]) and not Path(words[0]).exists():
        return find(cache, words[0]), list(words[1:])  # says which are nearest
    return artefact, list(words[1:] if artefact is not None else words)


def best(cache: Cache, table: FeatureTable | None = None) -> Artefact:
    """Return the best of a table, as `pipeline models` and `pipeline heads` have it.

    A model that beats its head on the images that chose its epoch comes before any head; what was
    fitted on a part of train only comes last.

    Args:
        cache: where heads and models are.
        table: that they were made on; the current one without it.

    Raises:
        PipelineError: there is no table, or neither head nor model.
    """
    which = "The current table" if table is None else "The table"
    table = table or cache.open_table()
    infos, damaged = MODEL.every(cache.root)
    models = rank_models(infos, table.table_id)
    heads = heads_of(cache, table)
    partial = {one.info.id for one in heads if one.info.partial}
    won = next((one for one in models if one.best and one.info.head not in partial), None)
    if won is not None:
        model, scores = won.info, won.info.chosen
        rivals = sum(one.group == won.group for one in models)
        return Artefact(
            MODEL,
            _folder(model),
            f"Taking the model {model.id} ({model.trunk}, {model.unfreeze} unfrozen): log-loss "
            f"{scores.model.log_loss:.4f} on {model.selected_on}, "
            f"{_among(rivals, 'model')}where that of the head that it started from is "
            f"{scores.start.log_loss:.4f}.",
        )
    if not heads:
        broken = [*HEAD.every(cache.root)[1], *damaged]
        also = f" {broken[0]}" if broken else ""
        raise PipelineError(
            f"{which} {table.path} has neither a head nor a model. Fit one with "
            f"`pipeline fit-head --clf logreg`.{also}"
        )
    head = heads[0].info
    rivals = sum(one.group == heads[0].group for one in heads)
    if head.score is None:
        measure = "nothing was held out to compare it on"
    else:
        measure = f"{head.selected_by} {abs(head.score):.4f} on {head.selected_on}"
    none = f"; no model beats its head (of {len(models)})" if models else ""
    return Artefact(
        HEAD,
        _folder(head),
        f"Taking the head {head.id} ({head.clf} on {head.trunk}): {measure}"
        f"{_among(rivals, 'head', ', ').removesuffix(', ')}{none}.",
    )


def heads_of(cache: Cache, table: FeatureTable) -> list[Ranked[HeadInfo]]:
    """Return a table's heads, best first; those fitted on a part of train at the end."""
    ranked = rank_heads(HEAD.every(cache.root)[0], table.table_id)
    return sorted(ranked, key=lambda one: (one.info.partial, not one.best))


def table_of(cache: Cache, info: ResultInfo) -> FeatureTable | None:
    """Return the table that a head or model was made on, None where it is not there (any more)."""
    places = [path for path in cache.table_files() if path.stem.endswith(info.table_id[:12])]
    places += [Path(info.table)] if Path(info.table).is_file() else []
    opened = (FeatureTable.open(path) for path in places)
    return next((table for table in opened if table.table_id == info.table_id), None)


def _among(count: int, what: str, before: str = "") -> str:
    return f"{before}the best of {count} {what}s, " if count > 1 else ""


def _folder(info: ResultInfo) -> Path:
    assert info.folder is not None
    return info.folder
