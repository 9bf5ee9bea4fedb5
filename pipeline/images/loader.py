"""From paths to batches of crops: read, check, decode and crop in threads, ahead of the trunk."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby

import torch

from pipeline.errors import BadImage, PipelineError
from pipeline.images.decode import decode
from pipeline.images.names import shown
from pipeline.images.preprocess import Preprocess
from pipeline.images.views import least_side, view

#: Batches in the making besides the one in use: memory is bounded whatever the data set's size.
AHEAD = 2


@dataclass
class Batch:
    """Crops of consecutive views, padded to the nominal size.

    Attributes:
        start: position of the first view in the plan.
        count: views in it; what follows is padding.
        crops: uint8 [B, 3, S, S], channels_last; a bad image leaves zeros.
        bad: slot to the reason why the image has no crop.
    """

    start: int
    count: int
    crops: torch.Tensor
    bad: dict[int, str] = field(default_factory=dict)


def load(
    files: Sequence[tuple[str | bytes, bytes, int]],
    preprocess: Preprocess,
    *,
    batch_size: int,
    workers: int,
    pin: bool = False,
    refused: Mapping[bytes, str] | None = None,
    note: Callable[[bytes], None] = lambda digest: None,
) -> Iterator[Batch]:
    """Yield batches in order; the same files give the same bits, whatever the workers.

    An image whose views follow each other is read and decoded once for each batch.

    Args:
        files: path, or the bytes themselves, expected digest (32 bytes) and view of each crop.
        preprocess: the trunk's.
        batch_size: nominal size B; the last batch is padded to it.
        workers: decoding threads.
        pin: put crops in page-locked memory, for copies to a GPU.
        refused: digests of images that must not be decoded, to the reason; they count as bad.
        note: called with the digest of each image, in the thread that is about to decode it.

    Raises:
        PipelineError: a file cannot be read, or is no longer what it was when it was hashed.
    """
    size = preprocess.crop

    def fill(
        path: str | bytes, digest: bytes, wanted: list[tuple[int, int]], crops: torch.Tensor
    ) -> dict[int, str]:
        if refused and digest in refused:
            return {slot: refused[digest] for slot, _ in wanted}
        data = path if isinstance(path, bytes) else read(path)
        if hashlib.sha256(data).digest() != digest:
            raise PipelineError(
                f"{_name(path)} changed while the run was reading it. Run the same command again."
            )
        note(digest)
        try:
            pictures: dict[int, torch.Tensor] = {}  # least side → picture
            for slot, number in wanted:
                least = least_side(preprocess, number)
                if least not in pictures:
                    pictures[least] = decode(data, least=least)
                picture = pictures[least]
                crop = view(picture, preprocess, digest=digest, number=number)
                crops[slot].copy_(crop.permute(1, 2, 0))
        except BadImage as error:
            return {slot: str(error) for slot, _ in wanted}
        except (MemoryError, OSError) as error:  # the machine is to blame, not the image
            reason = getattr(error, "strerror", None) or "no memory left"
            raise PipelineError(f"Cannot decode {_name(path)}: {reason}.") from error
        return {}

    def submit(start: int) -> tuple[Batch, list[Future[dict[int, str]]]]:
        part = files[start : start + batch_size]
        crops = torch.zeros((batch_size, size, size, 3), dtype=torch.uint8, pin_memory=pin)
        futures = []
        for (path, digest), run in groupby(enumerate(part), key=lambda item: item[1][:2]):
            wanted = [(slot, number) for slot, (_, _, number) in run]
            futures.append(pool.submit(fill, path, digest, wanted, crops))
        return Batch(start, len(part), crops.permute(0, 3, 1, 2)), futures

    pool = ThreadPoolExecutor(workers, "decode")
    try:
        starts = iter(range(0, len(files), batch_size))
        pending = deque(submit(start) for _, start in zip(range(AHEAD), starts, strict=False))
        while pending:
            batch, futures = pending.popleft()
            for future in futures:
                batch.bad.update(future.result())
            if (start := next(starts, None)) is not None:
                pending.append(submit(start))
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def evaluation_crop(data: bytes, preprocess: Preprocess) -> torch.Tensor:
    """Return view 0 of an image file's bytes, uint8 [3, S, S]; raises as `decode`."""
    return preprocess.apply(decode(data, least=least_side(preprocess, 0)))


def _name(source: str | bytes) -> str:
    return shown(source) if isinstance(source, str) else "a picture"


def read(path: str) -> bytes:
    """Return a file's bytes; fail with the system's reason, which is never a bad image."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise PipelineError(f"Cannot read {shown(path)}: {error.strerror}.") from error
