"""From a picture's own colours to sRGB: profiles, and what files say of colour without one.

A conversion is made by LittleCMS (Pillow's ImageCms, perceptual intent) once for each thread and
profile. Of what makes no difference nothing is made: whether a profile is sRGB is told by what it
does, not by its name.
"""

from __future__ import annotations

import io
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

#: Levels of 255 by which a conversion may move colours and still be left out.
ALIKE = 2
_DAMAGED = "Colour profile ignored (damaged)"
_UNREAD = "Colour space ignored (EXIF that cannot be read)"
_NOT_MAPPED = "High dynamic range taken as it is (no tone mapping)"
_REMARKS = {remark.encode(): remark for remark in (_UNREAD, _NOT_MAPPED)}
#: More tags of a profile are not looked at.
_MOST_TAGS = 100
#: Conversions that each thread keeps.
_KEPT = 16
_SRGB_WHITE = (0.3127, 0.3290)
#: CIE xy of red, green and blue, by ITU-T H.273's numbers, and of Adobe RGB (1998).
_PRIMARIES = {
    1: ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
}
_ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
_NAMES = {9: "BT.2020", 12: "Display P3"}
#: Transfer characteristics of H.273 to an exponent; the others are as good as sRGB's curve, or
#: high dynamic range, of which sRGB is no part.
_EXPONENTS = {4: 2.2, 5: 2.8, 8: 1.0}
_HIGH_RANGE = frozenset((16, 18))
#: Bradford's cone responses, and the white of profiles, D50 (ICC.1:2022, annex E and 7.2.16).
_BRADFORD = np.array(
    [(0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296)]
)
_D50 = np.array([0.9642, 1.0, 0.8249])
_EXIF, _INTEROPERABILITY, _COLOUR_SPACE, _INDEX, _UNCALIBRATED = 0x8769, 0xA005, 0xA001, 1, 0xFFFF


@dataclass(frozen=True)
class Colours:
    """What a file says of its colours: a profile, and where it came from.

    Attributes:
        profile: ICC; empty where nothing is said, or sRGB.
        remark: on what cannot be taken into account; else empty.
    """

    profile: bytes = b""
    remark: str = ""


@dataclass(frozen=True, eq=False)
class Conversion:
    """From a kind of pixels to sRGB, in the thread that made it.

    Attributes:
        apply: uint8 [H, W, 3] to [H, W, 3]; for CMYK from a Pillow image to one. None where there
            is nothing to do.
        remark: on what is done, or not; else empty.
    """

    apply: Callable[..., object] | None = None
    remark: str = ""


NOTHING = Conversion()


def conversion(colours: Colours, space: str) -> Conversion:
    """Return how pixels of a picture become sRGB.

    Args:
        colours: of the file.
        space: of the pixels: `GRAY` (as three equal channels), `RGB` or `CMYK`.
    """
    made = _threads.get(colours.profile, space) if colours.profile else NOTHING
    return replace(made, remark=colours.remark) if colours.remark else made


def as_profile(colours: Colours) -> bytes | None:
    """Return what says the same as a file's profile; None for sRGB.

    A remark alone is no profile, and told in its place.
    """
    return colours.profile or colours.remark.encode() or None


def _conversion(profile: bytes, space: str) -> Conversion:
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        own = opened.profile.xcolor_space.strip()
        name = _printable(ImageCms.getProfileDescription(opened)) or "without a name"
        if own != space and (own, space) != ("RGB", "GRAY"):
            return Conversion(remark=f"Colour profile ignored ({own}, where pixels are {space})")
        mode = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}[own]
        made = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
        apply = _applied(made, mode)
        if mode != "CMYK" and _is_nothing(apply, grey=space == "GRAY"):
            return NOTHING
    except MemoryError:
        raise
    except Exception:  # LittleCMS and Pillow raise many kinds; the pixels are fine without
        return Conversion(remark=_REMARKS.get(profile, _DAMAGED))
    if _transfer(profile) in _HIGH_RANGE:
        return Conversion(apply, f"High dynamic range converted without tone mapping ({name})")
    return Conversion(apply, f"Converted to sRGB ({name})")


def _transfer(profile: bytes) -> int:
    """Return the transfer characteristics that a profile names (ICC.1:2022, 9.2.17); 0 without."""
    (count,) = struct.unpack_from(">I", profile, 128)
    for at in range(132, 132 + 12 * min(count, _MOST_TAGS), 12):
        name, start, _ = struct.unpack_from(">4sII", profile, at)
        if name == b"cicp":
            return int(profile[start + 9])
    return 0


def _applied(made: ImageCms.ImageCmsTransform, mode: str) -> Callable[..., object]:
    if mode == "CMYK":
        return made.apply
    if mode == "RGB":
        return lambda rgb: np.asarray(made.apply(Image.fromarray(np.ascontiguousarray(rgb))))
    levels = made.apply(Image.fromarray(np.arange(256, dtype=np.uint8)[None]))
    table: np.ndarray = np.asarray(levels)[0]  # [256, 3]
    return lambda rgb: table[rgb[..., 0]]


def _is_nothing(apply: Callable[..., object], *, grey: bool) -> bool:
    """Tell whether a conversion leaves all colours, or all greys, as good as they are."""
    greys = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    lattice = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    before = (greys if grey else np.concatenate([greys, lattice]))[None]
    after = np.asarray(apply(before)).astype(int)
    return bool(np.abs(after - before).max() <= ALIKE)


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable() and c not in "()")[:60].strip()


