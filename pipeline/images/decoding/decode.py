"""From an image file's bytes to uint8 RGB, or a reason why not.

JPEG goes through torchvision (libjpeg-turbo without the interpreter lock, a third faster than
Pillow); what it refuses, and every other format, through Pillow, which has the last word. Both
give the same pixels for a JPEG. torchvision's PNG decoder is never used: some files crash it.

What the pixels are (the decode policy; docs/formats.md has it format by format):

- EXIF orientation is applied (XMP's is not), and the first frame or page taken. EXIF that cannot
  be read costs no picture: it is ignored, and told.
- Colours are converted to sRGB: from an ICC profile, PNG's cICP, gAMA and cHRM, AVIF's and HEIC's
  code points, and Adobe RGB where a camera's EXIF says so; see `colour`.
- High dynamic range (PQ, HLG) is not tone-mapped, and a gain map not applied: both are told.
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

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.compiler import import_library
from pipeline.errors import BadImage
from pipeline.images.decoding import colour, formats, headers, pillow
from pipeline.images.decoding.colour import NOTHING, Conversion
from pipeline.images.decoding.pillow import MAX_PIXELS, Raster
from pipeline.images.preprocess import DECODE_POLICY as DECODE_POLICY

if TYPE_CHECKING:
    import torch

#: JPEGs of more scans than this, or of more scans × pixels than `MAX_SCANNED`, are refused: each
#: scan costs a pass over the whole picture, 2 ns a pixel, for a few bytes of file. Encoders write
#: about ten.
MAX_SCANS = 200
MAX_SCANNED = 20 * MAX_PIXELS
TOO_MANY_SCANS = "a JPEG of too many scans for its size"

#: What brings a picture [3, H, W] upright: flips by EXIF orientation, 1 to 4; from 5 on the same
#: after the sides are swapped (Exif 2.32, table 4.6.4 A).
_FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-1, -2), (-2,))


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
    found = raster(data, least=least, header=header, jpeg=_jpeg)
    return Decoded(_tensor(found.rgb), found.remarks)


def raster(
    data: bytes,
    *,
    least: int | None = None,
    header: headers.JpegHeader | None = None,
    jpeg: Callable[[bytes], torch.Tensor | None] | None = None,
) -> Raster:
    """Return what `picture` does as an array, to the same pixels; imports no torch by itself.

    Args:
        data, least, header: as for `picture`.
        jpeg: decodes a JPEG as it is stored, [H, W, 3], which is what is returned where nothing
            remains to be done; None from it for what it refuses. Without it Pillow does, which
            takes two thirds longer.
    """
    if not data:
        raise BadImage(formats.EMPTY)
    kind = "jpeg" if header is not None else formats.sniff(data[: formats.HEAD])
    if kind == "jpeg" and header is None:
        header = headers.jpeg_header(data)
    if header is not None:
        room = pillow.room(header.width, header.height)
        if header.scans > MAX_SCANS or header.scans * header.width * header.height > MAX_SCANNED:
            raise BadImage(TOO_MANY_SCANS)
        by = reduction(header, least) if least else 1
        with room:
            if by > 1 and (found := pillow.reduced(data, header, by)) is not None:
                return found
            stored = None
            if jpeg is not None and not (header.components == 4 and header.profile):
                stored = jpeg(data)
        if stored is not None:
            convert = jpeg_conversion(header)
            rgb: Any = stored if convert.apply is None else convert.apply(np.asarray(stored))
            turn = headers.exif_orientation(header.exif)
            remarks = convert.remark, header.remark, pillow.orientation_remark(turn)
            return Raster(_upright(rgb, turn or 1), tuple(filter(None, remarks)))
    if reason := formats.unread(kind):
        raise BadImage(reason)
    if kind == "webp" and (size := headers.webp_size(data)) is not None:
        pillow.room(*size)
    return pillow.picture(data, kind, header)


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
    """Return how a JPEG's pixels become sRGB: from RGB, also of grey; of four components CMYK."""
    if not (header.profile or header.exif):
        return NOTHING
    space = {1: "GRAY", 4: "CMYK"}.get(header.components, "RGB")
    return colour.conversion(colour.of_jpeg(header.profile, header.exif), space)


def upright(pixels: torch.Tensor, orientation: int) -> torch.Tensor:
    """Return a picture as it is meant to be seen.

    Args:
        pixels: uint8 [3, H, W], as stored; channels last in memory.
        orientation: of EXIF, 1 to 8.
    """
    if orientation == 1:
        return pixels
    sides = pixels.mT if orientation > 4 else pixels
    turned = sides.flip(_FLIPS[(orientation - 1) % 4])
    return turned.permute(1, 2, 0).contiguous().permute(2, 0, 1)


def _upright(rgb: Any, orientation: int) -> Any:
    """Return what `upright` does of a picture [H, W, 3]."""
    if orientation == 1:
        return rgb
    rgb = np.asarray(rgb)
    sides = rgb.swapaxes(0, 1) if orientation > 4 else rgb
    flips = tuple(axis % 3 - 1 for axis in _FLIPS[(orientation - 1) % 4])  # as [H, W, 3] has them
    return np.ascontiguousarray(np.flip(sides, flips))


def decode_jpeg(data: torch.Tensor | list[torch.Tensor], **where: Any) -> Any:
    """Return what torchvision decodes of a JPEG's bytes, uint8 [3, H, W], RGB; a list of a list.

    Raises:
        ImportError: torchvision has no decoder (0.29 deprecates it): Pillow is slower and gives the
            same pixels.
        RuntimeError: it refuses the file.
    """
    import_library("torchvision")
    from torchvision.io import ImageReadMode
    from torchvision.io import decode_jpeg as decode

    return decode(data, mode=ImageReadMode.RGB, **where)


def _jpeg(data: bytes) -> torch.Tensor | None:
    """Return a JPEG's pixels as stored, [H, W, 3]; None to let Pillow read or refuse it."""
    import torch

    buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    try:
        # torchvision reads an orientation also where EXIF gives it as no integer
        found: torch.Tensor = decode_jpeg(buffer).permute(1, 2, 0)
        return found
    except (RuntimeError, ImportError):
        return None


def _tensor(rgb: Any) -> torch.Tensor:
    """Return [H, W, 3] as [3, H, W], channels last in memory."""
    import torch

    if not isinstance(rgb, torch.Tensor):  # a trip of each photo through NumPy costs 2 %
        rgb = torch.from_numpy(np.require(rgb, requirements="W"))
    pixels: torch.Tensor = rgb.permute(2, 0, 1)
    return pixels
