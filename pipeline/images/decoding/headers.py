"""What the headers of JPEG, WebP, PNG, AVIF and HEIC files say, and whether a PNG is whole."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

_NO_LENGTH = frozenset([0x01, *range(0xD0, 0xD8)])  # TEM and RST0 to RST7 stand alone
_SEQUENTIAL = frozenset([0xC0, 0xC1, 0xC9])  # SOF0, SOF1 and arithmetic SOF9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15; not DHT, JPG, DAC
_LOSSLESS = frozenset([0xC3, 0xC7, 0xCB, 0xCF])
_HIERARCHICAL = frozenset([0xC5, 0xC6, 0xCD, 0xCE])
_ICC, _EXIF = b"ICC_PROFILE\0", b"Exif\0\0"
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


_ORIENTATION, _INTEGERS = 0x0112, {3: "H", 4: "I", 8: "h", 9: "i"}
#: The entry of an item of EXIF: version, flags, number of the item and its protection before.
_EXIF_ITEM = re.compile(rb"(infe[\2\3].{7}(?:..)?)Exif", re.DOTALL)
_ITEMS = 1 << 16  # bytes within which the list of items is looked for
#: How segments of a JPEG begin that tell of a gain map (Ultra HDR 1.1; ISO 21496-1, annex C), and
#: of further pictures (CIPA DC-007); what Apple's gain map says of itself, and both in HEIC.
_XMP, _GAIN_XMP = b"http://ns.adobe.com/xap/1.0/\0", b"ns.adobe.com/hdr-gain-map/"
_GAIN_ISO, _SEVERAL, _APPLE = b"urn:iso:std:iso:ts:21496:-1\0", b"MPF\0", b"HDRGainMap"
_GAIN_ITEM = re.compile(rb"infe[\2\3].{7}(?:..)?tmap|aux:hdrgainmap", re.DOTALL)
_GAIN_MAP = "Gain map passed over (the picture is taken in standard range)"
#: In place of a profile of which a part is missing: no profile.
INCOMPLETE = b"incomplete"


class JpegHeader(NamedTuple):
    """What a JPEG's segments say, up to its first scan.

    Attributes:
        width: pixels.
        height: pixels.
        scans: passes over the picture.
        frame: the frame's marker: which of JPEG's processes it is (ITU-T T.81, table B.1).
        bits: of a sample.
        components: 1 for grey, 3 for colour, 4 for CMYK.
        profile: ICC profile, its parts joined; `INCOMPLETE` where one is missing.
        exif: from the TIFF header on; empty without.
        remark: where a map to a picture of high dynamic range comes with it; else empty.
    """

    width: int
    height: int
    scans: int
    frame: int
    bits: int
    components: int
    profile: bytes
    exif: bytes
    remark: str


def jpeg_header(data: bytes) -> JpegHeader | None:
    """Return a JPEG's size and number of scans, or None where no frame comes before a scan.

    Walks from marker to marker as libjpeg does (`next_marker` and `read_markers` in jdmarker.c),
    so that both take the same frame header for the picture's.
    """
    at = 2
    width = height = components = frame = bits = -1
    profile: dict[int, bytes] = {}
    parts = 0
    exif = b""
    gain = False
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
            # libjpeg decodes no other scan than one of all components
            whole = frame in _SEQUENTIAL and data[at + 2 : at + 3] == bytes([components])
            # Stuffing keeps FF DA out of entropy-coded data, so the rest can simply be counted.
            scans = 1 if whole else 1 + data.count(b"\xff\xda", at)
            whole_profile = sorted(profile) == list(range(1, parts + 1))
            joined = b"".join(profile[number] for number in sorted(profile))
            joined = joined if whole_profile else INCOMPLETE
            remark = _GAIN_MAP if gain else ""
            return JpegHeader(width, height, scans, frame, bits, components, joined, exif, remark)
        length = int.from_bytes(data[at : at + 2], "big")
        if marker == 0xD9 or length < 2:
            return None
        if marker == 0xE2 and data.startswith(_ICC, at + 2):  # ICC.1:2022, annex B.4
            number, parts = [*data[at + 14 : at + 16], 0, 0][:2]
            profile.setdefault(number, data[at + 16 : at + length])
        elif marker == 0xE1 and not exif and data.startswith(_EXIF, at + 2):
            exif = data[at + 8 : at + length]
        elif marker == 0xE1 and data.startswith(_XMP, at + 2):
            gain |= data.find(_GAIN_XMP, at, at + length) >= 0
        elif marker == 0xE2 and data.startswith(_GAIN_ISO, at + 2):
            gain = True
        elif marker == 0xE2 and data.startswith(_SEVERAL, at + 2):
            gain |= _APPLE in data
        elif marker in _FRAMES and width < 0:
            height = int.from_bytes(data[at + 3 : at + 5], "big")
            width = int.from_bytes(data[at + 5 : at + 7], "big")
            bits = int.from_bytes(data[at + 2 : at + 3], "big")
            components = int.from_bytes(data[at + 7 : at + 8], "big")
            frame = marker
        at += length


def other_process(header: JpegHeader) -> str:
    """Return what a JPEG is where few decoders read it; "" for one of the usual kind."""
    if header.frame in _LOSSLESS:
        return "without loss"
    if header.frame in _HIERARCHICAL:
        return "of several resolutions"
    return "" if header.bits == 8 else f"of {header.bits} bits a sample"


def exif_orientation(exif: bytes) -> int | None:
    """Return a picture's orientation, 1 to 8; None where that cannot be read.

    It is a short integer; other integers are taken as well (Exif 2.32, 4.6.4 A). Where nothing is
    said, or 0, it is 1.

    Args:
        exif: from the TIFF header on; empty without.
    """
    if not exif:
        return 1
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return None
    try:
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (number,) = struct.unpack_from(f"{order}H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * number, 12):
            tag, kind, count = struct.unpack_from(f"{order}HHI", exif, entry)
            if tag == _ORIENTATION:
                form = _INTEGERS.get(kind)
                if form is None or count not in (1, 2):
                    return None
                return orientation(struct.unpack_from(f"{order}{form}", exif, entry + 8)[0])
    except struct.error:  # it ends early
        return None
    return 1


def orientation(number: int) -> int | None:
    """Return a number as an orientation, 1 to 8; 0 says nothing. None for all others."""
    return max(number, 1) if 0 <= number <= 8 else None


def without_exif(data: bytes) -> bytes:
    """Return an AVIF file whose EXIF has another type of item, so that no decoder looks into it.

    libavif refuses a picture for EXIF that it cannot read. Its orientation counts for nothing: that
    of the pictures stands in boxes of their own (ISO/IEC 23008-12, 6.5.10 and 6.5.12).
    """
    head = _EXIF_ITEM.sub(rb"\1exiF", data[:_ITEMS])
    return head + data[_ITEMS:]


def heif_remark(data: bytes) -> str:
    """Return a remark where a gain map lies in an AVIF or HEIC file; else empty."""
    return _GAIN_MAP if _GAIN_ITEM.search(data, 0, _ITEMS) else ""


def code_points(data: bytes) -> tuple[int, int] | None:
    """Return the colour primaries and transfer characteristics of an AVIF's or HEIC's picture.

    They stand with the primary item (ISO/IEC 14496-12, 8.11; 23008-12, 6.5.5 and 9.3), or in a
    sequence's track; None where there are none. A gain map or a thumbnail may have others.
    """
    try:
        meta = next(box for box in _boxes(data, 0, min(len(data), _ITEMS)) if box[0] == b"meta")
        inner = {kind: (first, end) for kind, first, end in _boxes(data, meta[1] + 4, meta[2])}
        of_items = {kind: (first, end) for kind, first, end in _boxes(data, *inner[b"iprp"])}
        properties = [*_boxes(data, *of_items[b"ipco"])]
        first = inner[b"pitm"][0]
        (primary,) = struct.unpack_from(">I" if data[first] else ">H", data, first + 4)
        found = _properties_of(primary, data, of_items[b"ipma"][0])
        chosen = [properties[index - 1] for index in found if 0 < index <= len(properties)]
    except (StopIteration, KeyError, struct.error, IndexError):
        chosen = []
    starts = [first for kind, first, _ in chosen if kind == b"colr"]
    if not chosen and (at := data.find(b"colrnclx", 0, _ITEMS)) >= 0:
        starts = [at + 4]
    for first in starts:
        if data.startswith(b"nclx", first) and len(data) >= first + 8:
            return struct.unpack_from(">HH", data, first + 4)
    return None


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of what boxes hold; ISO/IEC 14496-12, 4.2."""
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        first = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, first)
            first += 8
        stop = at + size if size else end
        if stop < first:
            return
        yield kind, first, min(stop, end)
        at = stop


def _properties_of(item: int, data: bytes, at: int) -> list[int]:
    """Return the numbers of an item's properties, from a box `ipma` (23008-12, 9.3.1)."""
    version, flags, count = struct.unpack_from(">B2xBI", data, at)
    at += 8
    name, wide = (">IB" if version else ">HB"), flags & 1
    for _ in range(count):
        one, number = struct.unpack_from(name, data, at)
        at += struct.calcsize(name)
        found = struct.unpack_from(f">{number}{'H' if wide else 'B'}", data, at)
        if one == item:
            return [index & (0x7FFF if wide else 0x7F) for index in found]
        at += number << wide
    return []


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


def png_chunks(data: bytes, *names: bytes) -> dict[bytes, bytes]:
    """Return what chunks of a PNG hold that stand before its image data, by their names."""
    found: dict[bytes, bytes] = {}
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"IDAT":
            break
        if kind in names:
            found.setdefault(kind, data[at + 8 : at + 8 + length])
        at += length + 12
    return found
