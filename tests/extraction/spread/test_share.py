"""Shares of an extraction by processes that know nothing of each other; who assembles them."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_folder, picture

import pipeline
from pipeline.cli import main
from pipeline.errors import PipelineError, UsageError
from pipeline.extraction import plan
from pipeline.extraction.compute import compute_parts
from pipeline.extraction.extract import extract_table
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.spread.plan_file import PlanFile
from pipeline.extraction.spread.share import Share, compute_share
from pipeline.progress import Silent
from pipeline.store import upkeep
from pipeline.store.cache import Cache
from pipeline.store.shards import RowStore

DRIVER = Path(__file__).with_name("share_driver.py")
OPTIONS = ExtractOptions(precision="fp32")


def test_killed_stopped_and_late_shares_lose_nothing_and_double_nothing(tmp_path):
    folder = make_folder(tmp_path / "photos", each=80)
    (folder / "ants" / "bad.png").write_bytes(picture(1)[:100])
    (folder / "bees" / "same.png").write_bytes(picture(0))  # of the other class, of other parts
    done = subprocess.run(
        [sys.executable, DRIVER, folder, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    want, ends = report["want"], report["ends"]
    assert (want["bad"], want["extracted"]) == (1, 160)
    assert ends["one"] is None and ends["late"] is None
    assert ends["two"]["done"] == ends["two"]["share"] == 10
    assert 0 < ends["again"]["done"] < ends["again"]["share"] == 11
    for got in (*report["got"], report["warm"]):
        assert (got["sha"], got["id"], got["bad"]) == (want["sha"], want["id"], 1)
    # what the killed and the stopped share left undone was computed by those who assemble
    assert 0 < sum(got["extracted"] for got in report["got"]) < 80
    assert report["warm"]["extracted"] == 0 and report["rows"] == 160
    assert report["problems"] == report["garbage while they run"] == report["runs"] == []


@pytest.fixture
def folder(tmp_path, fake_trunk, monkeypatch):
    monkeypatch.setattr(plan, "SHARD_ROWS", 4)
    return make_folder(tmp_path / "photos")


def shares(folder, cache, of, **options):
    asked = replace(OPTIONS, **options)
    return [compute_share(folder, Share(n + 1, of), asked, cache) for n in range(of)]


def test_each_share_computes_its_own_and_the_table_is_that_of_one_process(folder, tmp_path):
    cache = Cache.at(tmp_path / "c")
    done = shares(folder, cache, 3, views=1)
    assert [one.done for one in done] == [one.share for one in done] == [3, 3, 2]
    assert {one.parts for one in done} == {8} and sum(one.images for one in done) == 20 + 12
    got = extract_table(folder, replace(OPTIONS, views=1), cache)
    want = extract_table(folder, replace(OPTIONS, views=1), Cache.at(tmp_path / "w"))
    assert (got.extracted, got.views_computed) == (0, 0)
    assert got.table.table_id == want.table.table_id
    np.testing.assert_array_equal(got.table.features, want.table.features)
    np.testing.assert_array_equal(got.table.views, want.table.views)
    assert list((cache.root / "runs").iterdir()) == list(cache.plans.iterdir()) == []


def test_a_plan_is_the_same_on_every_host_and_one_that_begins_later_goes_on_with_it(
    folder, tmp_path
):
    here, there = Cache.at(tmp_path / "c"), Cache.at(tmp_path / "d")
    for cache in (here, there):
        compute_share(folder, Share(1, 2), OPTIONS, cache)
    ((one,), (other,)) = ([*cache.plans.iterdir()] for cache in (here, there))
    assert one.name == other.name
    assert (one / "plan.h5").read_bytes() == (other / "plan.h5").read_bytes()
    late = compute_share(folder, Share(2, 2), OPTIONS, here)  # two thirds are missing by now
    assert [*here.plans.iterdir()] == [one] and (late.parts, late.done) == (5, 2)
    assert sorted(path.name for path in one.glob("*.json")) == [f"{n}.json" for n in range(5)]


def test_a_share_that_is_done_is_not_done_again(folder, tmp_path, fake_trunk):
    cache = Cache.at(tmp_path / "c")
    first = compute_share(folder, Share(1, 2), OPTIONS, cache)
    fake_trunk.batches.clear()
    again = compute_share(folder, Share(1, 2), OPTIONS, cache)
    assert (first.done, again.done, fake_trunk.batches) == (3, 0, [])


def test_shards_that_no_listing_shows_yet_are_found_by_name(folder, tmp_path, monkeypatch):
    cache = Cache.at(tmp_path / "c")
    shares(folder, cache, 2)
    with monkeypatch.context() as patch:
        patch.setattr(RowStore, "names", lambda self: [])
        done = extract_table(folder, OPTIONS, cache)
    assert (done.extracted, done.reused) == (0, 20)


def test_a_record_of_shards_that_are_gone_is_not_believed(folder, tmp_path):
    cache = Cache.at(tmp_path / "c")
    done = shares(folder, cache, 2)
    store = cache.rows(done[0].fingerprint)
    for name in store.names()[:2]:
        store.path(name).unlink()
    assert extract_table(folder, OPTIONS, cache).extracted == 8


def test_a_damaged_plan_and_a_damaged_record_are_made_again(folder, tmp_path):
    cache = Cache.at(tmp_path / "c")
    compute_share(folder, Share(1, 2), OPTIONS, cache)
    (made,) = cache.plans.iterdir()
    (made / "0.json").write_text("{")
    (made / "plan.h5").write_bytes(b"")
    assert compute_share(folder, Share(1, 1), OPTIONS, cache).done == 2
    assert extract_table(folder, OPTIONS, cache).extracted == 0


def test_an_image_that_vanishes_costs_its_own_row_and_is_tried_again(folder, tmp_path, monkeypatch):
    cache = Cache.at(tmp_path / "c")
    gone = folder / "bees" / "003.png"
    data, write = gone.read_bytes(), PlanFile.write

    def vanish(*args):
        gone.unlink(missing_ok=True)
        return write(*args)

    monkeypatch.setattr(PlanFile, "write", vanish)
    done = compute_share(folder, Share(1, 1), OPTIONS, cache)
    assert done.images == 19 and [reason for _, reason in done.bad] == [
        "vanished while it was read"
    ]
    gone.write_bytes(data)
    assert extract_table(folder, OPTIONS, cache).extracted == 1


def test_more_bad_images_than_allowed_end_a_share_and_keep_what_was_computed(folder, tmp_path):
    cache = Cache.at(tmp_path / "c")
    for name in ("001", "002"):
        (folder / "ants" / f"{name}.png").write_bytes(picture(7)[:90])
    with pytest.raises(PipelineError, match=r"could not be decoded, and --max-bad allows 0"):
        compute_share(folder, Share(1, 1), replace(OPTIONS, max_bad=0), cache)
    assert extract_table(folder, OPTIONS, cache).table.features.shape[0] == 18


def test_the_collector_keeps_plans_of_runs_and_removes_old_ones_that_have_none(folder, tmp_path):
    from aging import age

    cache = Cache.at(tmp_path / "c")
    compute_share(folder, Share(1, 2), OPTIONS, cache)
    (made,) = cache.plans.iterdir()
    age(cache.root)
    assert upkeep.garbage(cache) == {}
    assert made in upkeep.garbage(cache, unfinished=True)
    for manifest in (cache.root / "runs").iterdir():
        manifest.unlink()
    assert made in upkeep.garbage(cache)
    upkeep.collect(cache, [made])
    assert list(cache.plans.iterdir()) == []


SLURM = {"SLURM_ARRAY_TASK_ID": "14", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "10",
         "SLURM_ARRAY_TASK_STEP": "2"}  # fmt: skip


@pytest.mark.parametrize(
    ("part", "environment", "meant"),
    [
        ("2/8", {}, Share(2, 8)),
        ("1/1", SLURM, Share(1, 1)),
        ("auto", SLURM, Share(3, 3)),
        ("auto", {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "4"}, Share(1, 4)),
        ("auto", {"RANK": "3", "WORLD_SIZE": "4"}, Share(4, 4)),
    ],
)
def test_a_share_is_what_was_asked_for_or_what_a_scheduler_says(part, environment, meant):
    assert Share.asked(part, environment) == meant


@pytest.mark.parametrize(
    ("part", "environment", "said"),
    [
        *((part, {}, f"--part {part!r} is not one of 1/N") for part in ("0/4", "5/4", "x", "1/0")),
        (2, {}, "--part 2 is not one of"),
        ("auto", {}, "started by neither a Slurm array nor torchrun. Give --part I/N"),
        ("auto", {**SLURM, "RANK": "0", "WORLD_SIZE": "2"}, "a Slurm array and torchrun"),
        ("auto", {**SLURM, "SLURM_ARRAY_TASK_ID": "13"}, "SLURM_ARRAY_TASK_ID=13 is none of the 3"),
        ("auto", {"RANK": "x", "WORLD_SIZE": "2"}, "RANK, WORLD_SIZE: invalid literal"),
    ],
)
def test_a_share_that_cannot_be_is_refused_in_a_sentence(part, environment, said):
    with pytest.raises(UsageError, match=said):
        Share.asked(part, environment)


def test_shares_of_any_number_cover_every_part_once():
    for of in (1, 3, 7, 20):
        numbers = [Share(n + 1, of).numbers(10) for n in range(of)]
        assert sorted(chain(*numbers)) == list(range(10))


def test_no_environment_changes_what_a_plain_extract_does(folder, tmp_path, monkeypatch):
    for name, value in {**SLURM, "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert pipeline.extract(folder, cache=tmp_path / "c", precision="fp32").features.shape[0] == 20


def test_the_command_prints_what_a_share_did_and_what_follows(folder, tmp_path):
    words = ["extract", str(folder), "--precision", "fp32", "--cache", str(tmp_path / "c")]
    done = CliRunner().invoke(main, [*words, "--part", "1/2"])
    assert done.exit_code == 0, done.stderr
    assert "Part     1/2: 3 of its 3 shards computed here" in done.stdout
    assert "12 extracted, 0 bad" in done.stdout and "without --part" in done.stdout
    done = CliRunner().invoke(main, [*words, "--part", "2/2", "--json"])
    assert json.loads(done.stdout)["images"] == 8 and done.stderr == ""
    done = CliRunner().invoke(main, words)
    assert "0 extracted, 20 reused" in done.stdout
    done = CliRunner().invoke(main, [*words, "--part", "3/2"])
    assert done.exit_code == 2 and "--part '3/2'" in done.stderr


@pytest.mark.parametrize(("shared", "most"), [(True, 3), (False, 5)])
def test_parts_that_others_could_take_are_not_taken_long_before_they_are_computed(
    folder, tmp_path, shared, most
):
    cache = Cache.at(tmp_path / "c")
    compute_share(folder, Share(1, 5), OPTIONS, cache)
    (made,) = cache.plans.iterdir()
    files = list(folder.rglob("*.png"))
    where = {hashlib.sha256(path.read_bytes()).digest(): str(path) for path in files}
    file = PlanFile.read(made)
    given = file.plan(cache, [where[digest] for digest, _ in file.keys])
    taken = []
    parts = (taken.append(part.number) or part for part in given.parts)
    computing = compute_parts(given, parts, cache, OPTIONS, Silent(), shared=shared)
    next(computing)
    computing.close()
    assert len(taken) == most
