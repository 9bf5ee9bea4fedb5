"""From an image file's bytes to uint8 RGB by Pillow: what torchvision does not read, or all of it.

Imports no torch.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.errors import BadImage
from pipeline.images.decoding import colour, formats, headers, planes, tiffs
from pipeline.images.decoding.colour import NOTHING, Colours
from pipeline.images.decoding.modes import (
    NO_RANGE,
    eight_bits,
    is_clear,
    on_white,
    with_alpha,
)

# Pillow finds the formats by these modules; importing them keeps it from importing all.
for _name in ("Bmp", "Gif", "Jpeg", "Png", "Tiff", "WebP"):
    import_module(f"PIL.{_name}ImagePlugin")

#: More pixels than this are refused from the header: Pillow's own limit for an error
#: (2 × `Image.MAX_IMAGE_PIXELS`).
MAX_PIXELS = 178_956_970
#: Pictures of more pixels than this are decoded one at a time, so that memory stays bounded
#: by one of them and not by the number of threads.
LARGE = 1 << 25

TOO_LARGE = "more pixels than the limit of 178,956,970"
NO_PIXELS = "a picture without pixels"
TRUNCATED = "truncated"
DAMAGED = "damaged"
UNSUPPORTED = "a variant of its format that is not read"
SENSELESS = "asks for more memory than its size needs"

#: EXIF orientation → what brings the picture upright (Exif 2.32, table 4.6.4 A).
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_one_large = threading.Lock()


class Raster(NamedTuple):
    """A picture, and what was done to it.

    Attributes:
        rgb: uint8 [H, W, 3], in sRGB, upright: an array, or a tensor of what was given as one.
        remarks: what was converted, assumed or passed over: 'KIND (DETAIL)'.
    """

    rgb: Any
    remarks: tuple[str, ...] = ()


def room(width: int, height: int) -> AbstractContextManager[object]:
    """Check a header's size; return what to hold while a picture of it is in memory."""
    if width <= 0 or height <= 0:
        raise BadImage(NO_PIXELS)
    if width * height > MAX_PIXELS:
        raise BadImage(TOO_LARGE)
    return _one_large if width * height > LARGE else nullcontext()


