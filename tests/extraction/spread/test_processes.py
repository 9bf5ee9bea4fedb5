"""Several processes compute one extraction; some of them die, or the one that asked for it."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import make_folder

import pipeline
from pipeline.errors import PipelineError, UsageError
from pipeline.extraction import plan
from pipeline.extraction.extract import extract_table
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.spread import processes
from pipeline.images.decoding import probe
from pipeline.progress import Silent
from pipeline.store import upkeep
from pipeline.store.cache import Cache

DRIVER = Path(__file__).with_name("child_driver.py")
CRASH_DRIVER = Path(__file__).parents[1] / "crash_driver.py"
TWO = ExtractOptions(precision="fp32", workers=1, processes=2)


class Heard(Silent):
    """Keeps what is told, and does something at each step."""

    def __init__(self, step=lambda: None):
        self.told, self.done, self.step = [], 0, step

    def say(self, sentence):
        self.told.append(sentence)

    def start(self, what, total):
        self.done = 0

    def advance(self, count, bad=0):
        self.done += count
        self.step()


@pytest.fixture
def folder(tmp_path, fake_trunk, monkeypatch):
    monkeypatch.setattr(plan, "SHARD_ROWS", 4)
    monkeypatch.setattr(processes, "COMMAND", (sys.executable, str(DRIVER)))
    monkeypatch.setenv("CHILD_DRIVER", json.dumps({"sleep": 0.05}))
    return make_folder(tmp_path / "photos", each=30)


@pytest.fixture
def started(monkeypatch):
    """Give the processes that are started."""
    found, real = [], subprocess.Popen

    def popen(*args, **options):
        found.append(real(*args, **options))
        return found[-1]

    monkeypatch.setattr(processes.subprocess, "Popen", popen)
    return found


def one_process(folder, cache):
    return extract_table(folder, ExtractOptions(precision="fp32"), Cache.at(cache))


@pytest.mark.slow
def test_a_process_that_is_killed_is_told_and_what_it_had_begun_is_done_again(
    folder, tmp_path, started
):
    cache = Cache.at(tmp_path / "c")

    def kill():
        if heard.done > 10 and len(started) == 2:
            started[0].kill()

    heard = Heard(kill)
    done = extract_table(folder, TWO, cache, heard)
    want = one_process(folder, tmp_path / "w")
    assert len(started) >= 3 and all(process.poll() is not None for process in started)
    assert done.extracted == 60 and done.table.table_id == want.table.table_id
    np.testing.assert_array_equal(done.table.features, want.table.features)
    assert any(f"(pid {started[0].pid}) ended suddenly, by SIGKILL: " in s for s in heard.told)
    assert heard.done == 60
    assert upkeep.verify(cache).problems == {}
    assert not [*(cache.root / "runs").iterdir(), *cache.plans.iterdir()]


@pytest.mark.slow
def test_an_image_that_crashes_one_process_is_left_out_by_the_others(
    folder, tmp_path, started, monkeypatch
):
    crashing = (folder / "bees" / "007.png").read_bytes()
    at = {hashlib.sha256(crashing).hexdigest(): int(signal.SIGSEGV)}
    monkeypatch.setenv("CHILD_DRIVER", json.dumps({"at": at}))
    monkeypatch.setenv("CRASH_DRIVER", json.dumps(at))
    # the child imports `probe` afresh, and so takes its command from here
    program = (
        "import sys, runpy; from pipeline.images.decoding import probe\n"
        f"probe.COMMAND = (sys.executable, {str(CRASH_DRIVER)!r}, '--probe')\n"
        f"runpy.run_path({str(DRIVER)!r}, run_name='__main__')"
    )
    monkeypatch.setattr(processes, "COMMAND", (sys.executable, "-c", program))
    heard = Heard()
    done = extract_table(folder, TWO, Cache.at(tmp_path / "c"), heard)
    assert done.bad == (("bees/007.png", probe.REASON),) and done.extracted == 59
    assert any("by SIGSEGV" in sentence for sentence in heard.told)
    assert any("looking at it apart" in sentence for sentence in heard.told)


def test_processes_that_keep_dying_end_the_run_with_a_sentence(folder, tmp_path, monkeypatch):
    program = "import os; os.read(0, 1); os.kill(os.getpid(), 9)"
    monkeypatch.setattr(processes, "COMMAND", (sys.executable, "-c", program))
    with pytest.raises(
        PipelineError, match=r"4 processes ended suddenly, .* by SIGKILL\. .*memory"
    ):
        extract_table(folder, TWO, Cache.at(tmp_path / "c"))


def test_what_a_process_raises_is_raised_here(folder, tmp_path, monkeypatch, started):
    program = 'print(\'{"error": ["UsageError", "no such device"]}\', flush=True); input()'
    monkeypatch.setattr(processes, "COMMAND", (sys.executable, "-c", program))
    with pytest.raises(UsageError, match="no such device"):
        extract_table(folder, TWO, Cache.at(tmp_path / "c"))
    assert all(process.poll() is not None for process in started)


@pytest.mark.slow
def test_with_a_real_trunk_the_bits_are_those_of_one_process_with_as_many_threads(tmp_path):
    folder = make_folder(tmp_path / "photos", each=12)
    program = (
        "import sys; from pipeline.extraction import plan; plan.SHARD_ROWS = 4\n"
        "from pipeline.cli import main; main(sys.argv[1:], prog_name='pipeline')"
    )
    words = ["extract", str(folder), "--trunk", "squeezenet1_1", "--weights", "random",
             "--image-size", "32", "--batch-size", "4", "--precision", "fp32", "--engine", "torch",
             "--json", "--cache"]  # fmt: skip

    def run(cache, *more):
        done = subprocess.run(
            [sys.executable, "-c", program, *words, str(tmp_path / cache), *more],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0 and done.stderr == "", done.stderr
        return pipeline.FeatureTable.open(json.loads(done.stdout)["table"])

    one, two = run("a"), run("b", "--processes", "2")
    assert one.table_id == two.table_id
    assert one.features.tobytes() == two.features.tobytes()


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_when_the_one_that_asked_is_stopped_or_killed_its_processes_end(
    folder, tmp_path, number, code
):
    if not Path("/proc/self/task").exists():
        pytest.skip("this system does not list a process's children")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); sys.path.insert(0, sys.argv[1] + '/..')\n"
        "from share_driver import arm; arm()\n"
        "from pipeline.extraction.spread import processes\n"
        "processes.COMMAND = (sys.executable, sys.argv[1] + '/child_driver.py')\n"
        "from pipeline.cli import main; main(sys.argv[2:], prog_name='pipeline')"
    )
    cache = tmp_path / "c"
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(DRIVER.parent), "extract", str(folder),
         "--precision", "fp32", "--workers", "1", "--processes", "2", "--cache", str(cache)],
        env={**os.environ, "CHILD_DRIVER": json.dumps({"sleep": 0.5})},
        stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while len(list(cache.glob("plans/*/[0-9]*.json"))) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    begun = children(process.pid)
    process.send_signal(number)
    error = process.communicate()[1]
    assert process.returncode == code, error
    if code == 130:
        assert "of 60 images are in the cache" in error and "Traceback" not in error
    while any(map(alive, begun)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(begun) == 2 and not any(map(alive, begun))
    store = Cache.at(cache)
    assert upkeep.verify(store).problems == {}
    done = extract_table(folder, ExtractOptions(precision="fp32"), store)
    assert 0 < done.extracted < 60
    want = one_process(folder, tmp_path / "w")
    np.testing.assert_array_equal(done.table.features, want.table.features)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"processes": 0}, "--processes 0 is below 1"),
        ({"on": "host:8786"}, "--on 'host:8786' is neither dask nor like tcp://host:8786"),
        ({"on": "tcp://host:8786", "processes": 2}, "--processes is for this machine"),
        ({"trunk": "own/mine", "processes": 2}, "given as an object lives in this process alone"),
    ],
)
def test_what_cannot_be_done_in_several_processes_is_refused(options, said):
    with pytest.raises(UsageError, match=said):
        ExtractOptions(**options).check()
