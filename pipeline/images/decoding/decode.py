"""From an image file's bytes to uint8 RGB, or a reason why not.

JPEG goes through torchvision (libjpeg-turbo without the interpreter lock, a third faster than
Pillow); what it refuses, and every other format, through Pillow, which has the last word. Both
give the same pixels for a JPEG. torchvision's PNG decoder is never used: some files crash it.

What the pixels are (the decode policy):

- EXIF orientation is applied, the first frame of an animation taken, a colour profile ignored.
- Transparency is composited on white.
- Of 16-bit samples the high byte counts, as in libpng: 65535 becomes 255 and nothing is clipped.
- CMYK JPEGs are inverted as Adobe writes them, and converted without a profile.
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
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from pipeline.errors import BadImage
from pipeline.images.decoding import formats
from pipeline.images.decoding.modes import to_rgb
from pipeline.images.preprocess import DECODE_POLICY as DECODE_POLICY

try:  # torchvision 0.29 deprecates it: a release without it is slower and gives the same pixels
    from torchvision.io import ImageReadMode as ImageReadMode
    from torchvision.io import decode_jpeg as decode_jpeg
except ImportError:  # pragma: no cover
    decode_jpeg = None

# Pillow finds the six formats by these modules; importing them keeps it from importing all.
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
UNSUPPORTED = "damaged, or a variant of its format that is not read"
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


def decode(data: bytes, *, least: int | None = None) -> torch.Tensor:
    """Return the picture in an image file's bytes.

    Safe in threads. Libraries warn and print: whoever calls this holds `quiet.quiet` around it.

    Args:
        data: a whole file: JPEG, PNG, WebP, GIF, BMP or TIFF, recognised by its content.
        least: short side, in pixels, down to which a larger JPEG may be reduced by 2, 4 or 8;
            None for the whole picture.

    Returns:
        uint8 [3, H, W], RGB, upright; channels last in memory.

    Raises:
        BadImage: with one of this module's reasons, when the bytes are to blame.
        MemoryError, OSError: when the machine is (no memory, no file descriptors, …).
    """
    kind = formats.sniff(data[: formats.HEAD])
    if not kind:
        raise BadImage(formats.NOT_AN_IMAGE if data else formats.EMPTY)
    if kind == "jpeg" and (header := formats.jpeg_header(data)) is not None:
        width, height, scans = header
        room = _room(width, height)
        if scans > MAX_SCANS or scans * width * height > MAX_SCANNED:
            raise BadImage(TOO_MANY_SCANS)
        with room:
            picture = _reduced(data, header, least) if least else None
            picture = _jpeg(data) if picture is None else picture
        if picture is not None:
            return picture
    if kind == "webp" and (size := formats.webp_size(data)) is not None:
        _room(*size)
    return _pillow(data, kind)


def reduction(data: bytes, least: int) -> int:
    """Return by how much `decode` divides a picture's sides for a short side of `least`: 1 to 8.

    Args:
        data: a whole file.
        least: as in `decode`.
    """
    header = formats.jpeg_header(data) if formats.sniff(data[: formats.HEAD]) == "jpeg" else None
    return 1 if header is None else _divisor(header, least)


def _divisor(header: formats.JpegHeader, least: int) -> int:
    short = min(header.width, header.height)
    return next((by for by in (8, 4, 2) if short // by >= least), 1)


def _room(width: int, height: int) -> AbstractContextManager[object]:
    """Check a header's size; return what to hold while a picture of it is in memory."""
    if width <= 0 or height <= 0:
        raise BadImage(NO_PIXELS)
    if width * height > MAX_PIXELS:
        raise BadImage(TOO_LARGE)
    return _one_large if width * height > LARGE else nullcontext()


def _reduced(data: bytes, header: formats.JpegHeader, least: int) -> torch.Tensor | None:
    """Return a large JPEG's pixels at a part of its size; None where it is not large, or bad."""
    by = _divisor(header, least)
    if by == 1:
        return None
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            image.draft(None, (header.width // by, header.height // by))
            image.load()
            return _tensor(to_rgb(_upright(image), bits=8))
    except MemoryError:
        raise
    except Exception:  # whether it is bad, and why, the whole picture shows
        return None


def _tensor(rgb: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)  # [H, W, 3] → [3, H, W]


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


def _pillow(data: bytes, kind: str) -> torch.Tensor:
    """Return the pixels of a file of any format that is read; raises as `decode`."""
    width = height = 0
    try:
        with Image.open(io.BytesIO(data), formats=[formats.PILLOW_NAMES[kind]]) as image:
            width, height = image.size
            room = _room(width, height)
            image.verify()
        with room, Image.open(io.BytesIO(data), formats=[formats.PILLOW_NAMES[kind]]) as image:
            image.load()
            if kind == "png" and _may_be_short(image) and not formats.holds_every_row(data):
                raise BadImage(TRUNCATED)
            bits = data[24] if kind == "png" else 8  # IHDR's bit depth
            return _tensor(to_rgb(_upright(image), bits=bits))
    except (BadImage, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's error, not Pillow's: Pillow sets no number
        # A codec of Pillow's says so also where a header's sizes overflow.
        if "out of memory" in str(error) and not fits(width * height):
            raise MemoryError(str(error)) from error
        raise BadImage(_reason(error, kind)) from error


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


def _reason(error: Exception, kind: str) -> str:
    """Return the reason for what Pillow raised: it has dozens of texts, some with addresses."""
    if isinstance(error, Image.DecompressionBombError):
        return TOO_LARGE
    text = str(error).lower()
    if isinstance(error, EOFError) or "truncated" in text or "not enough" in text:
        return TRUNCATED
    if "out of memory" in text:
        return SENSELESS
    # Pillow cannot tell an unknown kind of TIFF from a broken one.
    unknown = kind == "tiff" and isinstance(error, UnidentifiedImageError)
    if unknown or text.startswith("unsupported") or "conversion from" in text:
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


def _upright(image: Image.Image) -> Image.Image:
    way = _UPRIGHT.get(orientation(image))
    return image if way is None else image.transpose(way)
