import pytest
from tables import make_table

from pipeline.analysis.auditing.audit import KINDS, Finding
from pipeline.reporting.page import findings


@pytest.fixture
def table(tmp_path):
    return make_table(tmp_path / "t.h5", train=30, val=6, names=("a", "=b", "c\n"))


FOUND = (
    Finding("copy", (0, 30), 1.0, None, "the same file"),
    Finding("suspect-label", (1,), 0.9, 2, "the others say c"),
    *(Finding("outlier", (n,), 50 - n, None, "far") for n in range(2, 30)),
)


def test_every_kind_has_its_place_also_where_nothing_was_found(table):
    found = findings.section(FOUND, table, {})
    assert [group["kind"] for group in found] == list(KINDS)
    assert [group["total"] for group in found] == [1, 0, 1, 28]


def test_only_the_most_suspicious_are_shown(table, monkeypatch):
    monkeypatch.setattr(findings, "SHOWN", 3)
    outliers = findings.section(FOUND, table, {})[3]
    assert outliers["total"] == 28
    assert [one["images"][0]["path"] for one in outliers["findings"]] == list(table.paths[2:5])
    assert findings.seen_first(FOUND) == [0, 30, 1, 2, 3, 4]


def test_a_finding_of_many_images_shows_some_and_counts_the_others(table):
    one = Finding("copy", tuple(range(10)), 1.0, None, "the same file")
    (shown,) = findings.section([one], table, {})[0]["findings"]
    assert len(shown["images"]) == findings.PICTURES
    assert shown["more"] == 10 - findings.PICTURES


def test_a_suspect_has_the_label_that_it_should_perhaps_have(table):
    (one,) = findings.section(FOUND, table, {1: 7})[2]["findings"]
    assert one["suggested"] == "c\n"
    assert one["images"][0] | {"path": ""} == {
        "image": 7,
        "path": "",
        "split": "train",
        "label": "=b",
    }
