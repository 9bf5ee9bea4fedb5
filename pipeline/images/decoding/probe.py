"""Find out, in a process of its own, which images crash the decoder.

    python -m pipeline.images.decoding.probe

reads images from standard input, each after its length, decodes them and answers each with a byte.
Where it dies by one of `CRASHES`, the image in its hands is to blame, if it happens twice.
"""

from __future__ import annotations

import io
import os
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from pipeline.errors import BadImage

#: The reason with which such an image is left out.
REASON = "crashes the decoder"
#: Signals that a process's own fault raises. Not SIGKILL: that is the system short of memory, or
#: a person, and never an image's fault.
CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL})
#: `-P`: the working folder may be a person's, with a `torch.py` in it.
COMMAND = (sys.executable, "-P", "-m", "pipeline.images.decoding.probe")
_LENGTH = struct.Struct("<Q")
_TRIES = 2


@contextmanager
def looking() -> Iterator[Callable[[bytes], bool]]:
    """Give a function that says of an image, a file's bytes, whether it crashes the decoder.

    Each is decoded in another process, and where that crashes once more in a fresh one. Where the
    process does not even start, or the system kills it, no image is blamed. Threads take turns.
    """
    child, turn = _Child(), Lock()

    def crashes(data: bytes) -> bool:
        with turn:
            return all(_crashes(child, data) for _ in range(_TRIES))

    try:
        yield crashes
    finally:
        if child.process is not None:
            child.end(kill=True)


class _Child:
    """A process that decodes what it is sent; started when it is needed."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> bool:
        """Start it where it does not run; say whether it is ready."""
        if self.process is None:
            package = str(Path(__file__).parents[2])
            path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
            self.process = subprocess.Popen(
                COMMAND,
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # what an abort has to say
            )
            return self.answers()
        return True

    def answers(self) -> bool:
        """Wait for its next answer; False where it ends instead."""
        assert self.process is not None and self.process.stdout is not None
        return bool(self.process.stdout.read(1))

    def end(self, *, kill: bool = False) -> int:
        """Wait for it, and return its exit code, or minus the signal that it died by."""
        assert self.process is not None
        if kill:
            self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                pass  # it is dead already
        code = self.process.wait()
        self.process = None
        return code


def _crashes(child: _Child, data: bytes) -> bool:
    if not child.start():
        child.end(kill=True)
        return False
    assert child.process is not None and child.process.stdin is not None
    try:
        child.process.stdin.write(_LENGTH.pack(len(data)) + data)
        child.process.stdin.flush()
    except BrokenPipeError:
        pass  # it died between two images: of no image
    else:
        if child.answers():
            return False
        return -child.end() in CRASHES
    child.end()
    return False


def _serve(source: BinaryIO, answers: BinaryIO) -> None:
    """Decode what comes until nothing comes."""
    from pipeline.images.decoding.decode import decode

    answers.write(b"r")
    answers.flush()
    while head := source.read(_LENGTH.size):
        data = source.read(_LENGTH.unpack(head)[0])
        try:
            if _memory_for(data):  # without it an abort says nothing about the image
                decode(data)
                decode(data, least=1)  # the other way, for a JPEG larger than it is needed
        except (BadImage, MemoryError, OSError):
            pass  # the run itself tells
        answers.write(b".")
        answers.flush()


def _memory_for(data: bytes) -> bool:
    """Tell whether there is memory for the picture that a file's header promises."""
    from PIL import Image

    from pipeline.images.decoding.decode import MAX_PIXELS, fits
    from pipeline.images.decoding.formats import PILLOW_NAMES

    try:
        with Image.open(io.BytesIO(data), formats=list(PILLOW_NAMES.values())) as image:
            width, height = image.size
    except MemoryError:
        return False
    except Exception:  # a header that cannot be read promises nothing
        width = height = 0
    return fits(min(width * height, MAX_PIXELS))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no core files in the person's folder
    with os.fdopen(os.dup(1), "wb") as to_parent:
        os.dup2(2, 1)  # what a library prints is no answer
        _serve(sys.stdin.buffer, to_parent)
