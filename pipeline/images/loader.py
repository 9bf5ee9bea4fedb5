"""From paths to batches of crops: read, check, decode and resize in threads, ahead of the trunk."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

from pipeline.errors import BadImage, PipelineError
from pipeline.images.decode import decode
from pipeline.images.names import shown
from pipeline.images.preprocess import Preprocess

#: Batches in the making besides the one in use: memory is bounded whatever the data set's size.
AHEAD = 2


@dataclass
class Batch:
    """Crops of consecutive images, padded to the nominal size.

    Attributes:
        start: position of the first image in the plan.
        count: images in it; what follows is padding.
        crops: uint8 [B, 3, S, S], channels_last; a bad image leaves zeros.
        bad: slot to the reason why the image has no crop.
    """

    start: int
    count: int
    crops: torch.Tensor
    bad: dict[int, str] = field(default_factory=dict)


def load(
    files: Sequence[tuple[str | bytes, bytes]],
    preprocess: Preprocess,
    *,
    batch_size: int,
    workers: int,
    pin: bool = False,
) -> Iterator[Batch]:
    """Yield batches in order; the same files give the same bits, whatever the workers.

    Args:
        files: path, or the bytes themselves, and expected digest (32 bytes) of each image.
        preprocess: the evaluation view.
        batch_size: nominal size B; the last batch is padded to it.
        workers: decoding threads.
        pin: put crops in page-locked memory, for copies to a GPU.

    Raises:
        PipelineError: a file cannot be read, or is no longer what it was when it was hashed.
    """
    size = preprocess.crop

    def fill(path: str | bytes, digest: bytes, crop: torch.Tensor) -> str | None:
        data = path if isinstance(path, bytes) else read(path)
        if hashlib.sha256(data).digest() != digest:
            raise PipelineError(
                f"{_name(path)} changed while the run was reading it. Run the same command again."
            )
        try:
            crop.copy_(preprocess.apply(decode(data)).permute(1, 2, 0))
        except BadImage as error:
            return str(error)
        except (MemoryError, OSError) as error:  # the machine is to blame, not the image
            reason = getattr(error, "strerror", None) or "no memory left"
            raise PipelineError(f"Cannot decode {_name(path)}: {reason}.") from error
        return None

    def submit(start: int) -> tuple[Batch, list[Future[str | None]]]:
        part = files[start : start + batch_size]
        crops = torch.zeros((batch_size, size, size, 3), dtype=torch.uint8, pin_memory=pin)
        futures = [pool.submit(fill, *file, crops[slot]) for slot, file in enumerate(part)]
        return Batch(start, len(part), crops.permute(0, 3, 1, 2)), futures

    pool = ThreadPoolExecutor(workers, "decode")
    try:
        starts = iter(range(0, len(files), batch_size))
        pending = deque(submit(start) for _, start in zip(range(AHEAD), starts, strict=False))
        while pending:
            batch, futures = pending.popleft()
            for slot, future in enumerate(futures):
                if (reason := future.result()) is not None:
                    batch.bad[slot] = reason
            if (start := next(starts, None)) is not None:
                pending.append(submit(start))
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _name(source: str | bytes) -> str:
    return shown(source) if isinstance(source, str) else "a picture"


def read(path: str) -> bytes:
    """Return a file's bytes; fail with the system's reason, which is never a bad image."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise PipelineError(f"Cannot read {shown(path)}: {error.strerror}.") from error
