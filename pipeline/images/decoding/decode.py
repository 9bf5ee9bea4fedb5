"""From an image file's bytes to uint8 RGB, or a reason why not.

JPEG goes through torchvision (libjpeg-turbo without the interpreter lock, a third faster than
Pillow); what it refuses, and every other format, through Pillow, which has the last word. Both
give the same pixels for a JPEG. torchvision's PNG decoder is never used: some files crash it.

What the pixels are (the decode policy; docs/formats.md has it format by format):

- EXIF orientation is applied, and the first frame or page taken.
- Colours are converted to sRGB: from an ICC profile, PNG's cICP, gAMA and cHRM, AVIF's and HEIC's
  code points, and Adobe RGB where a camera's EXIF says so; see `colour`.
- Transparency is composited on white.
- Of 16-bit samples the high byte counts, as in libpng: 65535 becomes 255 and nothing is clipped.
  Where the file says that it uses fewer bits, and does, the highest eight of these.
- CMYK JPEGs are inverted as Adobe writes them; without a profile the conversion is Pillow's.
- Floating point samples must lie within 0 to 1 and are scaled; samples of 32-bit or signed
  integers have no agreed range and are refused.
- A JPEG much larger than it is needed is decoded at a half, a quarter or an eighth of its size
  (libjpeg's scaled inverse DCT), never below the side that the caller needs.
- A file that ends early or fails a checksum is refused, however much of it could be shown. Inside
  a JPEG's entropy-coded data there is no checksum: what libjpeg passes there passes here.
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
import torch
from PIL import Image, UnidentifiedImageError

from pipeline.errors import BadImage
from pipeline.images.decoding import colour, formats, headers, planes, tiffs
from pipeline.images.decoding.colour import NOTHING, Colours, Conversion
from pipeline.images.decoding.modes import (
    NO_RANGE,
    eight_bits,
    is_clear,
    on_white,
    with_alpha,
)
from pipeline.images.preprocess import DECODE_POLICY as DECODE_POLICY

try:  # torchvision 0.29 deprecates it: a release without it is slower and gives the same pixels
    from torchvision.io import ImageReadMode as ImageReadMode
    from torchvision.io import decode_jpeg as decode_jpeg
except ImportError:  # pragma: no cover
    decode_jpeg = None

# Pillow finds the formats by these modules; importing them keeps it from importing all.
for _name in ("Bmp", "Gif", "Jpeg", "Png", "Tiff", "WebP"):
    import_module(f"PIL.{_name}ImagePlugin")

#: More pixels than this are refused from the header: Pillow's own limit for an error
#: (2 × `Image.MAX_IMAGE_PIXELS`).
MAX_PIXELS = 178_956_970
#: JPEGs of more scans than this, or of more scans × pixels than `MAX_SCANNED`, are refused: each
#: scan costs a pass over the whole picture, 2 ns a pixel, for a few bytes of file. Encoders write
#: about ten.
MAX_SCANS = 200
MAX_SCANNED = 20 * MAX_PIXELS
#: Pictures of more pixels than this are decoded one at a time, so that memory stays bounded
#: by one of them and not by the number of threads.
LARGE = 1 << 25

TOO_LARGE = "more pixels than the limit of 178,956,970"
NO_PIXELS = "a picture without pixels"
TOO_MANY_SCANS = "a JPEG of too many scans for its size"
TRUNCATED = "truncated"
DAMAGED = "damaged"
UNSUPPORTED = "a variant of its format that is not read"
SENSELESS = "asks for more memory than its size needs"

_ORIENTATION = 0x0112
#: EXIF orientation → what brings the picture upright (Exif 2.32, table 4.6.4 A).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_one_large = threading.Lock()


class Decoded(NamedTuple):
    """A picture, and what was done to it.

    Attributes:
        pixels: uint8 [3, H, W], RGB, in sRGB, upright; channels last in memory.
        remarks: what was converted, assumed or passed over: 'KIND (DETAIL)'.
    """

    pixels: torch.Tensor
    remarks: tuple[str, ...] = ()


def decode(data: bytes, *, least: int | None = None) -> torch.Tensor:
    """Return the picture in an image file's bytes, in sRGB.

    Safe in threads. Libraries warn and print: whoever calls this holds `quiet.quiet` around it.

    Args:
        data: a whole file, recognised by its content.
        least: short side, in pixels, down to which a larger JPEG may be reduced by 2, 4 or 8;
            None for the whole picture.

    Returns:
        uint8 [3, H, W], RGB, upright; channels last in memory.

    Raises:
        BadImage: with one of this module's reasons, when the bytes are to blame.
        MemoryError, OSError: when the machine is (no memory, no file descriptors, …).
    """
    return picture(data, least=least).pixels


def picture(
    data: bytes, *, least: int | None = None, header: headers.JpegHeader | None = None
) -> Decoded:
    """Return what `decode` does, with remarks.

    Args:
        data, least: as for `decode`, which also says what is raised.
        header: from `jpeg_header_of`, where it is known.
    """
    if not data:
        raise BadImage(formats.EMPTY)
    kind = "jpeg" if header is not None else formats.sniff(data[: formats.HEAD])
    if kind == "jpeg" and header is None:
        header = headers.jpeg_header(data)
    if header is not None:
        room = _room(header.width, header.height)
        if header.scans > MAX_SCANS or header.scans * header.width * header.height > MAX_SCANNED:
            raise BadImage(TOO_MANY_SCANS)
        by = reduction(header, least) if least else 1
        with room:
            if by > 1 and (found := _reduced(data, header, by)) is not None:
                return found
            pixels = None
            if not (header.components == 4 and header.profile):
                pixels = _jpeg(data)
        if pixels is not None:
            convert = jpeg_conversion(header)
            if convert.apply is not None:
                rgb: Any = convert.apply(pixels.permute(1, 2, 0).numpy())
                pixels = _tensor(rgb)
            return Decoded(pixels, tuple(filter(None, [convert.remark])))
    if reason := formats.unread(kind):
        raise BadImage(reason)
    if kind == "webp" and (size := headers.webp_size(data)) is not None:
        _room(*size)
    return _pillow(data, kind, header)


def jpeg_header_of(data: bytes) -> headers.JpegHeader | None:
    """Return what the segments of a whole file say; None where it is no JPEG, or a broken one."""
    return headers.jpeg_header(data) if data.startswith(formats.JPEG) else None


def reduction(header: headers.JpegHeader | None, least: int) -> int:
    """Return by how much `decode` divides a picture's sides for a short side of `least`: 1 to 8.

    Args:
        header: from `jpeg_header_of`.
        least: as in `decode`.
    """
    if header is None:
        return 1
    short = min(header.width, header.height)
    return next((by for by in (8, 4, 2) if short // by >= least), 1)


def jpeg_conversion(header: headers.JpegHeader) -> Conversion:
    """Return how the RGB of a grey or colour JPEG becomes sRGB."""
    if not (header.profile or header.exif):
        return NOTHING
    return colour.conversion(_jpeg_colours(header), "GRAY" if header.components == 1 else "RGB")


def _jpeg_colours(header: headers.JpegHeader) -> Colours:
    if header.profile:
        return Colours(header.profile)
    if b"R03\0" not in header.exif:  # what nearly every camera's file lacks
        return Colours()
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + header.exif)
    return _of_exif(exif)


def _room(width: int, height: int) -> AbstractContextManager[object]:
    """Check a header's size; return what to hold while a picture of it is in memory."""
    if width <= 0 or height <= 0:
        raise BadImage(NO_PIXELS)
    if width * height > MAX_PIXELS:
        raise BadImage(TOO_LARGE)
    return _one_large if width * height > LARGE else nullcontext()


