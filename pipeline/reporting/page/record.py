"""From what was gathered to one plain record: all that a page shows, as JSON could hold it."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import plotting
from pipeline.analysis.auditing.audit import Audit
from pipeline.heads.leaderboard import Ranked, chosen_by, trained_on
from pipeline.images.decoding.reading import Guard
from pipeline.images.decoding.thumbnails import thumbnail, views
from pipeline.images.names import shown
from pipeline.images.preprocess import Preprocess
from pipeline.reporting.page import advice, choice, contents, findings, mistakes
from pipeline.reporting.page import album as albums
from pipeline.reporting.page.album import Album
from pipeline.reporting.page.answers import Answers
from pipeline.reporting.page.embedding import Layout
from pipeline.reporting.page.repeat import commands, versions
from pipeline.store.cache import Cache
from pipeline.store.records import HeadInfo, ModelInfo
from pipeline.store.results import Info
from pipeline.store.table import FeatureTable


@dataclass(frozen=True, eq=False)
class Gathered:
    """All that a page is made from. Two are equal when they are the same object.

    Attributes:
        table: that the page is about.
        cache: where all of it is.
        root: folder that its paths are relative to now.
        heads: its leaderboard.
        models: its models, best first.
        info: `head.json` or `model.json` of the one whose mistakes are shown, or None.
        why: a sentence on why it was taken; else empty.
        answers: what that one said, by split.
        audit: of the table.
        album: the pictures; more are added.
        layouts: maps of the album's rows.
        damaged: a sentence on each head or model of the cache that cannot be read.
        listing: name of the file beside the page that lists the findings.
        origin: what the page is known by; empty where it is to be made again in any case.
        advice: that is kept on the table, or None.
        advice_note: why it cannot be read; else empty.
    """

    table: FeatureTable
    cache: Cache
    root: Path
    heads: list[Ranked[HeadInfo]]
    models: list[Ranked[ModelInfo]]
    info: HeadInfo | ModelInfo | None
    why: str
    answers: list[Answers]
    audit: Audit
    album: Album
    layouts: list[Layout]
    damaged: list[str]
    listing: str
    origin: str
    advice: dict[str, Any] | None
    advice_note: str


def record(all_of_it: Gathered, *, workers: int, guard: Guard) -> dict[str, Any]:
    """Return what the page shows.

    Args:
        all_of_it: what was gathered.
        workers: decoding threads.
        guard: asked before each image is decoded.
    """
    table, album, info = all_of_it.table, all_of_it.album, all_of_it.info
    heads = [one.info for one in all_of_it.heads]
    models = [one.info for one in all_of_it.models]
    advised = all_of_it.advice
    place = {row: number for number, row in enumerate(album.rows)}
    looked = "" if info is None else info.id
    strips = _strips(all_of_it, workers, guard)  # adds pictures
    splits = contents.splits(table)
    counts = [[line[split] for split in splits] for line in contents.classes(table)]
    penalties = choice.penalty_curves(all_of_it.heads)
    learning = choice.learning_curves(all_of_it.models)
    return {
        "name": shown(table.provenance.data),
        "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "version": version("headstart"),
        "origin": all_of_it.origin,
        "table": _table(all_of_it),
        "looked": None if info is None else _looked(info, all_of_it.why),
        "splits": [split or "unlabelled" for split in splits],
        "classes": [
            {
                **line,
                "counts": [line[split] for split in splits],
                "samples": [place[row] for row in rows if row in place],
                "strip": strips.get(line["label"]),
            }
            for line, rows in _with_samples(table)
        ],
        "totals": [sum(column) for column in zip(*counts, strict=True)],
        "largest": [max(1, *column) for column in zip(*counts, strict=True)],
        "unlabelled": int((table.labels < 0).sum()),
        "left_out": contents.left_out(table),
        "damaged": [shown(sentence) for sentence in all_of_it.damaged],
        "lowest": choice.lowest(all_of_it.heads, all_of_it.models),
        "heads": _grouped(choice.heads(all_of_it.heads, looked), all_of_it.heads, chosen_by),
        "models": _grouped(choice.models(all_of_it.models, looked), all_of_it.models, trained_on),
        "penalties": [
            {**curve, "svg": plotting.penalty(curve, name=f"penalty-{number}")}
            for number, curve in enumerate(penalties)
        ],
        "learning": [
            {**curve, "svg": plotting.learning(curve, name=f"learning-{number}")}
            for number, curve in enumerate(learning)
        ],
        "costs": choice.costs(table, all_of_it.cache, heads, models),
        "advice": None if advised is None else advice.section(advised, heads=heads, models=models),
        "advice_note": shown(all_of_it.advice_note),
        "answers": [
            mistakes.section(said, table, place, chose=_chose(info, said.split))
            for said in all_of_it.answers
        ],
        "audit": findings.section(all_of_it.audit.findings, table, place),
        "audit_notes": [shown(note) for note in all_of_it.audit.notes],
        "listing": all_of_it.listing,
        "commands": [shown(line) for line in commands(table, heads, models, advised)],
        "versions": versions(table, heads, models),
        "images": {"shown": len(album.rows), "left": album.left, "missing": len(album.missing)},
        "data": _data(all_of_it, place),
    }


def _with_samples(table: FeatureTable) -> list[tuple[dict[str, Any], list[int]]]:
    samples = contents.samples(table)
    return [(line, samples.get(line["label"], [])) for line in contents.classes(table)]


def _table(all_of_it: Gathered) -> dict[str, Any]:
    table, given = all_of_it.table, all_of_it.table.provenance
    names = ["trunk", "weights", "weights_digest", "layer", "pool"]
    names += ["precision", "engine", "created"]
    size = given.preprocess
    return {
        **{name: shown(str(getattr(given, name))) for name in names},
        "id": table.table_id,
        "fingerprint": table.fingerprint,
        "path": shown(str(table.path)),
        "root": shown(all_of_it.root),
        "images": len(table.labels),
        "dim": int(table.features.shape[1]),
        "preprocess": f"{'squash' if size['squash'] else 'short side'} to {size['resize']}, centre "
        f"crop {size['crop']}, {size['interpolation']}",
    }


def _looked(info: HeadInfo | ModelInfo, why: str) -> dict[str, Any]:
    if isinstance(info, HeadInfo):
        kind, how = "head", info.clf
    else:
        kind = "model"
        how = "from scratch" if info.from_scratch else f"{info.unfreeze} unfrozen"
    fitted = info.calibration
    held = "val" if fitted is None else fitted.on
    on = "held-out images of train" if held == "cv" else f"images of {held}"
    return {
        "kind": kind,
        "id": info.id,
        "what": f"{how} on {info.trunk}",
        "why": shown(why),
        "temperature": None if fitted is None else fitted.temperature,
        "calibrated_on": None if fitted is None else f"{fitted.images:,} {on}",
    }


def _grouped(
    rows: list[dict[str, Any]], board: list[Ranked[Info]], title: Callable[[Info], str]
) -> list[Any]:
    """Return rows in their groups, each group with what its rows have in common."""
    titles = {one.group: title(one.info) for one in board}
    return [
        {"title": text, "rows": [row for row in rows if row["group"] == group]}
        for group, text in titles.items()
    ]


def _chose(info: HeadInfo | ModelInfo | None, split: str) -> bool:
    return info is not None and info.metrics[split].selected_on


def _strips(all_of_it: Gathered, workers: int, guard: Guard) -> dict[int, dict[str, Any]]:
    """Return for some classes the views of one image, put into the album."""
    table, album = all_of_it.table, all_of_it.album
    samples = [(label, rows[0]) for label, rows in contents.samples(table).items() if rows]
    part = samples[: contents.STRIPS]
    preprocess = Preprocess.from_json(table.provenance.preprocess)
    side = min(preprocess.crop, albums.side(len(album.rows)))
    wanted = (
        (os.path.join(all_of_it.root, table.paths[row]), bytes.fromhex(table.digests[row]), view)
        for _, row in part
        for view in contents.VIEWS
    )
    crops = list(views(wanted, preprocess.with_size(side), workers=workers, guard=guard))
    strips: dict[int, dict[str, Any]] = {}
    for number, (label, row) in enumerate(part):
        found = crops[number * len(contents.VIEWS) :][: len(contents.VIEWS)]
        strips[label] = {
            "path": shown(table.paths[row]),
            "pictures": [album.add(thumbnail(c.rgb, side)) for c in found if c.rgb is not None],
            "reason": found[0].reason,
        }
    return strips


def _data(all_of_it: Gathered, place: dict[int, int]) -> dict[str, Any]:
    """Return what the page's scripts need: the images shown, column by column, and pictures."""
    table, album = all_of_it.table, all_of_it.album
    splits = contents.splits(table)
    predicted = np.full(len(table.labels), -1)
    answered = np.full(len(table.labels), -1)
    confidence = np.zeros(len(table.labels))
    for number, said in enumerate(all_of_it.answers):
        predicted[said.rows], answered[said.rows] = said.predicted, number
        confidence[said.rows] = said.confidence
    rows = album.rows
    return {
        "classes": [shown(name) for name in table.classes],
        "splits": [split or "unlabelled" for split in splits],
        "answers": [said.split for said in all_of_it.answers],
        "images": {
            "path": [shown(table.paths[row]) for row in rows],
            "label": table.labels[rows].tolist(),
            "split": [splits.index(table.splits[row]) for row in rows],
            "picture": [album.of.get(row, -1) for row in rows],
            "predicted": predicted[rows].tolist(),
            "answered": answered[rows].tolist(),
            "confidence": [round(value, 4) for value in confidence[rows].tolist()],
        },
        "missing": {str(place[row]): reason for row, reason in album.missing.items()},
        "layouts": [
            {
                "name": one.name,
                "title": one.title,
                "note": one.note,
                "points": [round(value, 4) for value in one.points.reshape(-1).tolist()],
            }
            for one in all_of_it.layouts
        ],
        "pictures": [base64.b64encode(one).decode() for one in album.pictures],
    }
