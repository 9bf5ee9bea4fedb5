"""From any number of paths to batches of crops, in bounded memory: for images that nobody hashed.

Unlike `loader.load`, whose plan is a data set that must not have changed, a stream takes what
comes: what cannot be read costs its own crop, with the reason.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import torch

from pipeline.errors import BadImage, PipelineError
from pipeline.images.digest import FLAGS, FORBIDDEN, GONE, unread
from pipeline.images.formats import HEAD, NOT_AN_IMAGE, sniff
from pipeline.images.loader import AHEAD, evaluation_crop
from pipeline.images.names import shown
from pipeline.images.preprocess import Preprocess

ABSENT = "no such file"
NO_PERMISSION = "no permission to read it"
NOT_A_PATH = "not a path that this system can have"


@dataclass
class Crops:
    """Crops of consecutive images.

    Attributes:
        start: position of the first image in the stream.
        count: images in it.
        crops: uint8 [B, 3, S, S], channels_last, B ≥ count: what follows is padding; a bad image
            leaves zeros.
        bad: slot to the reason why the image has no crop.
    """

    start: int
    count: int
    crops: torch.Tensor
    bad: dict[int, str] = field(default_factory=dict)


def stream(
    sources: Iterable[str | bytes],
    preprocess: Preprocess,
    *,
    batch_size: int,
    workers: int,
) -> Iterator[Crops]:
    """Yield the evaluation view of each image, in order.

    Every batch has the nominal size but one that is alone: the arithmetic of a trunk may depend
    on the batch's size, and features should not depend on how many images come after.

    Args:
        sources: paths, or the bytes themselves; read as far ahead as `AHEAD` batches.
        preprocess: the trunk's.
        batch_size: images at once.
        workers: decoding threads.

    Raises:
        PipelineError: the machine is to blame (no memory, an input or output error).
    """
    size = preprocess.crop

    def fill(source: str | bytes, crop: torch.Tensor) -> str:
        try:
            data = source if isinstance(source, bytes) else read(source)
            crop.copy_(evaluation_crop(data, preprocess).permute(1, 2, 0))
        except BadImage as error:
            return str(error)
        except (MemoryError, OSError) as error:
            reason = getattr(error, "strerror", None) or "no memory left"
            name = shown(source) if isinstance(source, str) else "a picture"
            raise PipelineError(f"Cannot read {name}: {reason}.") from error
        return ""

    def submit(start: int) -> tuple[Crops, list[Future[str]]] | None:
        part = list(islice(given, batch_size))
        if not part:
            return None
        alone = start == 0 and len(part) < batch_size
        crops = torch.zeros((len(part) if alone else batch_size, size, size, 3), dtype=torch.uint8)
        futures = [pool.submit(fill, *pair) for pair in zip(part, crops, strict=False)]
        return Crops(start, len(part), crops.permute(0, 3, 1, 2)), futures

    given, start = iter(sources), 0
    pending: deque[tuple[Crops, list[Future[str]]]] = deque()
    pool = ThreadPoolExecutor(workers, "decode")
    try:
        while True:
            while len(pending) < AHEAD and (found := submit(start)) is not None:
                pending.append(found)
                start += found[0].count
            if not pending:
                return
            batch, futures = pending.popleft()
            reasons = enumerate(future.result() for future in futures)
            batch.bad = {slot: reason for slot, reason in reasons if reason}
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def read(path: str) -> bytes:
    """Return an image file's bytes.

    Raises:
        BadImage: there is no such file, it may not be read, or it is no image.
        OSError: for what is not the file's fault.
    """
    try:
        descriptor = os.open(path, FLAGS)
    except ValueError as error:
        raise BadImage(NOT_A_PATH) from error
    except OSError as error:
        if error.errno in GONE:
            raise BadImage(ABSENT) from error
        if error.errno in FORBIDDEN:
            raise BadImage(NO_PERMISSION) from error
        if error.errno == errno.ENAMETOOLONG:
            raise BadImage(NOT_A_PATH) from error
        raise
    if (odd := unread(os.fstat(descriptor))) is not None:
        os.close(descriptor)
        raise BadImage(odd.reason)
    with open(descriptor, "rb") as file:
        head = file.read(HEAD)
        if not sniff(head):  # a large file that is no image is not read whole
            raise BadImage(NOT_AN_IMAGE)
        return head + file.read()
