"""Look for faults in a data set: copies, wrong labels, images that do not belong."""

from __future__ import annotations

import csv
import io
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.analysis.auditing import noise
from pipeline.analysis.auditing.kept import judgement
from pipeline.analysis.options import AuditOptions
from pipeline.heads.cross_validation.near_duplicates import (
    ACROSS,
    WITHIN,
    NearDuplicate,
    find_near_duplicates,
    too_many,
)
from pipeline.heads.task import check_finite, make_folds, make_group_ids
from pipeline.images.names import counted, joined
from pipeline.progress import Progress, Silent
from pipeline.store.cache import Cache
from pipeline.store.outputs import output_path, write_output
from pipeline.store.result_records import HeadInfo
from pipeline.store.results import HEAD
from pipeline.store.table import FeatureTable

#: Kinds of findings, in the order in which they are listed.
KINDS = ("copy", "near-duplicate", "suspect-label", "outlier")
FOLDS = 5
COLUMNS = (
    "kind", "path", "split", "label", "suggested", "other_path", "other_split", "other_label",
    "score", "reason",
)  # fmt: skip
#: How a list of findings begins, and what it is called where another file stands in its way.
MARK, LIST = ",".join(COLUMNS).encode(), "a list of findings of `pipeline audit`"
_ORDER = {"train": 0, "val": 1, "test": 2, "": 3}


@dataclass(frozen=True)
class Finding:
    """Something that a person should look at.

    Attributes:
        kind: one of `KINDS`.
        rows: of the table: the image, or those that are one and the same picture.
        score: how suspicious it is; comparable within a kind.
        suggested: the label that a suspect image should perhaps have, index into the table's
            classes; None for the other kinds.
        reason: a sentence.
    """

    kind: str
    rows: tuple[int, ...]
    score: float
    suggested: int | None
    reason: str


@dataclass(frozen=True, eq=False)
class Audit:
    """What was found in a table. Equal only when identical.

    Attributes:
        table: that was looked at.
        findings: by kind in the order of `KINDS`, the most suspicious of a kind first.
        notes: sentences for the person: what could not be looked for, and why.
        seconds: that it took.
    """

    table: FeatureTable
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def of_kind(self, kind: str) -> tuple[Finding, ...]:
        """Return the findings of one of `KINDS`."""
        return tuple(finding for finding in self.findings if finding.kind == kind)

    def rows(self, finding: Finding) -> list[dict[str, Any]]:
        """Return a finding as rows of `COLUMNS`: of n copies each but the first, beside it."""
        table = self.table

        def image(row: int | None) -> tuple[str, str, str]:
            if row is None:
                return "", "", ""
            return table.paths[row], table.splits[row], _label(table, row)

        first, *rest = finding.rows
        pairs: list[tuple[int, int | None]] = [(row, first) for row in rest] or [(first, None)]
        suggested = "" if finding.suggested is None else table.classes[finding.suggested]
        why = round(finding.score, 6), finding.reason
        values = [(finding.kind, *image(a), suggested, *image(b), *why) for a, b in pairs]
        return [dict(zip(COLUMNS, one, strict=True)) for one in values]

    def to_csv(self) -> bytes:
        """Return all findings as `audit.csv`; names as they are on disk."""
        buffer = io.StringIO(newline="")
        writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for finding in self.findings:
            writer.writerows(self.rows(finding))
        return buffer.getvalue().encode("utf-8", "surrogateescape")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        counts = Counter(finding.kind for finding in self.findings)
        return {
            "table": str(self.table.path),
            "images": len(self.table.labels),
            "counts": {kind: counts[kind] for kind in KINDS},
            "findings": [row for finding in self.findings for row in self.rows(finding)],
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
        }


