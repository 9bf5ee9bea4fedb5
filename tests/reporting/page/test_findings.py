import pytest
from tables import make_table

from pipeline.analysis.auditing.audit import KINDS, Finding
from pipeline.reporting.page import findings, render


@pytest.fixture
def table(tmp_path):
    return make_table(tmp_path / "t.h5", train=30, val=6, names=("a", "=b", "c\n"))


FOUND = (
    Finding("copy", (0, 30), 1.0, None, "the same file"),
    Finding("suspect-label", (1,), 0.9, 2, "the others say c"),
    *(Finding("outlier", (n,), 50 - n, None, "far") for n in range(2, 30)),
)


def test_every_kind_has_its_place_also_where_nothing_was_found():
    found = findings.section(FOUND)
    assert [group["kind"] for group in found] == list(KINDS)
    assert [group["total"] for group in found] == [1, 0, 1, 28]


def test_only_the_most_suspicious_are_shown(monkeypatch):
    monkeypatch.setattr(findings, "SHOWN", 3)
    outliers = findings.section(FOUND)[3]
    assert outliers["total"] == 28
    assert [one.rows for one in outliers["findings"]] == [(2,), (3,), (4,)]
    assert findings.seen_first(FOUND) == [0, 30, 1, 2, 3, 4]


def test_a_finding_of_many_images_shows_some_and_counts_the_others(table):
    one = Finding("copy", tuple(range(10)), 1.0, None, "the same file")
    html = page([one], table)
    assert html.count('<li class="path">') == findings.PICTURES
    assert f"and {10 - findings.PICTURES} more" in html


def test_a_suspect_has_the_label_that_it_should_perhaps_have(table):
    html = page(FOUND[1:2], table, {1: 7})
    assert 'data-image="7"' in html and "not among the pictures" not in html
    text = '<bdi>=b</bdi> <span class="quiet">train</span><br>'
    assert text + '<span class="quiet">perhaps</span> <bdi>c\n</bdi>' in html


def page(found, table, place=None):
    """Return the section of the page with these findings."""
    return render.environment().get_template("audit.html").render(
        audit=findings.section(found), table=table, place=place or {}, listing="x.csv",
        audit_notes=(), pictures_of_each=findings.PICTURES,
    )  # fmt: skip
