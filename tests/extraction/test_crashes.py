"""An image that crashes the decoder costs the run what was in flight, and the next run itself."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_folder

pytestmark = pytest.mark.slow
DRIVER = Path(__file__).with_name("crash_driver.py")
SEGV, ABRT, KILL = int(signal.SIGSEGV), int(signal.SIGABRT), int(signal.SIGKILL)
FIRST, SECOND = "ants/006.png", "bees/005.png"  # in the first and the second of two shards
DECODED = "bees/001.png"  # in the third batch: no longer in hand when the trunk has computed it
REASON = "crashes the decoder"
ENDS = (SEGV, ABRT, int(signal.SIGBUS), int(signal.SIGFPE), int(signal.SIGILL))

#: Runs that follow each other on one cache, by name; see the driver.
SCENARIOS = {
    **{f"by {end}": [{"at": {SECOND: end}}] * 3 for end in ENDS},
    "the second called bad": [{"refuse": [SECOND]}],
    "two in a shard": [{"at": {FIRST: SEGV, "ants/001.png": ABRT}}] * 3,
    "the two called bad": [{"refuse": [FIRST, "ants/001.png"]}],
    "after a commit": [{"forward": SEGV}, *[{"at": {DECODED: SEGV}}] * 2],
    "many threads": [{"at": {FIRST: SEGV}, "workers": 4}] * 2,
    "killed": [{"at": {FIRST: KILL}}, {"at": {FIRST: KILL}}, {}],
    "shares": [
        {"at": {FIRST: SEGV}, "part": "1/2"},
        {"at": {FIRST: SEGV}, "part": "2/2"},
        *[{"at": {FIRST: SEGV}}] * 2,
        {"at": {FIRST: SEGV}, "again": True},
    ],
    "the trunk": [{"forward": SEGV}, {}],
    "predict": [{"at": {FIRST: SEGV}, "predict": True}] * 3 + [{"predict": True}],
    "predict two": [{"at": {FIRST: SEGV, SECOND: ABRT}, "predict": True, "workers": 4}] * 4,
    "show": [{"at": {FIRST: SEGV}, "show": True}] * 3,
    "live": [{"at": {SECOND: SEGV}, "live": True}] * 3 + [{"live": True, "cache": "live well"}],
    "predict killed": [{"at": {FIRST: KILL}, "predict": True}, {"predict": True}],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return what became of every run, all made by one process and its children."""
    root = tmp_path_factory.mktemp("crashes")
    folder = make_folder(root / "photos", each=8)
    plans = [{"cache": name, **plan} for name, plans in SCENARIOS.items() for plan in plans]
    command = [sys.executable, DRIVER, folder, root, json.dumps(plans)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reports = iter(json.loads(done.stdout))
    return {name: [next(reports) for _ in plans] for name, plans in SCENARIOS.items()}


@pytest.mark.parametrize("end", ENDS)
def test_the_run_after_a_crash_leaves_the_image_out_and_is_otherwise_the_same(runs, end):
    crashed, done, warm = runs[f"by {end}"]
    assert crashed["died"] == end
    assert done["died"] == 0 and done["problems"] == []
    assert done["bad"] == [[SECOND, REASON]] and done["in_shards"] == [REASON]
    assert done["rows"] == warm["rows"] == runs["the second called bad"][0]["rows"]
    assert done["notes"] == warm["notes"] == [33]  # other trunks need not meet it again
    assert f"ended suddenly while it decoded {done['folder']}/{SECOND}: " in done["said"][0]
    assert f"{SECOND} crashes the decoder and is left out." in done["said"][1]
    assert warm["extracted"] == 0 and warm["bad"] == done["bad"] and warm["said"] == []


def test_two_such_images_in_one_shard_cost_one_run_each(runs):
    one, two, done = runs["two in a shard"]
    assert (one["died"], two["died"], done["died"]) == (ABRT, SEGV, 0)
    assert done["in_shards"] == [REASON, REASON]
    assert done["rows"] == runs["the two called bad"][0]["rows"]


def test_what_was_committed_before_a_crash_is_not_computed_again(runs):
    trunk, decoder, done = runs["after a commit"]
    assert (trunk["died"], decoder["died"]) == (SEGV, SEGV)
    assert done["extracted"] == 7 and done["bad"] == [[DECODED, REASON]]


def test_of_many_threads_only_the_image_at_fault_is_left_out(runs):
    crashed, done = runs["many threads"]
    assert crashed["died"] == SEGV and done["bad"] == [[FIRST, REASON]]


def test_an_image_at_which_the_system_kills_the_process_is_never_blamed(runs):
    one, two, done = runs["killed"]
    assert (one["died"], two["died"]) == (KILL, KILL)
    assert done["died"] == 0 and done["bad"] == [] and done["extracted"] == 16


def test_what_crashed_one_share_is_known_to_all_others_and_to_who_assembles(runs):
    crashed, other, done, warm, again = runs["shares"]
    assert crashed["died"] == SEGV and other["died"] == 0 and other["bad"] == []
    assert other["images"] == 8
    for run in (done, warm, again):
        assert run["died"] == 0 and run["bad"] == [[FIRST, REASON]] and run["problems"] == []
    assert (done["extracted"], warm["extracted"]) == (7, 0)
    assert any("looking at it apart" in said for said in again["said"])  # --rehash tries it again


def test_a_crash_of_the_trunk_blames_no_image(runs):
    crashed, done = runs["the trunk"]
    assert crashed["died"] == SEGV
    assert done["bad"] == [] and done["extracted"] == 8 and done["notes"] == []
    assert "looking at it apart" in done["said"][0]


def test_predict_after_a_crash_leaves_the_image_out_for_good(runs):
    crashed, done, again, other = runs["predict"]
    assert crashed["died"] == SEGV
    name = f"{done['folder']}/{FIRST}"
    assert done["died"] == 0 and done["done"] == 16 and done["bad"] == [[name, REASON]]
    assert done["said"] == [
        f"An earlier run ended suddenly while it decoded {name}: looking at it apart.",
        f"{name} crashes the decoder and is left out.",
    ]
    for run in (again, other):  # nothing else remembers it: its features are not kept
        assert run["died"] == 0 and run["bad"] == [[name, REASON]] and run["said"] == []
        assert run["notes"] == [33]


def test_predict_finds_two_such_images_in_a_run_each(runs):
    one, two, done, again = runs["predict two"]
    assert sorted((one["died"], two["died"])) == sorted((SEGV, ABRT))
    for run in (done, again):
        assert [reason for _, reason in run["bad"]] == [REASON, REASON] and run["done"] == 16
    assert again["said"] == []


def test_predict_blames_no_image_at_which_the_system_kills_it(runs):
    killed, done = runs["predict killed"]
    assert killed["died"] == KILL
    assert done["bad"] == [] and done["notes"] == []


def test_show_after_a_crash_leaves_the_image_out(runs):
    crashed, done, again = runs["show"]
    assert crashed["died"] == SEGV
    for run in (done, again):
        assert run["died"] == 0 and run["done"] == 16 and run["bad"] == [[FIRST, REASON]]
    assert len(done["said"]) == 2 and again["said"] == []


def test_live_activations_after_a_crash_name_the_image(runs):
    crashed, done, again, well = runs["live"]
    assert crashed["died"] == SEGV
    name = f"{done['folder']}/{SECOND}"
    for run in (done, again):
        assert run["died"] == 0
        assert run["error"] == f"{name} can no longer be decoded: {REASON}."
    assert len(done["said"]) == 2 and again["said"] == []
    assert (well["done"], well["error"], well["said"]) == (32, "", [])
