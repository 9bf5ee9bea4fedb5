"""What the directories of a TIFF say of its pages and samples (TIFF 6.0; BigTIFF; DNG 1.7)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF
#: More pages than this are not counted, and more tags of a page or values of a tag not read.
MOST_PAGES, MOST_TAGS, MOST_VALUES = 1000, 256, 1 << 22

SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL = 254, 256, 257, 258, 259, 262, 266
OFFSETS, ORIENTATION, SAMPLES, ROWS, _SIZES, PLANAR = 273, 274, 277, 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, _TILE_SIZES = 322, 323, 324, 325
EXTRA, FORMAT, PROFILE = 338, 339, 34675
_MOST, _SUB_IFDS, _SIGNED_MOST, _SUBSAMPLING = 281, 330, 341, 530
#: Numbers of compressions, photometric interpretations and sample formats, as people call them.
_COMPRESSIONS = {
    1: "uncompressed", 2: "CCITT", 3: "CCITT fax 3", 4: "CCITT fax 4", 5: "LZW", 6: "old JPEG",
    7: "JPEG", 8: "deflate", 9: "JBIG", 34661: "JBIG", 32773: "PackBits", 32809: "ThunderScan",
    32946: "deflate", 33003: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000",
    34887: "LERC", 34892: "lossy JPEG", 34925: "LZMA", 34926: "Zstandard", 34927: "WebP",
    50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL", 22610: "JPEG XR", 34676: "SGI Log",
    34677: "SGI Log 24",
}  # fmt: skip
_PHOTOMETRICS = {
    0: "grey, white is zero", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr",
    8: "CIELab", 9: "ICCLab", 10: "ITULab", 32844: "LogL", 32845: "LogLuv",
}  # fmt: skip
UNSIGNED, _SIGNED, FLOAT = 1, 2, 3
_FORMATS = {UNSIGNED: "unsigned", _SIGNED: "signed", FLOAT: "floating point", 5: "complex"}
#: What libtiff, as Pillow builds it, always has.
_ALWAYS = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946))
#: Colours of a pixel, by photometric interpretation, where these are all that it has.
COLOURS = {0: 1, 1: 1, 2: 3, 5: 4}
GREY, _YCBCR, _LAB = (0, 1), 6, 8
_REDUCED, _MASK = 1, 4
_FILTER_ARRAY, _LINEAR_RAW = 32803, 34892
#: Type of a value to how `struct` reads it: integers, and bytes of no type.
_READ = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}


@dataclass(frozen=True, eq=False)
class Page:
    """A directory of a TIFF. Equal only when identical.

    Attributes:
        data: the file, or its first bytes.
        entries: where each of its tags stands.
        order: `<` or `>`, as `struct` says the byte order.
        word: `I`, or `Q` in a BigTIFF: how it reads counts and offsets.
    """

    data: bytes
    entries: range
    order: str
    word: str

    def values(self, tag: int) -> tuple[int, ...]:
        """Return a tag's integers; none where it is not there, or cannot be read."""
        inline = struct.calcsize(self.word)
        for at in self.entries[:MOST_TAGS]:
            found, kind, count = self._unpack(f"HH{self.word}", at)
            if found != tag:
                continue
            if kind not in _READ or not 0 < count <= MOST_VALUES:
                return ()
            form, place = f"{count}{_READ[kind]}", at + 4 + inline
            if struct.calcsize(self.order + form) > inline:
                (place,) = self._unpack(self.word, place)
            try:
                return self._unpack(form, place)
            except (struct.error, OverflowError):
                return ()
        return ()

    @property
    def big(self) -> bool:
        """Tell whether it is a BigTIFF's."""
        return self.word == "Q"

    def value(self, tag: int, default: int = 0) -> int:
        """Return the first of a tag's integers."""
        return next(iter(self.values(tag)), default)

    def _unpack(self, form: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(self.order + form, self.data, at)


def pages(data: bytes) -> Iterator[Page]:
    """Yield the directories of a TIFF, in order, as far as they can be read; `MOST_PAGES` at most.

    Args:
        data: the file, or its first bytes: what lies beyond them is not there.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    word, count, size = ("Q", "Q", 20) if big else ("I", "H", 12)
    try:
        (at,) = struct.unpack_from(order + word, data, 8 if big else 4)
        seen: set[int] = set()
        while at and at not in seen and len(seen) < MOST_PAGES:
            seen.add(at)
            (number,) = struct.unpack_from(order + count, data, at)
            first = at + struct.calcsize(count)
            end = first + number * size
            (at,) = struct.unpack_from(order + word, data, end)  # of the next one
            yield Page(data, range(first, end, size), order, word)
    except (struct.error, OverflowError):
        return


def is_raw(data: bytes) -> bool:
    """Tell whether a TIFF is a camera's raw file: of these a small preview would be read.

    Its first page is mosaicked, or a reduced copy of a picture in a sub-directory.
    """
    page = next(pages(data), None)
    if page is None:
        return False
    if page.value(PHOTOMETRIC) in (_FILTER_ARRAY, _LINEAR_RAW):
        return True
    return bool(page.value(SUBFILE) & _REDUCED and page.values(_SUB_IFDS))


def count_pages(data: bytes) -> int:
    """Return how many pages a TIFF has besides smaller copies and masks, up to `MOST_PAGES`."""
    return sum(not page.value(SUBFILE) & (_REDUCED | _MASK) for page in pages(data))


def variant(page: Page) -> str:
    """Return the reason why a page of its kind is not read."""
    shape = _FORMATS.get(page.value(FORMAT, UNSIGNED), "unknown")
    photometric, compression = page.value(PHOTOMETRIC), page.value(COMPRESSION, 1)
    samples = page.value(SAMPLES, 1)
    parts = [
        f"{_PHOTOMETRICS.get(photometric, f'photometric {photometric}')}",
        f"{page.value(BITS, 1)}-bit {shape}",
        f"{samples} samples" if samples != COLOURS.get(photometric, samples) else "",
        _COMPRESSIONS.get(compression, f"compression {compression}"),
        "separate planes" if is_planar(page) else "",
        "big-endian BigTIFF" if page.big and page.order == ">" else "",
    ]
    kind = ", ".join(part for part in parts if part)
    return f"a variant of TIFF that is not read ({kind})"


def is_signed(page: Page) -> bool:
    """Tell whether a page has signed integer samples: Pillow takes those of 8 bits as unsigned."""
    return _SIGNED in page.values(FORMAT)


def is_planar(page: Page) -> bool:
    """Tell whether each sample of a page's pixels lies in a plane of its own."""
    return page.value(PLANAR, 1) == 2 and page.value(SAMPLES, 1) > 1


def is_rare(page: Page) -> bool:
    """Tell whether a page that is whole may fail for what it is: not everything reads its kind.

    One that is not compressed cannot fail otherwise.
    """
    compression, colours = page.value(COMPRESSION, 1), page.value(PHOTOMETRIC)
    odd = compression not in _ALWAYS or colours in (_YCBCR, _LAB) or page.value(EXTRA, 1) == 0
    return odd or compression == 1 or (page.big and page.order == ">")


def is_whole(page: Page) -> bool:
    """Tell whether a page has a size, and all its strips or tiles lie in the file."""
    offsets = page.values(OFFSETS) or page.values(TILE_OFFSETS)
    sizes = page.values(_SIZES) or page.values(_TILE_SIZES)
    ends = [at + size for at, size in zip(offsets, sizes, strict=False)]
    sized = page.value(WIDTH) > 0 and page.value(HEIGHT) > 0
    return sized and bool(ends) and max(ends) <= len(page.data)


def declared_bits(page: Page) -> int:
    """Return how many bits a page says that its samples have where it stores more; 0 for nothing.

    MaxSampleValue and SMaxSampleValue may also be statistics, so only 2ⁿ - 1 counts.
    """
    most = page.value(_MOST) or page.value(_SIGNED_MOST)
    return most.bit_length() if most & (most + 1) == 0 else 0


def single_plane(page: Page) -> bytes | None:
    """Return the file with a page of one sample marked as contiguous, which it is as well.

    Pillow would cut its mode's name as if it had several planes. None where nothing is to be done.
    """
    if page.value(SAMPLES, 1) != 1 or page.value(PLANAR, 1) != 2:
        return None
    data = bytearray(page.data)
    for at in page.entries[:MOST_TAGS]:
        if struct.unpack_from(page.order + "H", data, at)[0] == PLANAR:
            struct.pack_into(page.order + "H", data, at + 4 + struct.calcsize(page.word), 1)
    return bytes(data)


def is_mixed_up(page: Page) -> bool:
    """Tell whether Pillow would read a page wrongly, without a word, and `planes` does not read it.

    That is CIELab in planes, and uncompressed YCbCr of fewer colours; of what is compressed, grey
    with transparency in planes, and floating point of the other byte order.
    """
    photometric, plain = page.value(PHOTOMETRIC), page.value(COMPRESSION, 1) == 1
    if photometric == _YCBCR and plain:
        return (page.values(_SUBSAMPLING) or (2, 2)) != (1, 1)
    if is_planar(page) and (photometric == _LAB or (photometric in GREY and not plain)):
        return True
    return page.order == ">" and page.value(FORMAT, UNSIGNED) == FLOAT and not plain
