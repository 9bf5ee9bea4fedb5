"""The images of the page: which ones it knows, which it has pictures of, and each picture once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from pipeline.images.thumbnails import Picture, thumbnail

#: Images on a page at most: points of its map, and what its numbers open.
MOST = 5000
#: Pictures at most, which are most of what a page costs; and bytes of all of them: base64 makes 4
#: bytes of 3, and the page stays under 15 MB.
PICTURES = 300
MOST_BYTES = 10_000_000
#: Pixels that a picture fits into.
SIDE = 160
_TOGETHER = 128


@dataclass
class Album:
    """The images that a page shows. Rows are those of the table.

    Attributes:
        rows: of the images on the page, ascending.
        pictures: WebP files, each once.
        of: row to its picture's place in `pictures`.
        missing: row to the reason why there is no picture; of what there was no room for, none.
        left: how many images the page has no room for.
    """

    rows: list[int] = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)
    of: dict[int, int] = field(default_factory=dict)
    missing: dict[int, str] = field(default_factory=dict)
    left: int = 0

    def add(self, picture: bytes) -> int:
        """Take one more picture and return its place."""
        self.pictures.append(picture)
        return len(self.pictures) - 1


def order(count: int, first: Iterable[int], *, seed: int = 0) -> list[int]:
    """Return rows in the order in which they are given room: those that must be seen, then a draw.

    Args:
        count: N.
        first: rows that must be seen, in order; may repeat.
        seed: of the draw.
    """
    drawn = np.random.default_rng(seed).permutation(count).tolist()
    return list(dict.fromkeys([*first, *drawn]))


def fill(
    album: Album,
    rows: Sequence[int],
    digests: Sequence[str],
    pictures: Callable[[Sequence[int]], Iterator[Picture]],
    *,
    workers: int,
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Put images into an album until it is full, with pictures of the first of them.

    Args:
        album: to fill; what it holds already counts.
        rows: in the order in which they are given room.
        digests: of every row of the table; equal files share a picture.
        pictures: rows to their pictures, in order.
        workers: threads that encode.
        advance: called with how many more are done.
    """
    wanted = rows[:MOST]
    first: dict[str, int] = {}  # digest → the row whose picture it is
    for row in wanted[:PICTURES]:
        first.setdefault(digests[row], row)
    used, full = sum(map(len, album.pictures)), False
    places: dict[int, int] = {}
    reasons: dict[int, str] = {}
    unique = iter(first.values())

    def encode(picture: Picture) -> bytes | str:
        return picture.reason if picture.rgb is None else thumbnail(picture.rgb, SIDE)

    with ThreadPoolExecutor(workers, "encode") as pool:
        while not full and (part := list(islice(unique, _TOGETHER))):
            for row, found in zip(part, pool.map(encode, pictures(part)), strict=True):
                if isinstance(found, str):
                    reasons[row] = found
                elif not (full := full or used + len(found) > MOST_BYTES):
                    used += len(found)
                    places[row] = album.add(found)
            advance(len(part))
    for row in wanted:
        source = first.get(digests[row])
        if source in places:
            album.of[row] = places[source]
        elif source in reasons:
            album.missing[row] = reasons[source]
    album.rows += sorted(wanted)
    album.left = len(digests) - len(album.rows)
