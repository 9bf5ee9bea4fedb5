"""docs/trunks.md lists what the tables refuse."""

import sys
from pathlib import Path

from pipeline.trunks.sources import from_timm

SCRIPTS = Path(__file__).parents[1] / "scripts"


def test_the_page_lists_what_is_refused_and_why(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
    import make_trunks

    page = make_trunks.PAGE.read_text()
    assert make_trunks.with_table(page) == page, "run scripts/make_trunks.py"
    monkeypatch.setitem(from_timm.REFUSED, "of a reason", "some_module")
    assert "| timm | `some_module` | of a reason |" in make_trunks.with_table(page)