def reduced(data: bytes, header: headers.JpegHeader, by: int) -> Raster | None:
    """Return a JPEG's pixels at a part of its size; None where that fails."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            image.draft(None, (header.width // by, header.height // by))
            image.load()
            turn = headers.exif_orientation(header.exif)
            colours = colour.of_jpeg(header.profile, header.exif)
            return _finished(image, turn, colours, header.remark)
    except MemoryError:
        raise
    except Exception:  # whether it is bad, and why, the whole picture shows
        return None


def picture(data: bytes, kind: str, header: headers.JpegHeader | None = None) -> Raster:
    """Return the picture in a file of any format that is read; raises as `decode`."""
    width = height = 0
    try:
        if kind == "heic":
            return _heic(data)
        page = next(tiffs.pages(data), None) if kind == "tiff" else None
        if page is not None:
            if (found := _tiff(page)) is not None:
                return found
            data = tiffs.single_plane(page) or data
        if kind == "avif":
            data = headers.without_exif(data)
        with opened(data, kind) as image:
            width, height = image.size
            held = room(width, height)
            image.verify()
        with held, opened(data, kind) as image:
            image.info.pop("xmp", None)  # Pillow would turn a TIFF by it
            image.load()
            if kind == "png" and _may_be_short(image) and not headers.holds_every_row(data):
                raise BadImage(TRUNCATED)
            bits, declared = _depth(data, kind, page)
            plain, remark = eight_bits(
                image, bits=bits, declared=declared, low=partial(_low_bytes, data, kind)
            )
            colours = _colours(image, data, kind, header)
            more = [_frames(image, kind)] if page is None else _passed_over(page)
            gain = header.remark if header else headers.heif_remark(data) if kind == "avif" else ""
            return _finished(plain, _turn(image, page, header), colours, remark, gain, *more)
    except (BadImage, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's error, not Pillow's: Pillow sets no number
        # A codec of Pillow's says so also where a header's sizes overflow.
        if "out of memory" in str(error) and not fits(width * height):
            raise MemoryError(str(error)) from error
        raise BadImage(_reason(error, data, kind, header)) from error


def opened(data: bytes, kind: str) -> Image.Image:
    """Return a file of one of `PILLOW_NAMES`, opened by Pillow: its header is read."""
    if kind == "avif":
        import_module("PIL.AvifImagePlugin")
    return Image.open(io.BytesIO(data), formats=[formats.PILLOW_NAMES[kind]])


def _heic(data: bytes) -> Raster:
    """Return the primary picture of a HEIC file; libheif turns it upright."""
    heif: Any = import_module("pillow_heif").open_heif(io.BytesIO(data))
    with room(*heif.size):
        image: Image.Image = heif.to_pillow()
        more = f"Only the primary picture read ({len(heif)} pictures)" if len(heif) > 1 else ""
        colours = _colours(image, data, "heic", None)
        return _finished(image, 1, colours, headers.heif_remark(data), more)


def _tiff(page: tiffs.Page) -> Raster | None:
    """Return the picture of a TIFF that Pillow would read wrongly; None for all others."""
    if tiffs.is_raw(page.data):
        raise BadImage(formats.unread("camera raw"))
    if tiffs.is_signed(page):
        raise BadImage(NO_RANGE)
    if tiffs.is_mixed_up(page):
        raise BadImage(tiffs.variant(page))
    if not planes.needed(page):
        return None
    with room(page.value(tiffs.WIDTH), page.value(tiffs.HEIGHT)):
        image, remark = planes.image(page)
        turn = headers.orientation(page.value(tiffs.ORIENTATION, 1))
        colours = Colours(bytes(page.values(tiffs.PROFILE)))
        return _finished(image, turn, colours, remark, *_passed_over(page))


def _depth(data: bytes, kind: str, page: tiffs.Page | None) -> tuple[int, int]:
    """Return the bits of a sample, and how many of them the file says that it uses, or 0."""
    if kind == "png":  # IHDR's bit depth; sBIT has a byte for each channel
        used = headers.png_chunks(data, b"sBIT").get(b"sBIT", b"")
        return data[24], max(used, default=0)
    if page is not None:
        return page.value(tiffs.BITS, 8), tiffs.declared_bits(page)
    return 8, 0


def _low_bytes(data: bytes, kind: str) -> Image.Image | None:
    """Return the low bytes of a picture of 16-bit colours, of which Pillow keeps the high ones.

    It is told the wrong byte order. None where it does not know the other one.
    """
    other = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B"}
    try:
        with opened(data, kind) as image:
            tiles: list[Any] = getattr(image, "tile")  # noqa: B009 - of no `Image` as it is typed
            for at, (codec, box, offset, args) in enumerate(tiles):
                name, *rest = (args,) if isinstance(args, str) else args
                raw = name[:-4] + other[name[-4:]]
                place = (codec, box, offset, (raw, *rest) if rest else raw)
                made = type(tiles[at])  # a named tuple in some releases
                tiles[at] = place if made is tuple else made(*place)
            image.load()
            return image
    except MemoryError:
        raise
    except Exception:  # then the picture stays as it is
        return None


def _colours(
    image: Image.Image, data: bytes, kind: str, header: headers.JpegHeader | None
) -> Colours:
    """Return what a file says of its colours; the more exact of several statements counts."""
    if header is not None:
        return colour.of_jpeg(header.profile, header.exif)
    if kind == "png":
        chunks = headers.png_chunks(data, b"cICP", b"sRGB")
        if len(found := chunks.get(b"cICP", b"")) >= 2:
            return colour.of_code_points(found[0], found[1])
        if not image.info.get("icc_profile"):
            if b"sRGB" in chunks:
                return Colours()
            return colour.of_png(image.info.get("gamma"), image.info.get("chromaticity"))
    points = headers.code_points(data) if kind in ("avif", "heic") else None
    said = Colours() if points is None else colour.of_code_points(*points)
    profile = image.info.get("icc_profile")
    return Colours(bytes(profile), remark=said.remark) if profile else said


def _frames(image: Image.Image, kind: str) -> str:
    """Return a remark where a file holds more pictures than the one that is taken."""
    try:
        many = getattr(image, "is_animated", False)
        count = 0 if kind == "gif" or not many else getattr(image, "n_frames", 0)
    except MemoryError:
        raise
    except Exception:  # what follows the first frame may be damaged
        return ""
    return f"Only the first frame read ({count or 'several'} frames)" if many else ""


def _passed_over(page: tiffs.Page) -> list[str]:
    """Return remarks on what a TIFF holds besides the colours of its first page."""
    count, samples = tiffs.count_pages(page.data), page.value(tiffs.SAMPLES, 1)
    found = [f"Only the first page read ({count} pages)"] if count > 1 else []
    if 0 in page.values(tiffs.EXTRA):  # neither colour nor alpha
        found.append(f"Channels without a meaning passed over (of {samples} channels)")
    return found


def _turn(
    image: Image.Image, page: tiffs.Page | None, header: headers.JpegHeader | None
) -> int | None:
    """Return the orientation of a loaded image, 1 to 8; None where EXIF cannot be read.

    XMP may name one as well, which few programs heed and releases of Pillow differently.
    """
    if image.format == "TIFF":  # Pillow has turned it
        turned = page is None or headers.orientation(page.value(tiffs.ORIENTATION, 1))
        return 1 if turned else None
    return headers.exif_orientation(exif_of(image) if header is None else header.exif)


def exif_of(image: Image.Image) -> bytes:
    """Return a loaded image's EXIF, from the TIFF header on, as it is; empty without."""
    exif = image.info.get("exif")
    if exif is None and (text := image.info.get("Raw profile type exif")):
        try:
            exif = bytes.fromhex("".join(text.split("\n")[3:]))  # as ImageMagick writes it
        except ValueError:  # junk, as a reader of EXIF will find
            exif = text.encode()
    return bytes(exif or b"").removeprefix(b"Exif\0\0")


