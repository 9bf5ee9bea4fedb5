"""Look for faults in a labelled data set: copies, wrong labels, images that do not belong."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.auditing.findings import KINDS, Finding
from pipeline.store.table import FeatureTable


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


def audit(table: FeatureTable) -> Audit:
    """Return what is suspicious in a table; reads its features alone, not the images."""
    findings: list[Finding] = []
    findings.sort(key=lambda finding: (KINDS.index(finding.kind), -finding.score))
    return Audit(table, tuple(findings))
