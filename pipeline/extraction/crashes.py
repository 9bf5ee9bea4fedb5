"""What protects a run from images that crash a decoder: notes, and a look at them apart.

Decoding runs in threads of this process, which a crash ends with it; what was done stays. The next
run decodes the few images that were in flight, one for each thread at most, in a process of its own
when it meets them, and leaves out those that crash it. Each process has notes of its own, and takes
the place of those whose processes are gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock

from pipeline.errors import PipelineError
from pipeline.images.decoding.probe import REASON, crashes
from pipeline.images.decoding.reading import Guard, unguarded
from pipeline.progress import Progress
from pipeline.store.cache import Cache
from pipeline.store.in_flight import InFlightJournal, claimed


@contextmanager
def noted(cache: Cache, progress: Progress, *, again: bool = False) -> Iterator[Guard]:
    """Give the guard of a run, beside others that decode at the same time, on whatever host.

    It knows what crashed any of those that have ended, and what living ones found to crash. Where
    notes cannot be written (a cache for reading only) the run goes on without.

    Args:
        cache: in whose folder the notes of all runs lie.
        progress: told what was found.
        again: look at what is known to crash once more; the decoder may be a newer one.
    """
    with ExitStack() as stack:
        try:
            path = stack.enter_context(claimed(cache.decoding))
            journal = stack.enter_context(InFlightJournal(path))
        except PipelineError as error:
            progress.say(f"{error} An image that crashes the decoder would not be found out.")
            yield unguarded
        else:
            if again:
                journal.doubt()
            yield _guard(journal, progress)


def _guard(journal: InFlightJournal, progress: Progress) -> Guard:
    """Return what notes an image before it is decoded, and refuses one that is known to crash."""
    turn = Lock()  # the same image may be in several threads

    def guard(digest: bytes, data: bytes, name: str) -> str:
        if digest in journal.held:
            with turn:
                if digest in journal.held:
                    progress.say(
                        f"An earlier run ended suddenly while it decoded {name}: looking at it "
                        "apart."
                    )
                    journal.judge(digest, crashes=crashes(data))
                    if digest in journal.crashing:
                        progress.say(f"{name} crashes the decoder and is left out.")
        if digest in journal.crashing:
            return REASON
        journal.note(digest)
        return ""

    return guard
