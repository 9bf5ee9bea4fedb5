"""Killed, out of space, twice at once: nothing is lost but the shards in flight."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from conftest import make_folder, picture

from pipeline.errors import PipelineError
from pipeline.extraction import plan
from pipeline.extraction.extract import extract_table
from pipeline.extraction.options import ExtractOptions
from pipeline.store import upkeep
from pipeline.store.cache import Cache
from pipeline.store.shards import RowStore
from pipeline.trunks.engines import choice

RECIPE = ExtractOptions(precision="fp32")
DRIVER = Path(__file__).with_name("kill_driver.py")


@pytest.mark.parametrize(("behind", "stride"), [(0, 1), (1, 4)])  # parts on their way to the disk
def test_killed_at_each_step_the_rerun_is_bit_identical(tmp_path, behind, stride):
    folder = make_folder(tmp_path / "photos", each=9)
    (folder / "ants" / "bad.png").write_bytes(picture(1)[:100])
    done = subprocess.run(
        [sys.executable, DRIVER, folder, tmp_path, str(stride), str(behind)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["wrong"] == []
    assert report["want"]["calls"] > 30
    assert report["killed"] == len(range(0, report["want"]["calls"], stride))
    assert report["want"]["extracted"] == 18


@pytest.mark.slow
def test_killed_at_random_moments_with_a_real_trunk_the_rerun_is_bit_identical(tmp_path):
    folder = make_folder(tmp_path / "photos", each=10)
    program = (
        "import sys; from pipeline.extraction import plan; plan.SHARD_ROWS = 4\n"
        "from pipeline.extraction.extract import extract_table\n"
        "from pipeline.extraction.options import ExtractOptions\n"
        "from pipeline.store.cache import Cache\n"
        "recipe = ExtractOptions(image_size=32, batch_size=4)\n"
        "table = extract_table(sys.argv[1], recipe, Cache.at(sys.argv[2])).table\n"
        "print(table.features.tobytes().hex(), tuple(table.paths))\n"
    )

    def start(cache):
        command = [sys.executable, "-c", program, str(folder), str(cache)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    want = start(tmp_path / "whole").communicate()[0]
    assert want
    cache = tmp_path / "killed"
    shards = 0
    for _ in range(2):
        process = start(cache)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            now = len(list(cache.glob("rows/*/??/*.h5")))
            if now > shards:
                shards = now
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert shards >= 2
    assert start(cache).communicate()[0] == want


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this test may not mount a small tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("behind", [0, 1])
def test_a_full_disk_is_named_and_the_rerun_completes(
    tmp_path, small_disk, fake_trunk, monkeypatch, behind
):
    monkeypatch.setattr(choice, "BEHIND", {"cpu": behind})
    monkeypatch.setattr(plan, "SHARD_ROWS", 4)
    folder = make_folder(tmp_path / "photos", each=100)
    cache = Cache.at(small_disk)
    with pytest.raises(PipelineError, match=r"Cannot write the .*: No space left on device"):
        extract_table(folder, RECIPE, cache)
    # the digest memo shares the disk; what is committed can be read
    assert upkeep.verify(cache).problems == {}
    kept = sum(len(store.index().rows) for store in cache.stores())
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    done = extract_table(folder, RECIPE, cache)
    assert kept > 0 and (done.extracted, done.reused) == (200 - kept, kept)
    want = extract_table(folder, RECIPE, Cache.at(tmp_path / "whole")).table
    np.testing.assert_array_equal(done.table.features, want.features)


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
@pytest.mark.parametrize("nth", [0, 2, 4, 5])
def test_a_failing_write_anywhere_is_named_and_the_rerun_completes(
    tmp_path, fake_trunk, monkeypatch, step, nth
):
    monkeypatch.setattr(plan, "SHARD_ROWS", 8)
    folder = make_folder(tmp_path / "photos", each=12)
    cache = Cache.at(tmp_path / "cache")
    real, calls = getattr(os, step), []

    def fail(*args):
        calls.append(1)
        if len(calls) == nth + 1:
            raise OSError(5, "Input/output error")
        return real(*args)

    with monkeypatch.context() as patch:
        # its manifest is no condition: where it cannot be written the run goes on without
        patch.setattr(Cache, "reading", lambda *given: nullcontext())
        patch.setattr(RowStore, "keep", lambda *given: None)  # nor is the index
        patch.setattr(os, step, fail)
        with pytest.raises(PipelineError, match=r"Cannot (write|create) .*Input/output error"):
            extract_table(folder, RECIPE, cache)
    assert len(calls) == nth + 1
    assert upkeep.verify(cache).problems == {}
    assert not list(cache.root.rglob(".tmp-*"))
    done = extract_table(folder, RECIPE, cache)
    want = extract_table(folder, RECIPE, Cache.at(tmp_path / "whole")).table
    np.testing.assert_array_equal(done.table.features, want.features)
    assert done.table.paths == want.paths
