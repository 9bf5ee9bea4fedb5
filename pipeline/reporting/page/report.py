"""One page that shows a table: its images, the choice of heads and models, mistakes, faults."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.analysis.advising import quadrant
from pipeline.analysis.advising.advise import at_hand
from pipeline.analysis.auditing import audit
from pipeline.analysis.auditing.audit import Audit
from pipeline.arguments import path_of
from pipeline.cores import usable_cores
from pipeline.errors import PipelineError
from pipeline.extraction import scan
from pipeline.extraction.crashes import noted
from pipeline.heads import resolve
from pipeline.heads.head import Head
from pipeline.heads.leaderboard import rank_heads, rank_models
from pipeline.heads.resolve import Artefact
from pipeline.images import thumbnails
from pipeline.images.datasets.imageset import ImageSet
from pipeline.images.decoding.reading import Guard
from pipeline.images.names import counted
from pipeline.images.thumbnails import Picture
from pipeline.progress import Progress, Silent
from pipeline.reporting.options import ReportOptions
from pipeline.reporting.page import album as albums
from pipeline.reporting.page import answers, contents, embedding, findings
from pipeline.reporting.page.album import Album
from pipeline.reporting.page.answers import Answers
from pipeline.reporting.page.record import Found, record
from pipeline.reporting.page.render import MARK, made_from, page
from pipeline.store import advice
from pipeline.store.cache import Cache
from pipeline.store.outputs import output_path, write_output
from pipeline.store.results import HEAD, MODEL
from pipeline.store.table import FeatureTable

if TYPE_CHECKING:
    from pipeline.finetuning.model import Model

#: What making a page takes its time for.
_PARTS = ("audit", "pictures", "map")
#: Raise it where pages of the same results look otherwise: they are then made anew.
_LOOK = 3
#: What a page is called where a file that is none stands in its way.
PAGE = "a page of `pipeline report`"


@dataclass(frozen=True, eq=False)
class Report:
    """What `report` wrote. Two are equal when they are the same object.

    Attributes:
        path: of the page.
        audit: of the list of findings beside it.
        table: that the page is about.
        shown: images on the page; the others had no room.
        pictured: of these, those that it has a picture of.
        findings: of the audit.
        artefact: head or model whose mistakes are shown; None where there is none.
        notes: sentences for the person.
        bytes: of the page.
        seconds: of the whole run.
    """

    path: Path
    audit: Path
    table: FeatureTable
    shown: int
    pictured: int
    findings: int
    artefact: Artefact | None
    notes: tuple[str, ...]
    bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        one = self.artefact
        looked = {} if one is None else {one.kind.name: one.folder.name}
        return {
            "page": str(self.path),
            "audit": str(self.audit),
            "table": str(self.table.path),
            "table_id": self.table.table_id,
            **looked,
            "images": len(self.table.labels),
            "shown": self.shown,
            "pictured": self.pictured,
            "findings": self.findings,
            "notes": list(self.notes),
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
        }


def report(
    table: FeatureTable | str | Path | None = None,
    model: Head | Model | str | Path | None = None,
    *,
    output: str | Path | None = None,
    data: str | Path | None = None,
    cache: str | Path | None = None,
) -> Path:
    """Write a page that shows a table, its heads and models, and return its path.

    Args:
        table: a table, its file, name or id; the cache's current one without it.
        model: the head or model whose mistakes are shown: itself, its id, folder or kind; the
            best of the table without it.
        output: file to write; `reports/<table>.html` in the cache without it. The list of its
            findings stands beside it.
        data: folder in which the images lie now; None for where they were.
        cache: the cache's folder; else `$PIPELINE_CACHE`, else `./cache`.

    Returns:
        The path of the page.

    Raises:
        PipelineError: there is no such table, head or model, or a file that is no report stands
            in the way.

    Example:
        >>> import pipeline
        >>> table = pipeline.extract("digits")
        >>> pipeline.report(table).suffix  # doctest: +SKIP
        '.html'
    """
    return write_report(table, model, ReportOptions.of(locals()), Cache.at(cache)).path


def write_report(
    table: FeatureTable | str | Path | None,
    model: Head | Model | str | Path | None,
    options: ReportOptions,
    cache: Cache,
    progress: Progress | None = None,
) -> Report:
    """Do what `report` does and report on it."""
    began = time.monotonic()
    progress = progress or Silent()
    if not isinstance(table, FeatureTable):
        table = cache.open_table(table)
    options.check()
    path = path_of(options.output or place(table, cache), "--output").absolute()
    listing = path.with_name(f"{path.stem}.audit.csv")
    output_path(path, mark=MARK, what=PAGE)
    output_path(listing, mark=audit.MARK, what=audit.LIST)
    data = options.data
    found = _find(table, cache, model, data)
    looked, info = found.looked, found.info
    read = [] if looked is None or info is None else answers.read(looked.folder, info, table)
    audited = audit.find_faults(table, heads=[one.info for one in found.heads], progress=progress)
    clock = [began, time.monotonic()]
    with noted(cache, progress) as guard:
        album = _album(table, found.images, read, audited, progress, guard)
        clock.append(time.monotonic())
        progress.start("drawing the map", 0)
        layouts = embedding.layouts(table.features[album.rows])
        clock.append(time.monotonic())
        made = record(
            found, answers=read, audit=audited, pictures=album, listing=listing.name,
            layouts=layouts, workers=usable_cores(),
            spent=dict(zip(_PARTS, np.diff(clock).tolist(), strict=True)),
            origin="" if album.missing else _digest(found),  # so that they are looked for again
            guard=guard,
        )  # fmt: skip
    html = page(made).encode()
    write_output(listing, audited.to_csv(), mark=audit.MARK, what=audit.LIST)
    write_output(path, html, mark=MARK, what=PAGE)
    notes = [*audited.notes, *found.damaged, found.advice_note, *_notes(table, album)]
    return Report(
        path, listing, table, len(album.rows), len(album.of), len(audited.findings), looked,
        tuple(filter(None, notes)),
        len(html), time.monotonic() - began,
    )  # fmt: skip


def place(table: FeatureTable, cache: Cache) -> Path:
    """Return where the page of a table is written unless it is told where."""
    assert table.path is not None
    return cache.root / "reports" / f"{table.path.stem}.html"


def current(table: FeatureTable, cache: Cache) -> Path | None:
    """Return the page of a table where a new one would show the same, else None.

    It would where the table, its heads, models and best predictor, the advice on it and this
    package's version are the same, and every picture was found.
    """
    path = place(table, cache)
    if not path.with_name(f"{path.stem}.audit.csv").exists():
        return None
    return path if made_from(path) == _digest(_find(table, cache, None, None)) else None


def _digest(found: Found) -> str:
    """Return what a page that is made from these is known by: a sha256, as hex."""
    values = [
        version("headstart"), _LOOK, found.table.table_id, str(found.images.root),
        [one.to_json() for one in found.heads], [one.to_json() for one in found.models],
        found.info and found.info.id, found.damaged, found.advice, found.advice_note,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _find(table: FeatureTable, cache: Cache, asked: Any, data: str | Path | None) -> Found:
    heads, damaged = HEAD.every(cache.root)
    models, broken = MODEL.every(cache.root)
    ranked = rank_heads(heads, table.table_id), rank_models(models, table.table_id)
    looked = _artefact(cache, table, asked, any(ranked))
    info = None if looked is None else looked.kind.read(looked.folder)
    return Found(
        table, cache, scan.of_table(table, data), *ranked, looked, info, [*damaged, *broken],
        *_advice(table, cache),
    )  # fmt: skip


def _artefact(cache: Cache, table: FeatureTable, asked: Any, fitted: bool) -> Artefact | None:
    """Return the head or model to look at; None where the table has none."""
    if asked is None:
        return resolve.best(cache, table) if fitted else None
    found = resolve.find(cache, asked)
    info = found.kind.read(found.folder)
    if info.table_id != table.table_id:
        raise PipelineError(
            f"The {found.kind.name} {info.id} was made on the table {info.table_id[:12]}, "
            f"and the page is about {table.table_id[:12]}. Name its table: pipeline report "
            f"{info.table_id[:12]}."
        )
    return found


def _advice(table: FeatureTable, cache: Cache) -> tuple[dict[str, Any] | None, str]:
    """Return the advice that is kept, with the commands of today; or why it cannot be read."""
    try:
        kept = advice.read(cache, table.table_id)
    except PipelineError as error:
        return None, str(error)
    if kept is None:
        return None, ""
    action = kept["recommendation"]["action"]
    now = quadrant.commands(action, table, **at_hand(table, cache))
    return {**kept, "recommendation": {**kept["recommendation"], "commands": now}}, ""


def _album(
    table: FeatureTable,
    images: ImageSet,
    read: list[Answers],
    audited: Audit,
    progress: Progress,
    guard: Guard,
) -> Album:
    """Return the images, with pictures of what a section shows first, then of a draw."""
    first = answers.galleries(read)
    first += findings.seen_first(audited.findings)
    first += [row for rows in contents.samples(table).values() for row in rows]
    first += answers.wrong(read)
    rows = albums.order(len(table.labels), first)

    def pictures(part: Sequence[int]) -> Iterator[Picture]:
        files = [(images.file(row), images.digests[row]) for row in part]
        return thumbnails.pictures(files, side=albums.SIDE, workers=usable_cores(), guard=guard)

    progress.start("pictures", min(len(rows), albums.PICTURES))
    made = Album()
    albums.fill(
        made, rows, table.digests, pictures, workers=usable_cores(), advance=progress.advance
    )
    return made


def _notes(table: FeatureTable, album: Album) -> list[str]:
    notes = []
    if album.left:
        notes.append(
            f"The page holds {len(album.rows):,} of {counted(len(table.labels), 'image')}: the "
            "samples, findings and mistakes, and a draw of the others."
        )
    if album.missing:
        row, reason = next(iter(album.missing.items()))
        notes.append(
            f"{counted(len(album.missing), 'image')} could not be shown ({table.paths[row]}: "
            f"{reason}). Where the images have moved, give --data DIR."
        )
    return notes
