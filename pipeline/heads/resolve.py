"""Which head or model is meant: by id, folder or kind; or the best there is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError, nearest
from pipeline.heads.leaderboard import leaderboard
from pipeline.heads.models import board
from pipeline.heads.registry import HEADS
from pipeline.store.cache import Cache
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

    kind: Kind
    folder: Path
    why: str = ""


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
    folder = getattr(asked, "folder", None)
    if folder is not None:
        asked = folder
    found = recognise(cache, str(asked))
    if found is not None:
        return found
    known = [path.name for kind in (HEAD, MODEL) for path in kind.folders(cache.root)]
    hint = nearest(str(asked), [*known, *HEADS])
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
    path = Path(word).expanduser()
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
        table = cache.open_table()
        of_kind = [info for info in _heads(cache, table) if info["clf"] == word]
        if not of_kind:
            raise PipelineError(
                f"The current table has no head of kind {word}. Fit one with `pipeline fit-head "
                f"--clf {word}`."
            )
        return Artefact(HEAD, Path(of_kind[0]["path"]))
    return None


def split(cache: Cache, words: Sequence[str]) -> tuple[Artefact | None, list[str]]:
    """Return the head or model that the first word names, if it does, and the words after it.

    Raises:
        PipelineError: the first word looks like an id and is none, or fits several.
    """
    if not words:
        return None, []
    found = recognise(cache, words[0])
    if found is None and re.fullmatch("[0-9a-f]{12}", words[0]) and not Path(words[0]).exists():
        return find(cache, words[0]), list(words[1:])  # says which are nearest
    return found, list(words[1:] if found is not None else words)


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
    models, damaged = MODEL.every(cache.root)
    ranked = board(models, table.table_id)
    heads = _heads(cache, table)
    part = {info["id"] for info in heads if _in_part(info)}
    won = next((info for info in ranked if info["best"] and info["head"] not in part), None)
    if won is not None:
        scores = won["metrics"][won["selected_on"]]
        rivals = sum(info["group"] == won["group"] for info in ranked)
        return Artefact(
            MODEL,
            Path(won["path"]),
            f"Taking the model {won['id']} ({won['trunk']}, {won['unfreeze']} unfrozen): log-loss "
            f"{scores['model']['log_loss']:.4f} on {won['selected_on']}, "
            f"{_among(rivals, 'model')}below {scores['start']['log_loss']:.4f} of the head that it "
            "started from.",
        )
    if not heads:
        broken = [*HEAD.every(cache.root)[1], *damaged]
        also = f" {broken[0]}" if broken else ""
        raise PipelineError(
            f"{which} {table.path} has neither a head nor a model. Fit one with "
            f"`pipeline fit-head --clf logreg`.{also}"
        )
    head = heads[0]
    rivals = sum(info["group"] == head["group"] for info in heads)
    recipe = head["recipe"]
    measure = f"{recipe['select']} {abs(head['score'] or 0):.4f} on {head['selected_on']}"
    if head["score"] is None:
        measure = "nothing was held out to compare it on"
    none = f"; no model beats its head (of {len(ranked)})" if ranked else ""
    return Artefact(
        HEAD,
        Path(head["path"]),
        f"Taking the head {head['id']} ({head['clf']} on {head['trunk']}): {measure}"
        f"{_among(rivals, 'head', ', ').removesuffix(', ')}{none}.",
    )


def _among(count: int, what: str, before: str = "") -> str:
    return f"{before}the best of {count} {what}s, " if count > 1 else ""


def _heads(cache: Cache, table: FeatureTable) -> list[dict[str, Any]]:
    """Return a table's heads, best first; those fitted on a part of train at the end."""
    ranked = leaderboard(HEAD.every(cache.root)[0], table.table_id)

    return sorted(ranked, key=lambda info: (_in_part(info), not info["best"]))


def _in_part(info: dict[str, Any]) -> bool:
    """Tell whether a head was fitted on a part of train: an experiment, however new."""
    return bool(info["recipe"]["shots"] or info["recipe"]["train_fraction"])


def table_of(cache: Cache, info: dict[str, Any]) -> FeatureTable | None:
    """Return the table that a head or model was made on, None where it is not there (any more)."""
    places = [path for path in cache.table_files() if path.stem.endswith(info["table_id"][:12])]
    places += [Path(info["table"])] if Path(info["table"]).is_file() else []
    for path in places:
        table = FeatureTable.open(path)
        if table.table_id == info["table_id"]:
            return table
    return None
