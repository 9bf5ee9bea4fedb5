import json

import pytest
from advising import advice
from tables import make_table

from pipeline.errors import DamagedError, PipelineError
from pipeline.store import advice as kept
from pipeline.store import upkeep
from pipeline.store.cache import Cache
from pipeline.store.results import checksum

ID = "a" * 64


@pytest.fixture
def cache(tmp_path):
    return Cache.at(tmp_path / "cache")


def test_what_was_kept_comes_back_and_the_next_takes_its_place(cache):
    assert kept.read(cache, ID) is None
    kept.write(cache, advice(ID))
    found = kept.read(cache, ID)
    assert {name: found[name] for name in advice(ID)} == advice(ID)
    kept.write(cache, advice(ID, seconds=1.0))
    assert kept.read(cache, ID)["seconds"] == 1.0
    assert [path.name for path in cache.advice.iterdir()] == [f"{ID}.json"]


def foreign(cache, content):
    path = kept.path_of(cache, ID)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def signed(values):
    """Return a file whose checksum is right, whatever is in it."""
    values = {**values, "schema": values.get("schema", kept.SCHEMA)}
    return json.dumps({**values, "checksum": checksum(values)}).encode()


DAMAGED = {
    "empty": (b"", "is damaged: it is no JSON"),
    "cut short": (signed(advice(ID))[:-20], "is damaged: it is no JSON"),
    "no text": (b"\x89PNG\xff", "is damaged: it is no JSON"),
    "nested": (b"[" * 100_000, "is damaged: it is no JSON"),
    "no object": (b"[]", "is damaged: it is not what was written"),
    "another object": (b'{"a": 1}', "is damaged: it is not what was written"),
    "a digit": (signed(advice(ID)).replace(b"0.71", b"0.72"), "it is not what was written"),
    "newer": (signed({"schema": 2}), "is of schema 2, and this release reads 1: update"),
    "older": (signed({"schema": 0}), "is of schema 0, and this release reads 1: `pipeline advise"),
    "of another table": (signed(advice("b" * 64)), "is on another table"),
}


@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED)
def test_what_is_damaged_or_foreign_is_refused_and_named(cache, content, message):
    path = foreign(cache, content)
    with pytest.raises(DamagedError, match=message) as error:
        kept.read(cache, ID)
    assert str(path) in str(error.value)
    assert list(upkeep.verify(cache).problems) == [str(path)]


def test_what_the_system_cannot_read_is_not_called_damaged(cache):
    kept.path_of(cache, ID).mkdir(parents=True)
    with pytest.raises(PipelineError, match="Cannot read the advice") as error:
        kept.read(cache, ID)
    assert not isinstance(error.value, DamagedError)


def test_the_collector_removes_advice_on_tables_that_are_gone_and_no_other(cache):
    table = make_table(cache.tables / "t--fake--x.h5")
    for table_id in (table.table_id, ID):
        kept.write(cache, advice(table_id))
    (cache.advice / "notes.json").write_text("mine")
    assert list(upkeep.garbage(cache)) == [kept.path_of(cache, ID)]
    upkeep.collect(cache, list(upkeep.garbage(cache)))
    assert upkeep.garbage(cache) == {}
    assert upkeep.verify(cache).problems == {} and upkeep.verify(cache).results == 1
    assert kept.read(cache, table.table_id) and kept.read(cache, ID) is None
    table.path.unlink()
    assert list(upkeep.garbage(cache)) == [kept.path_of(cache, table.table_id)]