def audit(
    table: FeatureTable | str | Path | None = None,
    *,
    compare_all: bool = False,
    output: str | Path | None = None,
    cache: str | Path | None = None,
) -> Audit:
    """Look for faults in a table, from its features alone, and write the list of them as CSV.

    Args:
        table: a table, its file, name or id; the cache's current one without it. Wrong labels are
            looked for only where it has labels.
        compare_all: look for near-copies among more than 20,000 images too, in time that grows
            with their square.
        output: CSV file to write; `<table>.audit.csv` beside the table without it.
        cache: the cache's folder; else `$PIPELINE_CACHE`, else `./cache`.

    Returns:
        The findings, by kind: `copy`, `near-duplicate`, `suspect-label`, `outlier`.

    Raises:
        PipelineError: there is no such table, its features are not finite, or the list cannot be
            written.

    Example:
        >>> import pipeline
        >>> pipeline.audit(pipeline.extract("digits")).of_kind("suspect-label")  # doctest: +SKIP
    """
    return audit_table(table, AuditOptions.of(locals()), Cache.at(cache))[0]


def find_faults(
    table: FeatureTable,
    *,
    compare_all: bool = False,
    seed: int = 0,
    heads: Sequence[HeadInfo] = (),
    progress: Progress | None = None,
) -> Audit:
    """Return what is suspicious in a table; reads its features alone, not the images.

    Args:
        table: with labels, for wrong labels; the rest is looked for without them too.
        compare_all: look for near-copies among more than 20,000 images too.
        seed: of the folds.
        heads: whose search may have judged the images already, as `kept.judgement` has it.
        progress: told of the steps.

    Raises:
        PipelineError: the table has features that are not finite.
    """
    began, progress = time.monotonic(), progress or Silent()
    check_finite(table)
    note = too_many(len(table.splits), compare_all)
    notes = [note] if note else []
    progress.start("comparing", 0)
    pairs = find_near_duplicates(
        table.features, table.digests, table.splits, pairs=ACROSS + WITHIN, compare_all=compare_all
    )
    near = [pair for pair in pairs if not pair.same_file]
    ties = [(pair.row, pair.other) for pair in near]
    progress.start("judging", 0)
    findings = [*_copies(table), *_near(table, near)]
    group_ids = make_group_ids(table.digests, table.groups, ties)
    findings += _suspects(table, group_ids, seed, heads, notes)
    progress.start("measuring", 0)
    # groups are the person's word on what belongs together, not that it is one picture
    findings += _outliers(table, make_group_ids(table.digests, None, ties))
    return Audit(table, tuple(findings), tuple(notes), time.monotonic() - began)


def audit_table(
    table: FeatureTable | str | Path | None,
    options: AuditOptions,
    cache: Cache,
    progress: Progress | None = None,
) -> tuple[Audit, Path]:
    """Do what `audit` does, and return where the list is too."""
    options.check()
    if not isinstance(table, FeatureTable):
        table = cache.open_table(table)
    place = cache.tables / "table.audit.csv"
    if table.path is not None:
        place = table.path.with_name(f"{table.path.stem}.audit.csv")
    if options.output is not None:
        place = output_path(options.output, mark=MARK, what=LIST)
    heads = HEAD.every(cache.root)[0]
    done = find_faults(table, compare_all=options.compare_all, heads=heads, progress=progress)
    write_output(place, done.to_csv(), mark=MARK, what=LIST)
    return done, place


def _copies(table: FeatureTable) -> list[Finding]:
    """Return a finding for each file that is there more than once; those across splits first."""
    by_digest: dict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(table.digests):
        by_digest[digest].append(row)
    return _same_picture(
        table, "copy",
        [(rows, 1.0, f"The same file {len(rows)} times")
         for rows in by_digest.values() if len(rows) > 1],
    )  # fmt: skip


def _near(table: FeatureTable, duplicates: list[NearDuplicate]) -> list[Finding]:
    """Return a finding for two images that are nearly the same picture; each two once."""
    once: dict[frozenset[str], NearDuplicate] = {}  # not again copies of the two, in other splits
    for one in duplicates:
        once.setdefault(frozenset((table.digests[one.row], table.digests[one.other])), one)
    return _same_picture(
        table, "near-duplicate",
        [([one.row, one.other], one.cosine, f"Nearly the same picture (cosine {one.cosine:.3f})")
         for one in once.values()],
    )  # fmt: skip


