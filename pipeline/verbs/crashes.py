"""What protects a run from images that crash a decoder: notes, and a look at them apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pipeline.images.names import shown
from pipeline.images.probe import crashing
from pipeline.store.flight import Flight
from pipeline.store.shards import Key, RowStore
from pipeline.verbs.progress import Progress


@contextmanager
def noted(
    store: RowStore, files: Mapping[Key, str | bytes], progress: Progress
) -> Iterator[Flight]:
    """Give the notes of a run, having looked at the images with which an earlier one ended.

    Decoding runs in threads of this process, which a crash ends with it; what was committed
    stays. The next run decodes the few images that were in flight, one for each thread at most,
    in a process of its own first, and leaves out those that crash it.

    Args:
        store: whose lock is held.
        files: (digest, view) to the path of each image (or its bytes) that will be decoded.
        progress: told what was found.

    Raises:
        PipelineError: an image cannot be read, or the notes cannot be written.
    """
    from pipeline.images.loader import read

    with Flight(store.folder) as flight:
        held = {digest: file for (digest, _), file in files.items() if digest in flight.held}
        found = []
        if held:
            count = "1 image" if len(held) == 1 else f"{len(held)} images"
            progress.say(
                f"An earlier run ended suddenly while it decoded {count}: looking at them apart."
            )
            pictures = (file if isinstance(file, bytes) else read(file) for file in held.values())
            for (digest, file), crashes in zip(held.items(), crashing(pictures), strict=True):
                if crashes:
                    found.append(digest)
                    name = shown(file) if isinstance(file, str) else "a picture"
                    progress.say(f"{name} crashes the decoder and is left out.")
        flight.begin(found)
        yield flight
