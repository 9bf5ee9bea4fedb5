"""System calls seen and made to fail with strace: is it there, what does its log say.

The log is that of `strace -y`, which writes the path behind each descriptor.
"""

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.errors import PipelineError

#: What changes files, or opens them; `?` lets strace pass over what this machine does not have.
CALLS = (
    "openat,?open,?creat,write,pwrite64,fsync,fdatasync,?rename,renameat,renameat2,"
    "?unlink,unlinkat,?mkdir,mkdirat,?rmdir,ftruncate,flock"
)


def need_strace() -> None:
    """Skip the test where strace is missing, or may not trace and tamper here."""
    if sys.platform != "linux" or shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    probe = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=getppid",
             "-e", "inject=getppid:error=EIO", "-E", "X=1", "true"]  # fmt: skip
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"strace may not trace here: {done.stderr.strip()[-200:]}")


@dataclass(frozen=True)
class Call:
    """One system call of a log.

    Attributes:
        name: `write`, `fsync`, …
        nth: how many calls of this name there were up to it, itself included.
        paths: those of its descriptors and arguments, in order.
        text: the whole line.
    """

    name: str
    nth: int
    paths: tuple[str, ...]
    text: str


_LINE = re.compile(r"^(?:\d+ +)?(\w+)\(")
_PATH = re.compile(r'\d<([^>]*)>|"([^"]*)"')


def calls(lines: list[str]) -> list[Call]:
    """Return the calls of a log, in order."""
    found, count = [], Counter()
    for line in lines:
        if not (match := _LINE.match(line)):
            continue  # signals, exits
        name = match[1]
        count[name] += 1
        paths = tuple(one or other for one, other in _PATH.findall(line.split(" = ")[0]))
        found.append(Call(name, count[name], paths, line))
    return found


def faults(log: list[Call], root: str) -> list[str]:
    """Return what is wrong with the order of calls in which things under `root` are committed.

    Whatever is renamed to a final name (not `.tmp-`) must have been synced after it was last
    written to, every file in it where it is a folder; and its new folder must be synced before
    anything else is renamed, and before the log ends.
    """
    dirty: set[str] = set()  # files written to and folders changed since they were synced
    unsynced: dict[str, str] = {}  # folder → the name that was renamed into it last
    wrong = []
    for call in log:
        if not call.paths or not call.paths[-1].startswith(root) or "= -1" in call.text:
            continue
        if call.name in ("write", "pwrite64", "ftruncate"):
            dirty.add(call.paths[0])
        elif call.name in ("openat", "open", "creat") and "O_CREAT" in call.text:
            dirty |= {call.paths[-1], os.path.dirname(call.paths[-1])}
        elif call.name in ("fsync", "fdatasync"):
            dirty.discard(call.paths[0])
            unsynced.pop(call.paths[0], None)
        elif call.name.startswith("mkdir") and call.paths[-1] != root:
            if "/.tmp-" not in call.paths[-1]:
                unsynced[os.path.dirname(call.paths[-1])] = call.paths[-1]
        elif call.name.startswith("rename"):
            source, target = [path for path in call.paths if path.startswith(root)][-2:]
            wrong += [f"{name} is not durable yet" for name in unsynced.values()]
            late = [path for path in dirty if path == source or path.startswith(source + "/")]
            wrong += [f"{path} is renamed before it is synced" for path in sorted(late)]
            dirty -= set(late)
            unsynced = {os.path.dirname(target): target}
    return wrong + [f"{name} is never made durable" for name in unsynced.values()]


def in_child(task, root: Path, options: list[str] | None = None) -> tuple[int, dict, list[str]]:
    """Return a forked child's wait status, what it returned, and strace's log of it.

    Args:
        task: called with `root` in the child; returns what JSON can say, or None.
        root: a path of its own; the log stands beside it.
        options: strace's, attached before the task begins; None for no strace.
    """
    (reader, writer), (started, start) = os.pipe(), os.pipe()
    if not (pid := os.fork()):
        ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # anyone may trace it
        os.read(started, 1)
        try:
            result = task(root) or {}
        except PipelineError as error:
            result = {"error": str(error)}
        except BaseException as error:
            result = {"raw": repr(error)}
        os.write(writer, json.dumps(result).encode())
        os._exit(0)
    os.close(writer)
    log, tracer = root.with_suffix(".log"), None
    if options is not None:
        command = ["strace", "-y", "-s", "0", "-o", str(log), *options, "-p", str(pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        line = tracer.stderr.readline()
        if "attached" not in line:
            os.kill(pid, signal.SIGKILL)
            sys.exit(f"strace: {line}{tracer.stderr.read()}")
    os.write(start, b"!")
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(pid, 0)
    os.close(start)
    os.close(started)
    if tracer:
        tracer.communicate()
    lines = log.read_text().splitlines() if tracer else []
    return status, json.loads(data or "{}"), lines
