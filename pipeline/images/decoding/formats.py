"""What a file is, told by its first bytes; which kinds are read, and what to do about the others.

Nothing here imports Pillow: a warm run asks this of every new file and needs no decoder.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import PurePath

from pipeline.images.decoding import tiffs
from pipeline.images.names import counted, listed

#: How many bytes from the start of a file `sniff` looks at.
HEAD = 4096
#: Pillow's names of the formats that are read, by ours. Nothing else is ever opened by Pillow.
PILLOW_NAMES = {
    name.lower(): name for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
}

#: Reasons that need no decoding.
EMPTY = "empty file"
NOT_AN_IMAGE = "not a JPEG, PNG, WebP, GIF, BMP or TIFF file"
#: File names that end so claim to be images of a format that is always read.
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
)
#: Likewise, of formats that are read where a library is there.
OPTIONAL = frozenset((".avif", ".heic", ".heif"))

#: Kinds that are read where a library is there, to that library's module.
_MODULES = {"avif": "PIL._avif", "heic": "pillow_heif"}
_MAGICK = "convert them, for example with ImageMagick: `magick mogrify -format png FILES`"
_UNPACK = "unpack them into the folder"
_GIVE = "give each as DATA of its own, or unpack them into the folder"
#: Kinds that are recognised and not read, as people call them, to the way to read them.
WAYS = {
    "avif": "Pillow reads them from 11.3 on: `pip install --upgrade pillow`",
    "heic": "`pip install pillow-heif` (the extra `formats`) and run the same command again to "
    "read them, or convert them: `heif-convert FILE.heic FILE.jpg`",
    "JPEG XL": "convert them: `djxl FILE.jxl FILE.png`",
    "JPEG 2000": "convert them: `opj_decompress -i FILE.jp2 -o FILE.png`",
    "JPEG-LS": "convert them: `ffmpeg -i FILE.jls FILE.png`",
    "JPEG XR": "convert them: `JxrDecApp -i FILE.jxr -o FILE.bmp`",
    "camera raw": "develop them into JPEG, PNG or TIFF, for example with darktable-cli or dcraw -T",
    "DICOM": "convert them with a window that suits: `dcmj2pnm --write-png FILE.dcm FILE.png`",
    "NIfTI": "cut them into slices and save these as PNG, for example with nibabel",
    "NRRD": "cut them into slices and save these as PNG, for example with SimpleITK",
    "microscope": "save each picture in them as TIFF, for example with Bio-Formats' bfconvert",
    "MATLAB": "save each picture in them as PNG, for example with scipy.io",
    "FITS": "scale their samples and save them as PNG, for example with astropy",
    "HDF5": "save each picture in them as PNG, for example with h5py",
    "NumPy": "save each picture in them as PNG, for example with Pillow's `Image.fromarray`",
    "PDF": "make a picture of each page: `pdftoppm -png -r 150 FILE.pdf FILE`",
    "PostScript": "make a picture of each page: `gs -sDEVICE=png16m -r150 -o FILE-%d.png FILE`",
    "SVG": "draw them: `rsvg-convert -o FILE.png FILE.svg`",
    "DjVu": "convert them: `ddjvu -format=tiff FILE.djvu FILE.tif`",
    "OpenEXR": "choose an exposure and convert them: `magick FILE.exr FILE.png`",
    "Radiance HDR": "choose an exposure and convert them: `magick FILE.hdr FILE.png`",
    "PFM": "choose an exposure and convert them: `magick FILE.pfm FILE.png`",
    "MNG": _MAGICK, "Photoshop": _MAGICK, "GIMP": _MAGICK, "PNM": _MAGICK, "TGA": _MAGICK,
    "Windows icon": _MAGICK, "macOS icon": _MAGICK, "DDS": _MAGICK, "KTX": _MAGICK,
    "QOI": _MAGICK, "PCX": _MAGICK, "SGI": _MAGICK, "Sun raster": _MAGICK, "BPG": _MAGICK,
    "FLIF": _MAGICK, "Windows metafile": _MAGICK, "DPX": _MAGICK, "XPM": _MAGICK, "JBIG": _MAGICK,
    "video": "take frames from them: `ffmpeg -i FILE -vf fps=1 FILE-%04d.png`",
    "sound": "they hold no pictures",
    "ZIP": _GIVE, "gzip": _UNPACK, "tar": _GIVE, "7z": _UNPACK, "RAR": _UNPACK, "xz": _UNPACK,
    "bzip2": _UNPACK, "Zstandard": _UNPACK,
    "web page": "their download may have failed: fetch the pictures again",
    "Git LFS pointer": "fetch what they stand for: `git lfs pull`",
}  # fmt: skip
_TITLES = {"avif": "AVIF", "heic": "HEIC"}

#: How a JPEG begins.
JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_CODESTREAM = b"\r\n\x87\n"  # how the signature box of JPEG XL and JPEG 2000 ends
#: What stands at an offset, to the kind; the first that fits counts.
_SIGNATURES = (
    (0, b"\xff\xd8\xff\xf7", "JPEG-LS"),
    (0, JPEG, "jpeg"), (0, _PNG, "png"), (0, b"GIF87a", "gif"), (0, b"GIF89a", "gif"),
    (0, b"\xff\x0a", "JPEG XL"), (0, b"\0\0\0\x0cJXL " + _CODESTREAM, "JPEG XL"),
    (0, b"\0\0\0\x0cjP  " + _CODESTREAM, "JPEG 2000"), (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"II\xbc", "JPEG XR"),
    (8, b"CR\2", "camera raw"), (0, b"FUJIFILMCCD-RAW", "camera raw"),
    (0, b"IIRO", "camera raw"), (0, b"IIRS", "camera raw"), (0, b"MMOR", "camera raw"),
    (0, b"IIU\0", "camera raw"), (0, b"FOVb", "camera raw"), (0, b"\0MRM", "camera raw"),
    (6, b"HEAPCCDR", "camera raw"), (0, b"ARRI\x12\x34\x56\x78", "camera raw"),
    (128, b"DICM", "DICOM"), (344, b"n+1\0", "NIfTI"), (344, b"ni1\0", "NIfTI"),
    (0, b"NRRD000", "NRRD"), (0, b"ZISRAWFILE", "microscope"),
    (0, b"\xda\xce\xbe\x0a", "microscope"), (0, b"MATLAB 5.0 MAT", "MATLAB"),
    (0, b"SDPX", "DPX"), (0, b"XPDS", "DPX"), (0, b"/* XPM", "XPM"),
    (0, b"\x97JB2\r\n\x1a\n", "JBIG"),
    (0, b"SIMPLE  =", "FITS"), (0, b"\x89HDF\r\n\x1a\n", "HDF5"), (0, b"\x93NUMPY", "NumPy"),
    (0, b"%PDF-", "PDF"), (0, b"%!PS", "PostScript"), (0, b"\xc5\xd0\xd3\xc6", "PostScript"),
    (0, b"AT&TFORM", "DjVu"), (0, b"8BPS", "Photoshop"), (0, b"gimp xcf", "GIMP"),
    (0, b"v/1\1", "OpenEXR"), (0, b"#?RADIANCE", "Radiance HDR"), (0, b"#?RGBE", "Radiance HDR"),
    (0, b"\x8aMNG", "MNG"), (0, b"\x8bJNG", "MNG"), (0, b"icns", "macOS icon"),
    (0, b"DDS ", "DDS"), (0, b"\xabKTX", "KTX"), (0, b"qoif", "QOI"), (0, b"\x01\xda\0", "SGI"),
    (0, b"\x01\xda\1", "SGI"), (0, b"\x59\xa6\x6a\x95", "Sun raster"), (0, b"BPG\xfb", "BPG"),
    (0, b"FLIF", "FLIF"), (0, b"\xd7\xcd\xc6\x9a", "Windows metafile"),
    (40, b" EMF", "Windows metafile"),
    (0, b"\x1a\x45\xdf\xa3", "video"), (0, b"FLV\1", "video"), (0, b"\x30\x26\xb2\x75", "video"),
    (0, b"\0\0\1\xba", "video"), (0, b"\0\0\1\xb3", "video"), (3, b"\x08wide", "video"),
    (4, b"moov", "video"), (4, b"mdat", "video"),
    (0, b"OggS", "sound"), (0, b"fLaC", "sound"),
    (0, b"ID3", "sound"),
    (0, b"\0\0\1\0", "Windows icon"),
    (0, b"PK\3\4", "ZIP"), (0, b"\x1f\x8b", "gzip"), (257, b"ustar", "tar"),
    (0, b"BZh", "bzip2"), (0, b"\x28\xb5\x2f\xfd", "Zstandard"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"), (0, b"Rar!\x1a\7", "RAR"), (0, b"\xfd7zXZ\0", "xz"),
    (0, b"version https://git-lfs", "Git LFS pointer"),
)  # fmt: skip
_RIFF = {b"WEBP": "webp", b"AVI ": "video", b"WAVE": "sound"}
_AVIF = frozenset((b"avif", b"avis"))
_HEIC = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
)
_RAW_SUFFIXES = (
    ".dng", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".pef", ".srw", ".dcr", ".kdc", ".erf",
     ".3fr", ".fff", ".iiq", ".mef", ".mos", ".rwl", ".cr2", ".orf", ".rw2"
)  # fmt: skip
#: Kinds without a signature, and what can be told of their first bytes.
_TGA_KINDS = frozenset((0, 1, 2, 3, 9, 10, 11))


def sniff(head: bytes, name: str = "") -> str:
    """Return what a file is: a key of `PILLOW_NAMES` or `WAYS`, or "" for what is not known.

    Args:
        head: the first `HEAD` bytes of the file, or more.
        name: of the file, for the few kinds that content alone does not tell.
    """
    for at, signature, kind in _SIGNATURES:
        if head.startswith(signature, at):
            return kind
    if head.startswith(b"RIFF"):
        return _RIFF.get(head[8:12], "")
    if head[4:8] == b"ftyp":
        return _of_brands(head)
    # "BM" alone begins many a text: the length of the second header must make sense too.
    if head.startswith(b"BM") and 12 <= int.from_bytes(head[14:18], "little") <= 124:
        return "bmp"
    if head.startswith(tiffs.SIGNATURES):
        raw = name.lower().endswith(_RAW_SUFFIXES) or tiffs.is_raw(head)
        return "camera raw" if raw else "tiff"
    if head[:1] == b"P" and head[1:2] in b"1234567Ff" and head[2:3].isspace():
        return "PFM" if head[1:2] in b"Ff" else "PNM"
    if head[:1] == b"\n" and head[1:2] in b"\0\2\3\4\5" and head[2:3] == b"\1":
        return "PCX"
    if name.lower().endswith(".tga") and len(head) >= 18 and head[2] in _TGA_KINDS and head[1] < 2:
        return "TGA"
    return _of_text(head)


def _of_brands(head: bytes) -> str:
    """Return what a file in the ISO base media format is (ISO/IEC 14496-12, section 4.3)."""
    length = int.from_bytes(head[:4], "big")
    brands = {head[at : at + 4] for at in (8, *range(16, min(length, len(head)), 4))}
    if b"crx " in brands:
        return "camera raw"
    if brands & _AVIF:
        return "avif"
    return "heic" if brands & _HEIC else "video"


def _of_text(head: bytes) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        head = head.decode("utf-16", "ignore").encode()
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not text.startswith(b"<"):
        return ""
    if b"<svg" in text and text.startswith((b"<svg", b"<?xml", b"<!--", b"<!doctype svg")):
        return "SVG"
    return "web page" if text.startswith((b"<!doctype html", b"<html")) else ""


def unread(kind: str) -> str:
    """Return why files of a kind are not read here, or "" where they are.

    Args:
        kind: from `sniff`.
    """
    if kind in _MODULES:
        return "" if _has(_MODULES[kind]) else _REASONS[kind]
    return "" if kind in PILLOW_NAMES else _REASONS.get(kind, NOT_AN_IMAGE)


@cache
def _has(module: str) -> bool:
    return find_spec(module) is not None


_REASONS = {kind: f"{_TITLES.get(kind, kind)}, which is not read" for kind in WAYS}
_KINDS = {reason: kind for kind, reason in _REASONS.items()}
#: Every reason of `unread`.
NOT_READ = frozenset((NOT_AN_IMAGE, *_KINDS))


def claims(path: str, reason: str) -> bool:
    """Tell whether a file that is not read for a reason of `unread` is named as what is read."""
    suffix = PurePath(path).suffix.lower()
    false = reason == NOT_AN_IMAGE and suffix in OPTIONAL
    return false or (reason in NOT_READ and suffix in SUFFIXES)


def way(reason: str) -> str:
    """Return what to do about a file that is not read for a reason of `unread`."""
    return WAYS.get(_KINDS.get(reason, ""), "")


class Unread:
    """Files that are recognised and not read, counted by their kind, with the first few names."""

    def __init__(self, files: Iterable[tuple[str, str]] = ()) -> None:
        self._found: dict[str, tuple[int, list[str]]] = {}
        for path, reason in files:
            self.add(path, reason)

    def add(self, path: str, reason: str) -> None:
        """Count a file, where the reason why it is not read is one of `unread`'s."""
        if reason in _KINDS:
            count, names = self._found.get(reason, (0, []))
            self._found[reason] = (count + 1, [*names, path] if count < 2 else names)

    @property
    def notes(self) -> list[str]:
        """Return a sentence for each kind, the commonest first: how many, which, what to do."""
        ranked = sorted(self._found.items(), key=lambda item: -item[1][0])
        return [
            f"{counted(count, _TITLES.get(_KINDS[reason], _KINDS[reason]) + ' file')} "
            f"{'was' if count == 1 else 'were'} left out ({listed(names)}"
            f"{', …' if count > len(names) else ''}): {way(reason)}."
            for reason, (count, names) in ranked
        ]
