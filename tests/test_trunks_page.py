"""docs/trunks.md lists what the tables refuse, and `names.json` what the libraries have."""

import json
import sys
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.trunks import listed
from pipeline.trunks.sources import from_timm

SCRIPTS = Path(__file__).parents[1] / "scripts"


def test_the_page_lists_what_is_refused_and_why(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
    import make_trunks

    page = make_trunks.PAGE.read_text()
    assert make_trunks.with_table(page) == page, "run scripts/make_trunks.py"
    monkeypatch.setitem(from_timm.REFUSED, "of a reason", "some_module")
    assert "| timm | `some_module` | of a reason |" in make_trunks.with_table(page)


def test_the_names_are_those_of_the_libraries_that_are_installed(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
    import make_trunks

    kept = make_trunks.NAMES.read_text()
    if json.loads(kept)["versions"] != listed.installed():
        pytest.skip("other releases are installed: there the libraries are asked")
    assert make_trunks.names() == kept, "run scripts/make_trunks.py"


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr(listed, "table", listed._read)  # here timm is imported
    if listed.table() is None:
        pytest.skip("other releases are installed: there the libraries are asked")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet", "There is no trunk 'resnet'. Did you mean "),
        ("resnet10t", "There is no trunk 'resnet10t'. Did you mean timm/resnet10t?"),
        ("timm/cait_m36_384", "cannot be cut into stages: its class token joins late"),
        ("timm/cait_m36_384.fb_dist_in1k", "cannot be cut into stages"),
        ("raft_large", "Trunk raft_large is no image classifier"),
    ],
)
def test_a_name_is_refused_from_the_table_in_the_libraries_words(table, name, words):
    from pipeline.trunks import registry

    with pytest.raises(UsageError) as quick:
        listed.check(name)
    with pytest.raises(UsageError) as slow:
        registry.find(name)
    assert words in str(quick.value)
    assert str(quick.value) == str(slow.value)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "timm/resnet10t.c3_in1k"])
def test_a_name_that_there_is_passes(table, name):
    listed.check(name)


def test_another_release_is_asked_itself(monkeypatch):
    listed._read.cache_clear()
    monkeypatch.setattr(listed, "installed", lambda: {"timm": "0", "torchvision": "0"})
    try:
        assert listed._read() is None
    finally:
        listed._read.cache_clear()
