"""Dask computes an extraction, while workers die and the scheduler is lost and started again."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_folder, picture

from pipeline.errors import PipelineError
from pipeline.extraction import plan
from pipeline.extraction.extract import extract_table
from pipeline.extraction.options import ExtractOptions
from pipeline.extraction.spread import on_dask
from pipeline.progress import Silent
from pipeline.store import upkeep
from pipeline.store.cache import Cache

PRELOAD = Path(__file__).with_name("worker_preload.py")
OPTIONS = ExtractOptions(precision="fp32", workers=1)


class Heard(Silent):
    def __init__(self):
        self.told, self.done = [], 0

    def say(self, sentence):
        self.told.append(sentence)

    def start(self, what, total):
        self.done = 0

    def advance(self, count, bad=0):
        self.done += count


class Site:
    """A scheduler and workers in processes of their own, without nannies."""

    def __init__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
        self.processes = []
        self.schedule()

    def _start(self, module, *words):
        process = subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{module}", *words],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def schedule(self):
        host, _, port = self.address.removeprefix("tcp://").partition(":")
        words = ("--host", host, "--port", port, "--no-dashboard")
        self.scheduler = self._start("dask_scheduler", *words)

    def work(self, *words):
        return self._start(
            "dask_worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard",
            "--preload", str(PRELOAD), *words,
        )  # fmt: skip

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def site():
    pytest.importorskip("distributed", reason="Dask is not installed: the extra dask")
    made = Site()
    yield made
    made.end()


@pytest.fixture
def folder(tmp_path, fake_trunk, monkeypatch):
    monkeypatch.setattr(plan, "SHARD_ROWS", 4)
    monkeypatch.setenv("CHILD_DRIVER", json.dumps({"sleep": 0.1}))
    made = make_folder(tmp_path / "photos", each=60)
    (made / "ants" / "bad.png").write_bytes(picture(1)[:100])
    return made


def compare(done, folder, cache, other):
    want = extract_table(folder, OPTIONS, other)
    assert done.table.table_id == want.table.table_id and done.bad == want.bad
    np.testing.assert_array_equal(done.table.features, want.table.features)
    assert upkeep.verify(cache).problems == {}
    assert not [*(cache.root / "runs").iterdir(), *cache.plans.iterdir()]
    (store,) = cache.stores()
    assert len(store.index().rows) == sum(len(store.check(name)[0]) for name in store.names())


@pytest.mark.slow
def test_workers_that_die_and_a_scheduler_that_is_lost_cost_nothing_but_time(
    folder, tmp_path, site
):
    cache, parts = Cache.at(tmp_path / "c"), 31
    workers = [site.work() for _ in range(3)]

    def until(share):
        while len(list(cache.plans.glob("*/[0-9]*.json"))) < share * parts:
            time.sleep(0.01)

    def trouble():
        until(0.3)
        workers[0].kill()
        until(0.4)
        site.scheduler.kill()
        site.scheduler.wait()
        for worker in workers[1:]:  # as a cluster's manager does, which starts all of it again
            worker.kill()
        site.schedule()
        again = [site.work() for _ in range(3)]
        until(0.6)
        again[0].send_signal(signal.SIGSTOP)
        again[1].kill()
        site.work()
        time.sleep(1)
        again[0].send_signal(signal.SIGCONT)

    thread = threading.Thread(target=trouble, daemon=True)
    thread.start()
    heard = Heard()
    done = extract_table(folder, replace(OPTIONS, on=site.address), cache, heard)
    thread.join(60)
    assert done.extracted == 120 and heard.done == 121
    assert any("is gone: waiting for it" in sentence for sentence in heard.told)
    compare(done, folder, cache, Cache.at(tmp_path / "w"))


@pytest.mark.slow
def test_a_cluster_of_this_machine_starts_workers_anew_that_die(folder, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="Dask is not installed: the extra dask")
    import dask

    cache, found = Cache.at(tmp_path / "c"), []

    def trouble():
        while len(list(cache.plans.glob("*/[0-9]*.json"))) < 8:
            time.sleep(0.01)
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                mine = f"PPID_OF_TEST={os.getpid()}".encode() in path.read_bytes()
                word = (path.parent / "cmdline").read_bytes()
            except OSError:
                continue
            if mine and b"spawn_main" in word:
                found.append(int(path.parent.name))
        os.kill(max(found), signal.SIGKILL)

    monkeypatch.setenv("PPID_OF_TEST", str(os.getpid()))
    thread = threading.Thread(target=trouble, daemon=True)
    thread.start()
    # a nanny copies a file that is given by its path away from those beside it
    monkeypatch.syspath_prepend(str(PRELOAD.parent))
    with dask.config.set({"distributed.worker.preload": [PRELOAD.stem]}):
        done = extract_table(folder, replace(OPTIONS, on="dask", processes=2), cache, Heard())
    thread.join(60)
    assert len(found) == 2
    compare(done, folder, cache, Cache.at(tmp_path / "w"))


def test_without_dask_it_says_how_to_install_it(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(PipelineError, match=r"--on needs Dask: `pip install 'headstart\[dask\]'`"):
        extract_table(folder, replace(OPTIONS, on="dask"), Cache.at(tmp_path / "c"))


def test_a_scheduler_that_is_not_there_ends_in_a_sentence(folder, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="Dask is not installed: the extra dask")

    def client(*args, **options):
        raise OSError("Timed out")

    monkeypatch.setattr(distributed, "Client", client)
    monkeypatch.setattr(on_dask, "ABSENCE", 0.0)
    with pytest.raises(PipelineError, match="no Dask scheduler at tcp://nowhere:1"):
        extract_table(folder, replace(OPTIONS, on="tcp://nowhere:1"), Cache.at(tmp_path / "c"))