def _reduced(data: bytes, header: headers.JpegHeader, by: int) -> Decoded | None:
    """Return a JPEG's pixels at a part of its size; None where that fails."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            image.draft(None, (header.width // by, header.height // by))
            image.load()
            return _finished(image, image, _jpeg_colours(header))
    except MemoryError:
        raise
    except Exception:  # whether it is bad, and why, the whole picture shows
        return None


def _jpeg(data: bytes) -> torch.Tensor | None:
    """Return a JPEG's pixels, or None to let Pillow read it or say what is wrong with it."""
    if decode_jpeg is None:
        return None
    buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    try:
        picture: torch.Tensor = decode_jpeg(
            buffer, mode=ImageReadMode.RGB, apply_exif_orientation=True
        )
    except RuntimeError:
        return None
    return picture


def _pillow(data: bytes, kind: str, header: headers.JpegHeader | None = None) -> Decoded:
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
        with opened(data, kind) as image:
            width, height = image.size
            room = _room(width, height)
            image.verify()
        with room, opened(data, kind) as image:
            image.load()
            if kind == "png" and _may_be_short(image) and not headers.holds_every_row(data):
                raise BadImage(TRUNCATED)
            bits, declared = _depth(data, kind, page)
            plain, remark = eight_bits(
                image, bits=bits, declared=declared, low=partial(_low_bytes, data, kind)
            )
            colours = _colours(image, data, kind, header)
            more = [_frames(image, kind)] if page is None else _passed_over(page)
            return _finished(image, plain, colours, remark, *more)
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


