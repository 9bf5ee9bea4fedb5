"""From what was gathered to all that the page's template reads, and the data of its scripts."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from pipeline import plotting
from pipeline.analysis.auditing.audit import Audit
from pipeline.heads.leaderboard import Ranked, chosen_by, trained_on
from pipeline.heads.resolve import Artefact
from pipeline.images.datasets.imageset import ImageSet
from pipeline.images.decoding.reading import Guard
from pipeline.images.names import shown
from pipeline.images.preprocess import Preprocess
from pipeline.images.thumbnails import thumbnail, views
from pipeline.images.views import POLICIES, known, numbers
from pipeline.reporting.page import advice, album, choice, contents, findings
from pipeline.reporting.page.album import Album
from pipeline.reporting.page.answers import Answers
from pipeline.reporting.page.embedding import Layout
from pipeline.reporting.page.repeat import commands, versions
from pipeline.store.cache import Cache
from pipeline.store.result_records import HeadInfo, ModelInfo
from pipeline.store.table import FeatureTable


@dataclass(frozen=True, eq=False)
class Found:
    """What the cache holds on a table. Two are equal when they are the same object.

    Attributes:
        table: that the page is about.
        cache: where all of it is.
        images: of the table, where they lie now.
        heads: its leaderboard.
        models: its models, best first.
        looked: the head or model whose mistakes are shown, or None.
        info: its `head.json` or `model.json`, or None.
        damaged: a sentence on each head or model of the cache that cannot be read.
        advice: that is kept on the table, or None.
        advice_note: why it cannot be read; else empty.
    """

    table: FeatureTable
    cache: Cache
    images: ImageSet
    heads: list[Ranked[HeadInfo]]
    models: list[Ranked[ModelInfo]]
    looked: Artefact | None
    info: HeadInfo | ModelInfo | None
    damaged: list[str]
    advice: dict[str, Any] | None
    advice_note: str


def record(
    found: Found,
    *,
    answers: list[Answers],
    audit: Audit,
    pictures: Album,
    layouts: list[Layout],
    listing: str,
    spent: dict[str, float],
    origin: str,
    workers: int,
    guard: Guard,
) -> dict[str, Any]:
    """Return what the page shows.

    Args:
        found: what the cache holds.
        answers: what the head or model predicted, by split.
        audit: of the table.
        pictures: of the page; more are added.
        layouts: maps of the album's rows.
        listing: name of the file beside the page that lists the findings.
        spent: seconds of the page so far, by part.
        origin: what the page is known by; empty where it is to be made again in any case.
        workers: decoding threads.
        guard: asked before each image is decoded.
    """
    table, given, info = found.table, found.table.provenance, found.info
    heads, models = [one.info for one in found.heads], [one.info for one in found.models]
    place = {row: number for number, row in enumerate(pictures.rows)}
    classes, samples = contents.classes(table), contents.samples(table)
    counts = np.array([line["counts"] for line in classes]).reshape(-1, len(table.split_counts))
    size, policy = given.preprocess, known(models[0].policy if models else None)
    return {
        "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "version": version("headstart"),
        "origin": origin,
        "table": table,
        "source": given,
        "root": found.images.root,
        "preprocess": f"{'squash' if size['squash'] else 'short side'} to {size['resize']}, centre "
        f"crop {size['crop']}, {size['interpolation']}",
        "looked": found.looked,
        "info": info,
        "kind": "" if info is None else _kind(info),
        "splits": [split or "unlabelled" for split in table.split_counts],
        "classes": classes,
        "samples": samples,
        "strips": _strips(found, samples, pictures, policy, workers, guard),
        "drawn_views": _drawn(policy, learned=bool(models) and models[0].policy in POLICIES),
        "totals": counts.sum(0).tolist(),
        "largest": counts.max(0, initial=1).tolist(),
        "unlabelled": int((table.labels < 0).sum()),
        "left_out": contents.left_out(table),
        "damaged": found.damaged,
        "lowest": choice.lowest(found.heads, found.models),
        "heads": choice.groups(found.heads, chosen_by),
        "models": choice.groups(found.models, trained_on),
        "penalties": [
            {**curve, "svg": plotting.penalty(curve, name=f"penalty-{number}")}
            for number, curve in enumerate(choice.penalty_curves(found.heads))
        ],
        "learning": [
            _learning(info, number) for number, info in enumerate(models[: choice.MOST_CURVES])
        ],
        "costs": [*choice.costs(table, found.cache, heads, models), choice.cost_of_page(spent)],
        "advice": found.advice and advice.section(found.advice, heads=heads, models=models),
        "advice_note": found.advice_note,
        "answers": answers,
        "place": place,
        "audit": findings.section(audit.findings),
        "audit_notes": audit.notes,
        "pictures_of_each": findings.PICTURES,
        "listing": listing,
        "commands": commands(table, heads, models, found.advice),
        "versions": versions(table, heads, models),
        "images": pictures,
        "layouts": layouts,
        "data": _data(table, answers, pictures, layouts, place),
    }


def _kind(info: HeadInfo | ModelInfo) -> str:
    """Return what a head or model is, in a few words."""
    if isinstance(info, HeadInfo):
        how = info.clf
    else:
        how = "from scratch" if info.from_scratch else f"{info.unfreeze} unfrozen"
    return f"{how} on {info.trunk}"


def _learning(info: ModelInfo, number: int) -> dict[str, Any]:
    """Return a model with its learning curve, in a sentence and drawn."""
    sentence = choice.learning_curve(info)
    svg = plotting.learning(
        info.history, info.chosen.start, best=info.best_epoch, on=info.selected_on,
        name=f"learning-{number}", title=sentence,
    )  # fmt: skip
    return {"info": info, "sentence": sentence, "svg": svg}


def _drawn(policy: str, *, learned: bool) -> str:
    """Return what a strip shows behind the evaluation view, in words."""
    if policy == "none":
        return "and nothing else, since the best model learned from no augmented views"
    how = "which the best model learned from" if learned else "as fine-tuning may use them"
    return f"then augmented views of the policy {policy}, {how}"


def _strips(
    found: Found,
    samples: dict[int, list[int]],
    pictures: Album,
    policy: str,
    workers: int,
    guard: Guard,
) -> dict[int, dict[str, Any]]:
    """Return for some classes the views of one image, put into the album."""
    table = found.table
    part = [(label, rows[0]) for label, rows in samples.items() if rows][: contents.STRIPS]
    preprocess = Preprocess.from_json(table.provenance.preprocess)
    side = min(preprocess.crop, album.SIDE)
    drawn = (0, *numbers(policy, contents.VIEWS))
    wanted = (
        (found.images.file(row), found.images.digests[row], view)
        for _, row in part
        for view in drawn
    )
    crops = views(wanted, preprocess.with_size(side), workers=workers, guard=guard)
    strips: dict[int, dict[str, Any]] = {}
    for label, row in part:
        own = [next(crops) for _ in drawn]
        strips[label] = {
            "path": table.paths[row],
            "pictures": [pictures.add(thumbnail(c.rgb, side)) for c in own if c.rgb is not None],
            "reason": own[0].reason,
        }
    return strips


def _data(
    table: FeatureTable,
    answers: list[Answers],
    pictures: Album,
    layouts: list[Layout],
    place: dict[int, int],
) -> dict[str, Any]:
    """Return what the page's scripts need: the images shown, column by column, and pictures."""
    splits = list(table.split_counts)
    predicted = np.full(len(table.labels), -1)
    answered = np.full(len(table.labels), -1)
    confidence = np.zeros(len(table.labels))
    for number, one in enumerate(answers):
        predicted[one.rows], answered[one.rows] = one.predicted, number
        confidence[one.rows] = one.confidence
    rows = pictures.rows
    return {
        "classes": [shown(name) for name in table.classes],
        "splits": [split or "unlabelled" for split in splits],
        "answers": [one.split for one in answers],
        "images": {
            "path": [shown(table.paths[row]) for row in rows],
            "label": table.labels[rows].tolist(),
            "split": [splits.index(table.splits[row]) for row in rows],
            "picture": [pictures.of.get(row, -1) for row in rows],
            "predicted": predicted[rows].tolist(),
            "answered": answered[rows].tolist(),
            "confidence": [round(value, 4) for value in confidence[rows].tolist()],
        },
        "missing": {str(place[row]): reason for row, reason in pictures.missing.items()},
        "layouts": [
            {**vars(one), "points": [round(value, 4) for value in one.points.ravel().tolist()]}
            for one in layouts
        ],
        "pictures": [base64.b64encode(one).decode() for one in pictures.pictures],
    }
