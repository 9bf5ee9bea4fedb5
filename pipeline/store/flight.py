"""`Flight`: which images a process is decoding, in a file that outlives a crash of the process.

A decoder is C code; a hostile file may end the process in it, and then nobody is left to say which
file it was. So each decoding thread notes the image's digest before it begins, in a slot of its
own, by one small write that is never synced: the process dies, not the machine. An orderly end
removes the file. Whoever finds one while holding the fingerprint's lock knows that its writer is
dead, and which few images it had in its hands.

The file: 33 bytes for each entry, what is known of it and a digest. Entries that are known to crash
come first and stay until the run ends, so that two such images in one shard do not take turns.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import PipelineError

#: The file's name, in the folder of the fingerprint.
NAME = "decoding"
_HELD, _CRASHES = b"?", b"!"
_SIZE = 33


class Flight:
    """The notes of one run; to be used as a context, under the fingerprint's lock.

    Args:
        folder: the fingerprint's.

    Attributes:
        held: digests that a run which ended suddenly was decoding then.
        crashing: digests that are known to end the process that decodes them.

    Raises:
        PipelineError: on entering, where the file cannot be opened.
    """

    def __init__(self, folder: Path):
        self.path = folder / NAME
        self.held: set[bytes] = set()
        self.crashing: set[bytes] = set()
        self._slots = threading.local()
        self._taken = 0
        self._lock = threading.Lock()
        self._file = -1

    def __enter__(self) -> Flight:
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._file = os.open(self.path, flags, 0o666)
            data = os.read(self._file, 1 << 20)
        except OSError as error:
            raise self._cannot_write(error) from error
        for start in range(0, len(data) - _SIZE + 1, _SIZE):
            kind, digest = data[start : start + 1], data[start + 1 : start + _SIZE]
            if kind in (_HELD, _CRASHES):
                (self.held if kind == _HELD else self.crashing).add(digest)
        return self

    def begin(self, crashing: Iterable[bytes]) -> None:
        """Forget what was held, and keep what is known to crash.

        Raises:
            PipelineError: it cannot be written, naming the system's reason.
        """
        self.crashing.update(crashing)
        self.held.clear()
        data = b"".join(_CRASHES + digest for digest in sorted(self.crashing))
        try:
            os.pwrite(self._file, data, 0)
            os.ftruncate(self._file, len(data))
        except OSError as error:
            raise self._cannot_write(error) from error
        self._taken = len(self.crashing)

    def _cannot_write(self, error: OSError) -> PipelineError:
        return PipelineError(
            f"Cannot write the notes on what is decoded, {self.path}: {error.strerror}."
        )

    def note(self, digest: bytes) -> None:
        """Note that this thread is about to decode an image."""
        slot = getattr(self._slots, "number", None)
        if slot is None:
            with self._lock:
                slot = self._slots.number = self._taken
                self._taken += 1
        try:
            os.pwrite(self._file, _HELD + digest, slot * _SIZE)
        except OSError:
            pass  # on a full disk the commit tells; until then only a note is missing

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Leave nothing behind after success; after an error what is known to crash."""
        try:
            if kind is None or not self.crashing:
                self.path.unlink(missing_ok=True)
            else:
                os.ftruncate(self._file, len(self.crashing) * _SIZE)
        except OSError:
            pass  # the next run looks at a few images in vain
        finally:
            os.close(self._file)