def _same_picture(
    table: FeatureTable, kind: str, pictures: list[tuple[list[int], float, str]]
) -> list[Finding]:
    """Return findings of (rows, score, reason): those across splits, or of two labels, first."""
    findings = []
    for rows, score, reason in pictures:
        # those of train first, then those of val and test
        ordered = sorted(rows, key=lambda row: (_ORDER.get(table.splits[row], 4), row))
        where = _where(table, ordered)
        findings.append(Finding(kind, tuple(ordered), score, None, f"{reason}{where}."))

    def urgency(one: Finding) -> tuple[Any, ...]:
        splits = {table.splits[row] for row in one.rows}
        labels = {int(table.labels[row]) for row in one.rows}
        return len(splits) == 1, len(labels) == 1, -one.score, one.rows

    return sorted(findings, key=urgency)


def _where(table: FeatureTable, rows: list[int]) -> str:
    """Return in which splits, and under which labels where they differ."""
    splits = list(dict.fromkeys(table.splits[row] for row in rows))
    labels = list(dict.fromkeys(f"'{_label(table, row)}'" for row in rows))
    text = f" in {joined(splits)}" if len(splits) > 1 else ""
    if len(splits) > 1:
        text += ": what is measured there is not new"
    if len(labels) > 1:
        text += f"; labelled {joined(labels)}, of which one at most is right"
    return text


def _suspects(
    table: FeatureTable,
    group_ids: np.ndarray,
    seed: int,
    heads: Sequence[HeadInfo],
    notes: list[str],
) -> list[Finding]:
    """Return the images whose label looks wrong to heads that have not seen them."""
    rows = np.flatnonzero(table.labels >= 0)
    labels = table.labels[rows]
    if (found := judgement(table, group_ids, heads)) is not None:
        judged, probabilities = noise.judgeable(table.labels, found.folds, found.probabilities)
        notes.append(
            f"Labels were judged by what the head {found.head.id} ({found.head.clf}) said of "
            "images that it had not seen."
        )
    else:
        folds = []
        if len(np.unique(labels)) > 1:
            folds = make_folds(rows, labels, group_ids[rows], count=FOLDS, seed=seed)
        if not folds:
            notes.append(
                "Wrong labels were not looked for: that takes two classes of two different images "
                "each at least."
            )
            return []
        judged, probabilities = noise.judge(
            table.features, table.labels, folds, classes=len(table.classes), seed=seed
        )
    if lost := len(rows) - len(judged):
        notes.append(
            f"The labels of {counted(lost, 'image')} could not be judged: their class has no other "
            "image to learn from."
        )
    findings = []
    for place, suggested in zip(*noise.suspects(table.labels[judged], probabilities), strict=True):
        row, p = int(judged[place]), probabilities[place]
        own = float(p[table.labels[row]])
        reason = (
            f"Looks like '{table.classes[suggested]}' ({p[suggested]:.2f}), not like "
            f"'{_label(table, row)}' ({own:.2f}), to a head that saw neither it nor a copy."
        )
        findings.append(Finding("suspect-label", (row,), 1 - own, int(suggested), reason))
    return findings


def _outliers(table: FeatureTable, same: np.ndarray) -> list[Finding]:
    """Return the images that are far from the others of their class."""
    findings = []
    for row, score, times in noise.outliers(table.features, table.labels, same):
        label = _label(table, row)
        others = f"the most alike of '{label}'" if label else "the images most like it"
        reason = f"{times:.1f} times as far from {others} as images usually are."
        findings.append(Finding("outlier", (row,), score, None, reason))
    return findings


def _label(table: FeatureTable, row: int) -> str:
    label = int(table.labels[row])
    return table.classes[label] if label >= 0 else ""
