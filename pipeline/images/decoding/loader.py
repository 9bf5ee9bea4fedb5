"""From paths to batches of crops: read, check, decode and crop in threads, ahead of the trunk."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any

import numpy as np

from pipeline.errors import BadImage
from pipeline.images.decoding import reading
from pipeline.images.decoding.crops import Crops, crops
from pipeline.images.decoding.quiet import decoding_threads
from pipeline.images.names import shown
from pipeline.images.opening import machine_error
from pipeline.images.preprocess import Preprocess

#: Batches in the making besides the one in use: memory is bounded whatever the data set's size.
AHEAD = 2
#: Bytes of crops to have in the making, for `ahead`, where the first batch waits for an engine:
#: loading and converting a trunk takes seconds, most of them on one core.
HEAD_START = 64 << 20


@dataclass(frozen=True)
class _Filled:
    """What came of an image's views: as in `Batch`."""

    bad: dict[int, str] = field(default_factory=dict)
    remarks: dict[int, tuple[str, ...]] = field(default_factory=dict)
    sides: dict[int, int] = field(default_factory=dict)


@dataclass
class Batch:
    """Crops of consecutive views.

    Attributes:
        start: position of the first view in the plan.
        count: views in it; what follows is padding.
        crops: uint8 [B, 3, S, S], channels_last; an array [B, S, S, 3] where arrays are asked for.
            A bad image leaves zeros.
        bad: slot to the reason why the image has no crop.
        remarks: slot to what decoding converted, assumed or passed over, where it did.
        sides: slot to the short side of the image as its file has it, pixels.
    """

    start: int
    count: int
    crops: Any
    bad: dict[int, str] = field(default_factory=dict)
    remarks: dict[int, tuple[str, ...]] = field(default_factory=dict)
    sides: dict[int, int] = field(default_factory=dict)


#: Path, or the bytes themselves, expected digest (32 bytes) and view of a crop.
File = tuple[str | bytes, bytes | None, int]


def load(
    files: Iterable[File],
    preprocess: Preprocess,
    *,
    batch_size: int,
    workers: int,
    pin: bool = False,
    arrays: bool = False,
    pad: bool = True,
    ahead: int = AHEAD,
    guard: reading.Guard = reading.unguarded,
    cut: Crops = crops,
) -> Generator[Batch]:
    """Yield batches in order; the same files give the same bits, whatever the workers.

    An image whose views follow each other is read and decoded once for each batch. Every batch is
    padded to the nominal size: the arithmetic of a trunk may depend on it, and features should not
    depend on how many images come after.

    Args:
        files: path, or the bytes themselves, expected digest (32 bytes) and view of each crop;
            any number, of which `AHEAD` batches are taken in advance. Without a digest nothing is
            known of the file, and view 0 alone can be asked for. With one the file was there: that
            it is not, or holds other bytes, is one of the `reading.PASSING` reasons.
        preprocess: the trunk's.
        batch_size: nominal size B.
        workers: decoding threads.
        pin: put crops in page-locked memory, for copies to a GPU.
        arrays: give crops as arrays; torch is not imported then, if `cut` needs none.
        pad: pad a batch that is alone, too.
        ahead: batches in the making when the first one is yielded; `AHEAD` from then on.
        guard: asked before each image is decoded.
        cut: decodes and crops.

    Raises:
        PipelineError: the machine is to blame (no memory, an input or output error).
    """
    return load_batches(
        cut_into(files, batch_size), preprocess, batch_size=batch_size, workers=workers, pin=pin,
        arrays=arrays, pad=pad, ahead=ahead, guard=guard, cut=cut,
    )  # fmt: skip


def cut_into(files: Iterable[File], size: int) -> Iterator[list[File]]:
    """Yield consecutive files, `size` of them at a time; the last ones may be fewer."""
    given = iter(files)
    while part := list(islice(given, size)):
        yield part


def load_batches(
    batches: Iterable[Sequence[File]],
    preprocess: Preprocess,
    *,
    batch_size: int,
    workers: int,
    pin: bool = False,
    arrays: bool = False,
    pad: bool = True,
    ahead: int = AHEAD,
    guard: reading.Guard = reading.unguarded,
    cut: Crops = crops,
) -> Generator[Batch]:
    """Do what `load` does with files that are cut into batches already.

    Args:
        batches: files of each, `batch_size` at most.
        preprocess: as in `load`, like what follows.
    """
    size = preprocess.crop

    def fill(
        source: str | bytes,
        expected: bytes | None,
        wanted: list[tuple[int, int]],
        into: np.ndarray,
    ) -> _Filled:
        """Put the crops of an image's views, (slot, number), into their slots of a batch."""
        name = shown(source) if isinstance(source, str) else "a picture"
        changed = BadImage(reading.CHANGED)
        try:
            if isinstance(source, bytes):
                data = source
            else:
                data = reading.read(source) if expected else reading.read_unknown(source)
            digest = reading.admit(data, expected, name, guard=guard, changed=changed)
            found = cut(data, preprocess, digest, [number for _, number in wanted])
            for (slot, _), crop in zip(wanted, found.crops, strict=True):
                into[slot] = crop if arrays else crop.permute(1, 2, 0).numpy()
        except BadImage as error:
            into[[slot for slot, _ in wanted]] = 0
            return _Filled(bad={slot: str(error) for slot, _ in wanted})
        except (MemoryError, OSError) as error:
            raise machine_error("decode", name, error) from error
        remarks = {slot: found.remarks for slot, _ in wanted if found.remarks}
        return _Filled(remarks=remarks, sides={slot: found.side for slot, _ in wanted})

    def begin() -> Iterator[tuple[Batch, list[Future[_Filled]]]]:
        """Begin batch after batch, each when it is asked for."""
        start = 0
        for part in batches:
            rows = batch_size if pad or start else len(part)
            empty = _empty((rows, size, size, 3), pin=pin, array=arrays)
            memory = empty if arrays else empty.numpy()
            memory[len(part) :] = 0
            futures = []
            for (source, digest), run in groupby(enumerate(part), key=lambda item: item[1][:2]):
                wanted = [(slot, number) for slot, (_, _, number) in run]
                futures.append(pool.submit(fill, source, digest, wanted, memory))
            yield Batch(start, len(part), empty if arrays else empty.permute(0, 3, 1, 2)), futures
            start += len(part)

    with decoding_threads(workers) as pool:
        begun = begin()
        pending = deque(islice(begun, ahead))
        while pending:
            batch, futures = pending.popleft()
            for future in futures:
                filled = future.result()
                batch.bad.update(filled.bad)
                batch.remarks.update(filled.remarks)
                batch.sides.update(filled.sides)
            pending.extend(islice(begun, max(0, AHEAD - len(pending))))
            yield batch


def _empty(shape: tuple[int, ...], *, pin: bool, array: bool) -> Any:
    """Return memory for uint8: a tensor, perhaps page-locked, or an array."""
    if array:
        return np.empty(shape, np.uint8)
    import torch

    return torch.empty(shape, dtype=torch.uint8, pin_memory=pin)
