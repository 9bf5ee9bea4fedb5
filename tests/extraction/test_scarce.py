"""Too few files, a disk that errs, little shared memory: told with the system's reason.

No image is ever recorded as bad for it, and the next run gives what an undisturbed one gives.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import make_folder
from tracing import need_strace

pytestmark = pytest.mark.slow
DRIVER = Path(__file__).with_name("scarce_driver.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("photos"), each=8)


def drive(mode, folder, caches):
    command = [sys.executable, DRIVER, mode, folder, caches]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_with_few_files_the_run_works_or_says_so_and_blames_no_image(folder, tmp_path):
    report = drive("files", folder, tmp_path)
    failed = 0
    for more, run in enumerate(report["runs"]):
        assert run["left"]["blamed"] == [] and run["left"]["problems"] == {}, more
        assert run["again"] == report["want"][0], more
        if run["scarce"] != report["want"][0]:
            failed += 1
            assert "Too many open files" in run["scarce"].get("error", ""), (more, run["scarce"])
    # none can be opened: it cannot work; ten serve sixteen threads or most of them
    assert 1 <= failed < len(report["runs"])
    assert report["runs"][0]["scarce"] != report["want"][0]


def test_an_image_that_cannot_be_read_stops_the_run_and_is_not_bad(folder, tmp_path):
    need_strace()
    time.sleep(2.1)  # younger files are not remembered, and would be hashed again
    report = drive("read", folder, tmp_path)
    hashed, decoded = report["runs"]
    for run, want in zip((hashed, decoded), report["want"], strict=True):
        assert "003.png: Input/output error" in run["scarce"]["error"]
        assert run["left"]["blamed"] == [] and run["left"]["problems"] == {}
        assert run["again"] == want and want["bad"] == []
    assert "the file may be intact" in hashed["scarce"]["error"]
    assert "not the image's" not in decoded["scarce"]["error"]  # another place in the code


#: The three stages in a name space of their own, whose shared memory is small.
SMALL = """
mount -t tmpfs -o size={size} tmpfs /dev/shm || exit 77
"$0" -m pipeline extract "$1/photos" --trunk resnet18 --weights random --image-size 32 \
    --workers 4 --cache "$1/c" || exit 1
"$0" -m pipeline fit-head --clf logreg,knn --folds 2 --cache "$1/c" || exit 1
ls -A /dev/shm; df --output=size,used /dev/shm | tail -1
"""


@pytest.mark.parametrize("size", ["64m"])
def test_little_shared_memory_is_enough(tmp_path, size):
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip("this test may not mount a small /dev/shm")
    make_folder(tmp_path / "photos", each=30)
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", SMALL.format(size=size), sys.executable, tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(f"this test may not mount a small /dev/shm: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    assert "could not be decoded" not in done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.split()[0] == "65536"
