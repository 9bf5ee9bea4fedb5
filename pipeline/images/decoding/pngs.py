"""What Pillow does not check of a PNG: that its compressed data hold every row."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type (PNG specification, table 8)
#: First column and row, and the steps between them, of Adam7's passes.
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_PIECE = 1 << 16


def holds_every_row(data: bytes) -> bool:
    """Tell whether a PNG that Pillow has verified inflates to as many bytes as its header asks.

    Pillow leaves rows that are missing at the end of a complete zlib stream black.
    """
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    bits = depth * _CHANNELS[colour]
    wanted = 0
    for x, y, dx, dy in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - x) // dx), -(-(height - y) // dy)
        if columns > 0 and rows > 0:
            wanted += rows * (1 + (columns * bits + 7) // 8)  # each row begins with its filter
    stream = zlib.decompressobj()
    for piece in _image_data(data):
        while piece and wanted > 0:
            wanted -= len(stream.decompress(piece, _PIECE))
            piece = stream.unconsumed_tail
    return wanted <= 0


def _image_data(data: bytes) -> Iterator[bytes]:
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"IDAT":
            yield data[at + 8 : at + 8 + length]
        at += length + 12
