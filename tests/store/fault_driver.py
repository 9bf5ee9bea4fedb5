"""Commit everything that the store commits, in processes that strace kills or makes fail.

A program of its own, without torch: it imports the store once and forks for each fault; strace
is attached to the child before its first step. Prints one JSON object.

    fault_driver.py FOLDER MODE [DOCTOR [CALL]]

MODE is `log` (the calls of one undisturbed run), `kill` (before each call on the cache), `change`
(each call that changes the cache fails, in two ways) or `read` (each file that is opened to be
read cannot be). DOCTOR names an entry of `DOCTORS`, a store that is broken on purpose; CALL
leaves out the faults at others.
"""

import errno
import hashlib
import json
import os
import stat
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from aging import age
from records import model_info
from tables import provenance
from tracing import CALLS, Call, calls, in_child

from pipeline.errors import PipelineError
from pipeline.store import atomic, cache, shards, table, upkeep
from pipeline.store.cache import Cache
from pipeline.store.columns import parts
from pipeline.store.results import MODEL
from pipeline.store.table import FeatureTable

assert "torch" not in sys.modules
FINGERPRINT = "f" * 64
KEYS = [(hashlib.sha256(bytes([n])).digest(), 0) for n in range(11)]
BAD = KEYS[5]
FAULTS = {
    "kill": ("signal=KILL",),
    "change": ("error=ENOSPC", "error=EIO"),
    "read": ("error=EMFILE", "error=EIO"),
}
PIECE = 4


def work(root: Path) -> None:
    """Do what extracting and fine-tuning do to a cache: a run, shards, a table, a model twice.

    The table is in two parts.
    """
    home = Cache.at(root)
    home.begin_run(FINGERPRINT, KEYS)
    store = home.rows(FINGERPRINT)
    index = store.index()
    missing = [key for key in KEYS if key not in index]
    with store.lock():
        for start in range(0, len(missing), PIECE):
            part = missing[start : start + PIECE]
            good = [key for key in part if key != BAD]
            rows = np.array([[*key[0][:8]] for key in good], np.float32)
            bad = [(BAD, "truncated")] if BAD in part else []
            store.commit(good, rows, bad=bad, engine="driver")
    store.discard_damaged(index.damaged)
    index, good = store.index(), [key for key in KEYS if key != BAD]
    if index.damaged:
        raise PipelineError("; ".join(index.damaged.values()))
    features = np.empty((len(good), 8), np.float32)
    store.gather(index, good, features)
    FeatureTable(
        features=features,
        labels=np.zeros(len(good), np.int64),
        splits=("train",) * len(good),
        paths=tuple(f"{n}.jpg" for n in range(len(good))),
        digests=tuple(digest.hex() for digest, _ in good),
        classes=("ants",),
        groups=None,
        shards=tuple(index.shards(good)),
        provenance=provenance(FINGERPRINT, command="driver"),
    ).write(home.tables / "photos--driver--0123456789ab.h5")
    home.set_current(home.tables / "photos--driver--0123456789ab.h5")
    for epoch in (1, 2):  # the second takes the place of the first
        atomic.commit_folder(
            root / "models" / "0123456789ab",
            lambda into, epoch=epoch: model(into, index.shards(good), epoch),
            what="the model",
        )
    home.end_run(FINGERPRINT, KEYS)


def model(into: Path, shards: list[str], epoch: int) -> None:
    info = model_info(epochs=epoch, activations=FINGERPRINT, shards=tuple(shards))
    (into / "model.safetensors").write_bytes(bytes([epoch]) * 5000)
    MODEL.write(into, info)


def tree(root: Path) -> dict[str, str]:
    """Return the sha256 of every file that counts, by its path.

    The index does not, and what tells which parts are whole: they hold times of files.
    """
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
        and path.name not in ("lock", parts.WHOLE)
        and path.parent.name != shards.INDEX
        if atomic.TEMPORARY not in str(path)
    }


def recover(root: Path) -> dict:
    """Return what a process finds that comes after: before, and after doing the work again."""
    home = Cache.at(root)
    found = {"left": list(tree(root)), "problems": upkeep.verify(home).problems}
    work(root)
    found["problems"] |= upkeep.verify(home).problems
    found["garbage"] = [str(path) for path in upkeep.garbage(home)]
    age(root)  # what a killed process left counts for nobody's only then
    waste = upkeep.garbage(home)
    found["garbage"] += [str(p) for p in waste if atomic.TEMPORARY not in str(p)]
    upkeep.collect(home, waste)
    found["temporary"] = [str(path) for path in root.rglob(f"{atomic.TEMPORARY}*")]
    return found | {"tree": tree(root)}


