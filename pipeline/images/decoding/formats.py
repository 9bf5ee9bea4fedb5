"""Image formats told by their first bytes, a picture's size, and whether a PNG is whole."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

#: How many bytes from the start of a file `sniff` looks at.
HEAD = 32
#: Pillow's names of the formats that are read, by ours. Nothing else is ever opened.
PILLOW_NAMES = {name.lower(): name for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")}

#: Reasons that need no decoding.
EMPTY = "empty file"
NOT_AN_IMAGE = "not a JPEG, PNG, WebP, GIF, BMP or TIFF file"
#: File names that end so claim to be images of a format that is read.
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
)

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF
_NO_LENGTH = frozenset([0x01, *range(0xD0, 0xD8)])  # TEM and RST0 to RST7 stand alone
_SEQUENTIAL = frozenset([0xC0, 0xC1, 0xC9])  # SOF0, SOF1 and arithmetic SOF9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15; not DHT, JPG, DAC
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


class JpegHeader(NamedTuple):
    """What a JPEG's frame header says, and how many passes over the picture follow it."""

    width: int
    height: int
    scans: int


def sniff(head: bytes) -> str:
    """Return the format that a file begins as: a key of `PILLOW_NAMES`, or "" for anything else.

    Args:
        head: the first `HEAD` bytes of the file, or more.
    """
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    # "BM" alone begins many a text: the length of the second header must make sense too.
    if head.startswith(b"BM") and 12 <= int.from_bytes(head[14:18], "little") <= 124:
        return "bmp"
    return "tiff" if head.startswith(_TIFF) else ""


def jpeg_header(data: bytes) -> JpegHeader | None:
    """Return a JPEG's size and number of scans, or None where no frame comes before a scan.

    Walks from marker to marker as libjpeg does (`next_marker` and `read_markers` in jdmarker.c),
    so that both take the same frame header for the picture's.
    """
    at = 2
    width = height = components = -1
    progressive = False
    while True:
        at = data.find(b"\xff", at)  # anything between two segments is skipped
        if at < 0:
            return None
        while data[at : at + 1] == b"\xff":  # fill bytes
            at += 1
        marker = data[at] if at < len(data) else 0
        at += 1
        if marker == 0 or marker in _NO_LENGTH:
            continue
        if marker == 0xDA:
            if width < 0:
                return None
            if not progressive and data[at + 2 : at + 3] == bytes([components]):
                return JpegHeader(width, height, 1)  # libjpeg decodes no other scan
            # Stuffing keeps FF DA out of entropy-coded data, so the rest can simply be counted.
            return JpegHeader(width, height, 1 + data.count(b"\xff\xda", at))
        length = int.from_bytes(data[at : at + 2], "big")
        if marker == 0xD9 or length < 2:
            return None
        if marker in _FRAMES and width < 0:
            height = int.from_bytes(data[at + 3 : at + 5], "big")
            width = int.from_bytes(data[at + 5 : at + 7], "big")
            components = int.from_bytes(data[at + 7 : at + 8], "big")
            progressive = marker not in _SEQUENTIAL
        at += length


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) of a WebP picture or canvas, or None where the header has none.

    Pillow allocates a WebP's canvas when it opens it, before it checks the size. Layouts as in
    RFC 9649 (VP8X, VP8L) and RFC 6386, section 9.1 (VP8).
    """
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        return None
    if kind == b"VP8X":
        width, height = int.from_bytes(body[4:7], "little"), int.from_bytes(body[7:10], "little")
        return width + 1, height + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = int.from_bytes(body[6:8], "little"), int.from_bytes(body[8:10], "little")
        return width & 0x3FFF, height & 0x3FFF
    return None


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
            wanted -= len(stream.decompress(piece, 1 << 16))
            piece = stream.unconsumed_tail
    return wanted <= 0


def _image_data(data: bytes) -> Iterator[bytes]:
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"IDAT":
            yield data[at + 8 : at + 8 + length]
        at += length + 12