class _Conversions(threading.local):
    def __init__(self) -> None:
        self.get = lru_cache(_KEPT)(_conversion)


_threads = _Conversions()


def of_jpeg(profile: bytes, exif: bytes) -> Colours:
    """Return what a JPEG's segments say of colours; a profile counts more than EXIF."""
    return Colours(profile) if profile else of_exif(exif)


def of_exif(exif: bytes) -> Colours:
    """Return what EXIF says of colours: Adobe RGB where a camera says so (DCF 2.0: index R03).

    Args:
        exif: from the TIFF header on; empty without.
    """
    if b"R03\0" not in exif:  # what nearly every camera's file lacks
        return Colours()
    try:
        read = Image.Exif()
        read.load(b"Exif\0\0" + exif)
        inner = read.get_ifd(_EXIF)
        index = str(read.get_ifd(_INTEROPERABILITY).get(_INDEX, "")).strip("\0 ")
    except MemoryError:
        raise
    except Exception:  # hostile EXIF raises nearly anything; the pixels are fine
        return Colours(remark=_UNREAD)
    if index == "R03" and inner.get(_COLOUR_SPACE, _UNCALIBRATED) == _UNCALIBRATED:
        return Colours(matrix_profile(_ADOBE, _SRGB_WHITE, 563 / 256, name="Adobe RGB, says EXIF"))
    return Colours()


def of_code_points(primaries: int, transfer: int) -> Colours:
    """Return what code points of ITU-T H.273 say of colours: PNG's cICP, AVIF's and HEIC's nclx."""
    if transfer in _HIGH_RANGE:
        return Colours(remark=_NOT_MAPPED)
    exponent = _EXPONENTS.get(transfer)
    if primaries not in _PRIMARIES or (primaries == 1 and exponent is None):
        return Colours()
    name = _NAMES.get(primaries, f"exponent {exponent}")
    return Colours(matrix_profile(_PRIMARIES[primaries], _SRGB_WHITE, exponent, name=name))


def of_png(gamma: float | None, chromaticities: tuple[float, ...] | None) -> Colours:
    """Return what a PNG's gAMA and cHRM say of colours.

    Args:
        gamma: of encoding; within a twentieth of 1/2.2 sRGB is meant, as libpng takes it.
        chromaticities: xy of white, red, green and blue.
    """
    if gamma is None and chromaticities is None:
        return Colours()
    plain = gamma is None or abs(gamma * 2.2 - 1) < 0.05
    if not plain and not (gamma and 0.1 < gamma < 10):
        return Colours(remark=_DAMAGED)
    exponent = None if plain or not gamma else 1 / gamma
    pairs = chromaticities or (*_SRGB_WHITE, *(value for xy in _PRIMARIES[1] for value in xy))
    white, *primaries = zip(pairs[::2], pairs[1::2], strict=True)
    try:
        named = "gAMA and cHRM of the PNG"
        return Colours(matrix_profile(tuple(primaries), white, exponent, name=named))
    except (ValueError, ZeroDivisionError, np.linalg.LinAlgError, struct.error):
        return Colours(remark=_DAMAGED)


@lru_cache(64)
def matrix_profile(
    primaries: tuple[tuple[float, ...], ...],
    white: tuple[float, ...],
    exponent: float | None,
    *,
    name: str = "",
) -> bytes:
    """Return an ICC profile of three primaries and a curve (ICC.1:2022, 8.3.3 and annex E).

    Args:
        primaries: CIE xy of red, green and blue.
        white: CIE xy of white.
        exponent: of decoding; None for sRGB's curve.
        name: for people.
    """

    def tristimulus(xy: tuple[float, ...]) -> np.ndarray:
        x, y = xy
        return np.array([x / y, 1, (1 - x - y) / y])

    target = tristimulus(white)
    columns = np.stack([tristimulus(xy) for xy in primaries], 1)  # [XYZ, RGB]
    columns = columns * np.linalg.solve(columns, target)
    cones = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ target))
    adapted = np.linalg.inv(_BRADFORD) @ cones @ _BRADFORD @ columns

    def number(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))  # s15Fixed16

    if exponent is None:  # IEC 61966-2-1, as function 3 of 10.18
        values = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        curve = b"para\0\0\0\0\0\3\0\0" + b"".join(map(number, values))
    else:
        curve = b"para\0\0\0\0\0\0\0\0" + number(exponent)
    tags = {b"wtpt": b"XYZ \0\0\0\0" + b"".join(map(number, _D50))}
    if name:
        text = name.encode("utf-16-be")
        head = struct.pack(">4s4xII4sII", b"mluc", 1, 12, b"enUS", len(text), 28)
        tags[b"desc"] = head + text + bytes(-len(text) % 4)
    for letter, column in zip(b"rgb", adapted.T, strict=True):
        tags[bytes([letter]) + b"XYZ"] = b"XYZ \0\0\0\0" + b"".join(map(number, column))
        tags[bytes([letter]) + b"TRC"] = curve
    start = 128 + 4 + 12 * len(tags)
    directory, body = struct.pack(">I", len(tags)), b""
    for tag, value in tags.items():
        directory += tag + struct.pack(">II", start + len(body), len(value))
        body += value
    head = struct.pack(">I4xI12s", start + len(body), 0x04400000, b"mntrRGB XYZ ")
    head = head.ljust(36, b"\0") + b"acsp"
    head = head.ljust(68, b"\0") + b"".join(map(number, _D50))
    return head.ljust(128, b"\0") + directory + body
