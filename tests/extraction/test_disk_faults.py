"""What a disk may say, wherever it says it: told with the way out, and nothing is lost."""

import errno
import os

import numpy as np
import pytest
from conftest import make_folder
from records import head_info, model_info

from pipeline.errors import PipelineError
from pipeline.extraction import plan
from pipeline.extraction.extract import extract_table
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.spread.share import Share, compute_share
from pipeline.store import atomic, upkeep
from pipeline.store.cache import Cache
from pipeline.store.results import HEAD, MODEL

RECIPE = ExtractOptions(precision="fp32")
#: What the system says → what helps.
FAULTS = {
    errno.EDQUOT: "Make room in your quota",
    errno.ENOSPC: "Make room there",
    errno.EIO: "The disk may be failing",
    errno.EROFS: "Allow writing there",
    errno.ENAMETOOLONG: "Give a folder with a shorter path",
    errno.ESTALE: "Mount that disk anew",
}
#: The calls that say so.
CALLS = {
    errno.EDQUOT: ("open", "write", "mkdir"),
    errno.ENOSPC: ("open", "write", "fsync", "mkdir"),
    errno.EIO: ("write", "fsync", "replace"),
    errno.EROFS: ("open", "replace", "mkdir"),
    errno.ENAMETOOLONG: ("open", "replace", "mkdir"),
    errno.ESTALE: ("open", "write", "fsync", "replace"),
}
EVERY = [
    pytest.param(call, number, id=f"{call}-{errno.errorcode[number]}")
    for number, calls in CALLS.items()
    for call in calls
]
#: What a run cannot go on without → what its paths hold.
NEEDED = {"row": "/rows", "table": "/tables", "run": "/runs", "current": "current.json"}


@pytest.fixture
def failing(monkeypatch):
    """Let every call of a kind fail that changes a file with these words in its path."""

    def arrange(call, number, words):
        real, seen = getattr(os, call), []

        def fails(*given, **options):
            first = given[0]
            name = os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else str(first)
            changes = call != "open" or given[1] & (os.O_WRONLY | os.O_RDWR)
            if changes and words in name and not name.endswith("/lock"):
                seen.append(name)
                raise OSError(number, os.strerror(number), name)
            return real(*given, **options)

        monkeypatch.setattr(os, call, fails)
        return seen, lambda: monkeypatch.setattr(os, call, real)

    return arrange


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "SHARD_ROWS", 4)
    return make_folder(tmp_path / "photos", each=4)


@pytest.fixture
def want(folder, fake_trunk, tmp_path):
    return extract_table(folder, RECIPE, Cache.at(tmp_path / "whole")).table


def check_told(error, number):
    text = str(error.value)
    assert f": {os.strerror(number)}. {FAULTS[number]}" in text and error.value.exit_code == 1
    assert text.endswith("then the same command goes on. What was committed before is intact.")
    assert text.count("Cannot ") == 1


def check_rerun(folder, cache, want):
    assert upkeep.verify(cache).problems == {}
    done = extract_table(folder, RECIPE, cache)
    np.testing.assert_array_equal(done.table.features, want.features)
    assert done.table.table_id == want.table_id and cache.current() == done.table.path
    assert upkeep.verify(cache).problems == {} and not list(cache.root.rglob(".tmp-*"))


@pytest.mark.parametrize(("call", "number"), EVERY)
@pytest.mark.parametrize("kind", NEEDED)
def test_what_a_run_needs_and_cannot_write_is_told_and_the_rerun_completes(
    folder, cache, want, failing, kind, call, number
):
    if kind == "current" and call == "mkdir":
        pytest.skip("it stands in the cache's own folder")
    seen, mend = failing(call, number, NEEDED[kind])
    if number == errno.EROFS and kind == "current":
        assert extract_table(folder, RECIPE, cache).table.table_id == want.table_id  # and says so
    else:
        with pytest.raises(PipelineError) as error:
            extract_table(folder, RECIPE, cache)
        check_told(error, number)
    mend()
    assert seen
    check_rerun(folder, cache, want)


@pytest.mark.parametrize(("call", "number"), EVERY)
def test_an_index_that_cannot_be_kept_costs_speed_alone(
    folder, cache, want, failing, call, number, monkeypatch
):
    monkeypatch.setattr("pipeline.store.shards.RACY", -1e9)  # else nothing is kept yet
    seen, mend = failing(call, number, "/index")
    assert extract_table(folder, RECIPE, cache).table.table_id == want.table_id
    mend()
    assert seen
    check_rerun(folder, cache, want)


@pytest.mark.parametrize(("call", "number"), EVERY)
def test_a_plan_that_cannot_be_written_is_told_and_the_same_share_completes(
    folder, cache, want, failing, call, number
):
    seen, mend = failing(call, number, "/plans")
    with pytest.raises(PipelineError) as error:
        compute_share(folder, Share(1, 2), RECIPE, cache)
    check_told(error, number)
    mend()
    assert seen
    for part in (1, 2):
        compute_share(folder, Share(part, 2), RECIPE, cache)
    check_rerun(folder, cache, want)


@pytest.mark.parametrize("number", FAULTS, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["fsync", "rename", "mkdir"])
@pytest.mark.parametrize(("kind", "info"), [(HEAD, head_info()), (MODEL, model_info())])
def test_a_head_or_model_that_cannot_be_written_leaves_the_earlier_one(
    cache, failing, monkeypatch, kind, info, call, number
):
    monkeypatch.setattr(atomic, "exchange", lambda *_: False)  # which is no call of `os`
    folder = cache.root / f"{kind.name}s" / "0123456789ab"

    def write(text):
        def fill(into):
            (into / f"{kind.name}.safetensors").write_text(text)
            kind.write(into, info)

        atomic.commit_folder(folder, fill, what=f"the {kind.name}")

    write("one")
    seen, mend = failing(call, number, f"/{kind.name}s")
    with pytest.raises(PipelineError) as error:
        write("two")
    check_told(error, number)
    mend()
    assert seen and (folder / f"{kind.name}.safetensors").read_text() == "one"
    assert upkeep.verify(cache).problems == {} and not list(cache.root.rglob(".tmp-*"))
    write("two")
    assert (folder / f"{kind.name}.safetensors").read_text() == "two"
