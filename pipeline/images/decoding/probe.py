"""Find out, in a process of its own, which images crash the decoder.

    python -m pipeline.images.decoding.probe

reads an image from standard input and decodes it. Where it dies by one of `CRASHES`, the image is
to blame, if it happens twice.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

from pipeline.errors import BadImage

#: The reason with which such an image is left out.
REASON = "crashes the decoder"
#: Signals that a process's own fault raises. Not SIGKILL: that is the system short of memory, or
#: a person, and never an image's fault.
CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL})
#: `-P`: the working folder may be a person's, with a `torch.py` in it.
COMMAND = (sys.executable, "-P", "-m", "pipeline.images.decoding.probe")
#: What the process prints before it decodes: until then its end is not the image's fault.
READY = b"ready\n"
_TRIES = 2


def crashes(data: bytes) -> bool:
    """Tell whether an image, a file's bytes, crashes the decoder.

    It is decoded in another process, and where that crashes once more in a fresh one. Where the
    process does not even start, or the system kills it, no image is blamed.
    """
    package = str(Path(__file__).parents[3])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    for _ in range(_TRIES):
        done = subprocess.run(
            COMMAND,
            env={**os.environ, "PYTHONPATH": path},
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what an abort has to say
            check=False,
        )
        if not done.stdout.startswith(READY) or -done.returncode not in CRASHES:
            return False
    return True


def main() -> None:
    """Decode the image on standard input."""
    from pipeline.images.decoding.decode import decode

    data = sys.stdin.buffer.read()
    sys.stdout.buffer.write(READY)
    sys.stdout.flush()
    try:
        if _memory_for(data):  # without it an abort says nothing about the image
            decode(data)
            decode(data, least=1)  # the other way, for a JPEG larger than it is needed
    except (BadImage, MemoryError, OSError):
        pass  # the run itself tells


def _memory_for(data: bytes) -> bool:
    """Tell whether there is memory for the picture that a file's header promises."""
    from pipeline.images.decoding.formats import HEAD, sniff
    from pipeline.images.decoding.pillow import MAX_PIXELS, fits, opened

    try:
        with opened(data, sniff(data[:HEAD])) as image:
            width, height = image.size
    except MemoryError:
        return False
    except Exception:  # a header that cannot be read promises nothing
        width = height = 0
    return fits(min(width * height, MAX_PIXELS))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no core files in the person's folder
    main()