def _heic(data: bytes) -> Decoded:
    """Return the primary picture of a HEIC file; libheif turns it upright."""
    heif: Any = import_module("pillow_heif").open_heif(io.BytesIO(data))
    with _room(*heif.size):
        image: Image.Image = heif.to_pillow()
        image.info.pop("exif", None)  # its orientation has been applied
        more = f"Only the primary picture read ({len(heif)} pictures)" if len(heif) > 1 else ""
        return _finished(image, image, _colours(image, data, "heic", None), more)


def _tiff(page: tiffs.Page) -> Decoded | None:
    """Return the picture of a TIFF that Pillow would read wrongly; None for all others."""
    if tiffs.is_raw(page.data):
        raise BadImage(formats.unread("camera raw"))
    if tiffs.is_signed(page):
        raise BadImage(NO_RANGE)
    if tiffs.is_mixed_up(page):
        raise BadImage(tiffs.variant(page))
    if not planes.needed(page):
        return None
    with _room(page.value(tiffs.WIDTH), page.value(tiffs.HEIGHT)):
        image, remark = planes.image(page)
        colours = Colours(bytes(page.values(tiffs.PROFILE)))
        return _finished(image, image, colours, remark, *_passed_over(page))


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
        return _jpeg_colours(header)
    if kind == "png":
        chunks = headers.png_chunks(data, b"cICP", b"sRGB")
        if len(found := chunks.get(b"cICP", b"")) >= 2:
            return colour.of_code_points(found[0], found[1])
        if not image.info.get("icc_profile"):
            if b"sRGB" in chunks:
                return Colours()
            return colour.of_png(image.info.get("gamma"), image.info.get("chromaticity"))
    if profile := image.info.get("icc_profile"):
        return Colours(bytes(profile))
    if kind in ("avif", "heic"):
        at = data.find(b"colrnclx", 0, 1 << 16)
        if at >= 0:
            points = data[at + 8 : at + 12]
            return colour.of_code_points(
                int.from_bytes(points[:2], "big"), int.from_bytes(points[2:], "big")
            )
    return Colours()


def _of_exif(exif: Image.Exif) -> Colours:
    try:
        return colour.of_exif(exif)
    except MemoryError:
        raise
    except Exception:  # hostile EXIF raises nearly anything; the pixels are fine
        return Colours()


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


def _finished(image: Image.Image, plain: Image.Image, colours: Colours, *remarks: str) -> Decoded:
    """Return a loaded image as pixels: upright, in sRGB, on white.

    Args:
        image: as the file says, for its EXIF.
        plain: the same with eight bits a sample.
        colours: of the file.
        remarks: so far.
    """
    turn = _UPRIGHT.get(orientation(image))
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
    pixels = _tensor(np.array(on_white(plain)))
    return Decoded(pixels, tuple(filter(None, [convert.remark, *remarks])))


def _tensor(rgb: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)  # [H, W, 3] → [3, H, W]


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


def orientation(image: Image.Image) -> int:
    """Return a picture's EXIF orientation, 1 to 8; EXIF that cannot be read means 1."""
    try:
        found = image.getexif().get(_ORIENTATION)
    except MemoryError:
        raise
    except Exception:  # hostile EXIF raises nearly anything; the pixels are fine
        return 1
    return found if isinstance(found, int) and found in _UPRIGHT else 1