def on_cache(lines: list[str], root: Path) -> list[Call]:
    return [call for call in calls(lines) if any(str(root) in path for path in call.paths)]


def reads(call: Call) -> bool:
    return call.name == "openat" and "O_CREAT" not in call.text and "O_DIRECTORY" not in call.text


def survey(folder: Path) -> tuple[list[str], list[Call], dict]:
    """Return an undisturbed run's log, its calls on the cache, and the tree that it made."""
    root = folder / "whole"
    status, result, lines = in_child(work, root, ["-e", f"trace={CALLS}"])
    assert status == 0 and not result, result
    return lines, on_cache(lines, root), in_child(recover, root)[1]


def disturb(folder: Path, points: list[tuple[Call, str]], want: dict) -> dict:
    """Run once for each (call, what befalls it), then again undisturbed; return what went wrong."""
    report = {"points": len(points), "stopped": 0, "unharmed": [], "wrong": [], "left": []}
    for n, (call, fault) in enumerate(points):
        root = folder / f"fault-{n}"
        inject = f"inject={call.name}:{fault}:when={call.nth}"
        status, result, _ = in_child(work, root, ["-e", f"trace={call.name}", "-e", inject])
        _, after, _ = in_child(recover, root)
        killed = fault.startswith("signal")
        if killed:
            fine = os.WIFSIGNALED(status)
        else:
            reason = os.strerror(getattr(errno, fault.split("=")[1]))
            fine = reason in result.get("error", reason) and "raw" not in result
        stopped = os.WIFSIGNALED(status) or "error" in result
        report["stopped"] += stopped
        if not stopped:
            report["unharmed"].append(call.text)
        clean = not (after.get("problems", 1) or after["garbage"] or after["temporary"])
        same = after.get("tree") == want["tree"]
        if not (fine and clean and same):
            report["wrong"].append([call.text, fault, result, after])
        report["left"].append(len(after.get("left", ())))
    return report


# Stores that are broken on purpose: the tests must notice.


def write_in_place(path: Path, pieces, *, what: str) -> None:
    atomic.make_folder(path.parent)
    data = b"".join(pieces)
    with open(path, "wb", buffering=0) as file:
        file.write(data[:100])
        file.write(data[100:])


def rename_first(path: Path, pieces, *, what: str) -> None:
    atomic.make_folder(path.parent)
    temporary = path.with_name(f"{atomic.TEMPORARY}{os.getpid()}-x")
    with open(temporary, "wb", buffering=0) as file:
        file.write(b"".join(pieces))
        os.rename(temporary, path)
        os.fsync(file.fileno())
    atomic.sync_folder(path.parent)


def with_writer(write):
    def change() -> None:
        table.write_pieces = parts.write_pieces = write
        for module in (cache, shards):
            module.write_bytes = lambda path, data, *, what: write(path, [data], what=what)

    return change


def without_folder_sync() -> None:
    atomic.sync_folder = lambda folder: None


def without_file_sync() -> None:
    real = os.fsync
    os.fsync = lambda file: real(file) if stat.S_ISDIR(os.fstat(file).st_mode) else None


def without_exchange() -> None:
    atomic.exchange = lambda one, other: False


DOCTORS = {
    "": lambda: None,
    "no-file-sync": without_file_sync,
    "no-folder-sync": without_folder_sync,
    "rename-first": with_writer(rename_first),
    "in-place": with_writer(write_in_place),
    "no-exchange": without_exchange,
}


def main() -> None:
    parts.LARGE, parts.PART = 0, 8 * 6 * 4  # six of ten rows
    shards.RACY = -1e9  # else nothing is kept of shards of this very moment
    folder, mode, doctor, only = Path(sys.argv[1]), *[*sys.argv[2:], "", ""][:3]
    DOCTORS[doctor]()
    lines, log, want = survey(folder)
    if mode == "log":
        report = {"lines": lines, "root": str(folder / "whole"), "problems": want["problems"]}
    else:
        points = [
            (call, fault)
            for call in log
            for fault in FAULTS[mode]
            if mode == "kill" or (mode == "read") == reads(call)
            if only in ("", call.name)
        ]
        report = disturb(folder, points, want)
    report["torch"] = "torch" in sys.modules
    print(json.dumps(report))


if __name__ == "__main__":
    main()
