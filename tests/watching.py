"""See which files of a folder are opened, by C code too, and which events Python reports."""

import ctypes
import os
import struct
import sys
from contextlib import contextmanager

import pytest

_IN_OPEN = 0x20
#: What running somebody else's code would raise (`sys.addaudithook`).
RUNS = {"os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect",
        "pickle.find_class"}  # fmt: skip
_listening: list[list[str]] = []
_hooked = []


def _hook(event, args):
    for heard in _listening:
        if event in RUNS:
            heard.append(event)


@contextmanager
def listening():
    """Yield a list of the events of `RUNS` that happen in the block."""
    if not _hooked:
        sys.addaudithook(_hook)  # cannot be taken away again
        _hooked.append(_hook)
    heard: list[str] = []
    _listening.append(heard)
    try:
        yield heard
    finally:
        _listening.remove(heard)


@contextmanager
def watching(folder):
    """Yield a list that afterwards holds the names in a folder that were opened in the block."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "inotify_init1"):
        pytest.skip("this system has no inotify")
    file = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if file < 0 or libc.inotify_add_watch(file, os.fsencode(folder), _IN_OPEN) < 0:
        pytest.skip(f"inotify may not be used: {os.strerror(ctypes.get_errno())}")
    names: list[str] = []
    try:
        yield names
    finally:
        try:
            data = os.read(file, 1 << 16)
        except BlockingIOError:
            data = b""
        os.close(file)
        while data:  # struct inotify_event: watch, mask, cookie, length, name
            length = struct.unpack_from("iIII", data)[3]
            names.append(data[16 : 16 + length].rstrip(b"\0").decode())
            data = data[16 + length :]
        names[:] = filter(None, names)  # the folder itself has no name