def orientation_remark(orientation: int | None) -> str:
    """Return the remark on a picture whose orientation cannot be read; else empty."""
    return "Orientation ignored (EXIF that cannot be read)" if orientation is None else ""


def _finished(
    plain: Image.Image, orientation: int | None, colours: Colours, *remarks: str
) -> Raster:
    """Return a loaded image as pixels: upright, in sRGB, on white.

    Args:
        plain: of eight bits a sample.
        orientation: as EXIF has it; None where that cannot be read.
        colours: of the file.
        remarks: so far.
    """
    turn = UPRIGHT.get(orientation or 1)
    plain = plain if turn is None else plain.transpose(turn)
    grey = plain.mode in ("1", "L", "LA", "La")
    space = "CMYK" if plain.mode == "CMYK" else "GRAY" if grey else "RGB"
    convert = NOTHING if plain.mode == "LAB" else colour.conversion(colours, space)
    apply: Callable[..., Any] | None = convert.apply
    if apply is not None and space == "CMYK":
        plain = apply(plain)
    elif apply is not None:  # before it meets the white
        seen = with_alpha(plain) if is_clear(plain) else plain.convert("RGB")
        plain = Image.fromarray(apply(np.array(seen)[..., :3]))
        if seen.mode == "RGBA":
            plain.putalpha(seen.getchannel("A"))
    more = convert.remark, *remarks, orientation_remark(orientation)
    return Raster(np.array(on_white(plain)), tuple(filter(None, more)))


def _may_be_short(image: Image.Image) -> bool:
    """Tell whether a PNG's last rows could be missing: Pillow leaves them at zero."""
    bottom = image.crop((0, image.height - 1, image.width, image.height))
    return bool(image.info.get("interlace")) or not any(bottom.tobytes())


def fits(pixels: int) -> bool:
    """Tell whether there is memory for an honest picture of this many pixels, twice over."""
    try:
        np.empty(max(pixels, 1 << 20) * 16, dtype=np.uint8)
    except MemoryError:
        return False
    return True


def _reason(error: Exception, data: bytes, kind: str, header: headers.JpegHeader | None) -> str:
    """Return the reason for what Pillow raised: it has dozens of texts, some with addresses."""
    if isinstance(error, Image.DecompressionBombError):
        return TOO_LARGE
    if header is not None and (other := headers.other_process(header)):
        return f"a JPEG {other}, which is not read"
    text = str(error).lower()
    if "out of memory" in text:
        return SENSELESS
    if kind == "tiff" and (page := next(tiffs.pages(data), None)) is not None:
        # Pillow cannot tell an unknown kind of TIFF from a broken one
        unknown = isinstance(error, UnidentifiedImageError) or tiffs.is_rare(page)
        if unknown and tiffs.is_whole(page):
            return tiffs.variant(page)
    if isinstance(error, EOFError) or "truncated" in text or "not enough" in text:
        return TRUNCATED
    if text.startswith("unsupported") or "conversion from" in text:
        return UNSUPPORTED
    return DAMAGED
