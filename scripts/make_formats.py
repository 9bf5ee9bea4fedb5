"""Write docs/formats.md: what is done with each format, container, colour and depth.

Every row is a file that this script writes and the product's own decoder reads; a test holds the
page to it. Needs tifffile, pillow-heif, and a Pillow with AVIF: `pip install -e .[test]`.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pillow_heif
import tifffile
from PIL import Image, ImageCms

from pipeline.errors import BadImage
from pipeline.images.decoding import formats
from pipeline.images.decoding.colour import matrix_profile
from pipeline.images.decoding.decode import picture
from pipeline.images.decoding.quiet import quiet

PAGE = Path(__file__).parents[1] / "docs" / "formats.md"
HEAD = """# Formats

What is done with each format, container, colour and depth. This page is made by
`python scripts/make_formats.py`, which writes a file for each row and decodes it as `extract` and
`predict` do; change the script, not the page.

"Read" means the pixels of the picture, in sRGB, eight bits a channel, upright, transparency on
white: within {close} levels of 255 in the mean (lossy coding included). What stands after it is the
remark that `extract` and `predict` print with a count and an example, and that `extract` lists
beside the table. "Not read" is followed by the reason that stands there.
"""
RULES = """
## How it is decided

- What a file is, its first bytes say, and never its name; but for TGA, which has none, and raw
  files that are TIFFs by their first bytes.
- Colours: an ICC profile counts, unless a PNG has cICP. Without a profile: PNG's sRGB chunk, gAMA
  and cHRM; AVIF's and HEIC's code points (P3, BT.2020, BT.709 with an exponent); EXIF where a
  camera says Adobe RGB (index R03, colour space uncalibrated). Everything else is taken as sRGB.
- Conversions are LittleCMS's with perceptual intent. Those that move no colour by more than two
  levels are left out: profiles of sRGB are told by what they do. A profile of RGB on grey pixels is
  used on three equal channels; one of any other space than the pixels' is ignored. Profiles of GIF
  and BMP are not looked for.
- High dynamic range (PQ and HLG in code points, cICP, or a profile's `cicp`) is not tone-mapped,
  and gain maps (Ultra HDR, ISO 21496-1, Apple's) are not applied. Both are told.
- Where a large JPEG is decoded at a part of its size, colours are converted after that; always
  before the resize, and before transparency meets the white.
- Of 16-bit samples the high byte counts. A file that declares fewer bits (PNG's sBIT, TIFF's
  MaxSampleValue or SMaxSampleValue of 2ⁿ-1) and has no sample beyond them is scaled by them.
  Otherwise samples that stay below 16,384 are told.
- Floating point samples count from 0 to 1, a thousandth beyond is taken for rounding.
- "Damaged" and "truncated" are said of files whose bytes are to blame; "a variant that is not read"
  of kinds that the decoder does not know.
"""
#: Levels of 255 in the mean up to which a picture counts as read.
CLOSE = 2.5
SRGB = ImageCms.createProfile("sRGB")
P3 = matrix_profile(((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), (0.3127, 0.3290), None)
PROPHOTO = matrix_profile(
    ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), (0.3457, 0.3585), 1.8
)


class Row(NamedTuple):
    """A file: what it is, in four columns, its bytes, and the picture in it, uint8 [H, W, 3]."""

    format: str
    container: str
    colour: str
    depth: str
    data: bytes
    want: np.ndarray


def _photo() -> np.ndarray:
    y, x = np.mgrid[0:48, 0:64] / 48
    waves = np.stack([np.sin(3 * x + y), np.cos(4 * y), np.sin(2 * x - 5 * y)], 2)
    return (128 + 90 * waves).astype(np.uint8)


RGB = _photo()
GREY = RGB[..., 1]
IMAGE = Image.fromarray(RGB)
ALPHA = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
CLEAR = Image.fromarray(np.dstack([RGB, ALPHA]))


def _on_white(rgb: np.ndarray) -> np.ndarray:
    share: np.ndarray = ALPHA[..., None] / 255
    return rgb * share + 255 * (1 - share)


ON_WHITE = _on_white(RGB)


def _three(grey: np.ndarray) -> np.ndarray:
    return np.dstack([grey] * 3)


def _file(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _tiff(samples: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, **{"metadata": None, **options})
    return buffer.getvalue()


def _heic(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=95, chroma=444, **options)
    return buffer.getvalue()


def _png(samples: np.ndarray, *extra: tuple[bytes, bytes]) -> bytes:
    """Return a PNG of uint16 [H, W] or [H, W, 3] with chunks that Pillow does not write."""
    colour = 0 if samples.ndim == 2 else 2
    header = struct.pack(">IIBBBBB", *samples.shape[1::-1], 16, colour, 0, 0, 0)
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def _in(profile: bytes, image: Image.Image = IMAGE) -> Image.Image:
    """Return a picture in the colours of a profile."""
    own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    made = ImageCms.profileToProfile(image, SRGB, own, outputMode="RGB")
    assert made is not None
    made.info.clear()
    return made


def _deep(samples: np.ndarray) -> np.ndarray:
    return samples.astype(np.uint16) * 257


def _planes(samples: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(samples.transpose(2, 0, 1))


def _turned() -> tuple[Image.Exif, np.ndarray]:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif, np.rot90(RGB, -1)


def _linear() -> np.ndarray:
    light = RGB / 255
    light = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
    return np.rint(light * 65535).astype(np.uint16)


def rows() -> Iterator[Row]:
    """Yield a file for each row of the page."""
    grey = _three(GREY)
    exif, turned = _turned()
    bit = IMAGE.convert("1")
    bits = np.asarray(bit.convert("RGB"))
    palette = IMAGE.quantize(64)
    colours = np.asarray(palette.convert("RGB"))
    cmyk = IMAGE.convert("CMYK")
    jpeg: dict[str, Any] = {"quality": 97, "subsampling": 0}
    yield Row("JPEG", "baseline", "YCbCr", "8", _file(IMAGE, "JPEG", **jpeg), RGB)
    yield Row(
        "JPEG", "progressive", "YCbCr", "8", _file(IMAGE, "JPEG", progressive=True, **jpeg), RGB
    )
    yield Row("JPEG", "baseline", "grey", "8", _file(Image.fromarray(GREY), "JPEG", **jpeg), grey)
    yield Row("JPEG", "baseline", "CMYK, Adobe", "8", _file(cmyk, "JPEG", **jpeg), RGB)
    yield Row("JPEG", "EXIF, turned", "YCbCr", "8", _file(IMAGE, "JPEG", exif=exif, **jpeg), turned)
    for name, profile in (("Display P3", P3), ("ProPhoto", PROPHOTO)):
        data = _file(_in(profile), "JPEG", icc_profile=profile, **jpeg)
        yield Row("JPEG", "ICC", name, "8", data, RGB)
    srgb = ImageCms.ImageCmsProfile(SRGB).tobytes()
    yield Row("JPEG", "ICC", "sRGB", "8", _file(IMAGE, "JPEG", icc_profile=srgb, **jpeg), RGB)
    yield Row(
        "JPEG", "ICC, broken", "YCbCr", "8", _file(IMAGE, "JPEG", icc_profile=b"?", **jpeg), RGB
    )
    gain = _file(IMAGE, "JPEG", **jpeg)
    iso = b"\xff\xe2\0\x22urn:iso:std:iso:ts:21496:-1\0\0\0\0\0"
    yield Row("JPEG", "gain map", "YCbCr", "8", gain[:2] + iso + gain[2:], RGB)
    twelve = bytearray(_file(IMAGE, "JPEG", **jpeg))
    frame = twelve.index(b"\xff\xc0")
    twelve[frame + 1], twelve[frame + 4] = 0xC1, 12
    yield Row("JPEG", "extended", "YCbCr", "12", bytes(twelve), RGB)

    yield Row("PNG", "", "grey", "1", _file(bit, "PNG"), bits)
    yield Row("PNG", "", "grey", "8", _file(Image.fromarray(GREY), "PNG"), grey)
    yield Row("PNG", "", "grey", "16", _png(_deep(GREY)), grey)
    twelfth = GREY.astype(np.uint16) << 4
    yield Row("PNG", "", "grey", "12 in 16", _png(twelfth), _three(twelfth >> 8))
    yield Row("PNG", "sBIT 12", "grey", "12 in 16", _png(twelfth, (b"sBIT", b"\x0c")), grey)
    yield Row("PNG", "", "RGB", "8", _file(IMAGE, "PNG"), RGB)
    yield Row("PNG", "", "RGB", "16", _png(_deep(RGB)), RGB)
    tenth = RGB.astype(np.uint16) << 2
    yield Row("PNG", "sBIT 10", "RGB", "10 in 16", _png(tenth, (b"sBIT", b"\n" * 3)), RGB)
    yield Row("PNG", "", "palette", "8", _file(palette, "PNG"), colours)
    clear = CLEAR.convert("LA")
    seen = _on_white(_three(np.asarray(clear)[..., 0]))
    yield Row("PNG", "", "grey, alpha", "8", _file(clear, "PNG"), seen)
    yield Row("PNG", "", "RGB, alpha", "8", _file(CLEAR, "PNG"), ON_WHITE)
    yield Row("PNG", "iCCP", "Display P3", "8", _file(_in(P3), "PNG", icc_profile=P3), RGB)
    gamma = (b"gAMA", struct.pack(">I", 100_000))
    yield Row("PNG", "gAMA 1.0", "RGB", "16", _png(_linear(), gamma), RGB)
    stored = np.asarray(_in(P3))
    wide = _deep(stored)
    yield Row("PNG", "cICP", "Display P3", "16", _png(wide, (b"cICP", bytes([12, 13, 0, 1]))), RGB)
    yield Row(
        "PNG", "cICP", "PQ", "16", _png(wide, (b"cICP", bytes([9, 16, 0, 1]))), np.asarray(_in(P3))
    )
    more: dict[str, Any] = {"save_all": True, "append_images": [IMAGE.rotate(180)]}
    yield Row("PNG", "animated", "RGB", "8", _file(IMAGE, "PNG", **more), RGB)

    yield Row("WebP", "lossy", "YCbCr", "8", _file(IMAGE, "WEBP", quality=97), RGB)
    yield Row("WebP", "lossless", "RGB, alpha", "8", _file(CLEAR, "WEBP", lossless=True), ON_WHITE)
    data = _file(_in(P3), "WEBP", lossless=True, icc_profile=P3)
    yield Row("WebP", "lossless, ICC", "Display P3", "8", data, RGB)
    yield Row("WebP", "animated", "RGB", "8", _file(IMAGE, "WEBP", lossless=True, **more), RGB)

    avif: dict[str, Any] = {"quality": 95, "subsampling": "4:4:4"}
    yield Row("AVIF", "", "YCbCr", "8", _file(IMAGE, "AVIF", **avif), RGB)
    yield Row("AVIF", "", "YCbCr, alpha", "8", _file(CLEAR, "AVIF", **avif), ON_WHITE)
    yield Row(
        "AVIF",
        "turned",
        "YCbCr",
        "8",
        _file(IMAGE, "AVIF", exif=exif.tobytes(), **avif),
        turned,
    )
    yield Row("AVIF", "ICC", "Display P3", "8", _file(_in(P3), "AVIF", icc_profile=P3, **avif), RGB)
    yield Row("AVIF", "sequence", "YCbCr", "8", _file(IMAGE, "AVIF", **avif, **more), RGB)

    yield Row("HEIC", "", "YCbCr", "8", _heic(IMAGE.copy()), RGB)
    yield Row("HEIC", "", "YCbCr, alpha", "8", _heic(CLEAR.copy()), ON_WHITE)
    points = {"color_primaries": 12, "transfer_characteristics": 13, "matrix_coefficients": 6,
              "full_range_flag": 1}  # fmt: skip
    yield Row("HEIC", "code points", "Display P3", "8", _heic(_in(P3), **points), RGB)
    profiled = _in(P3)
    profiled.info["icc_profile"] = P3
    yield Row("HEIC", "ICC", "Display P3", "8", _heic(profiled), RGB)

    yield Row("GIF", "", "palette", "8", _file(palette, "GIF"), colours)
    yield Row("GIF", "animated", "palette", "8", _file(palette, "GIF", save_all=True,
              append_images=[palette.rotate(180)]), colours)  # fmt: skip
    yield Row("BMP", "", "grey", "1", _file(bit, "BMP"), bits)
    yield Row("BMP", "", "palette", "8", _file(palette, "BMP"), colours)
    yield Row("BMP", "", "RGB", "8", _file(IMAGE, "BMP"), RGB)
    yield from _tiffs(grey, bit, bits, palette, colours)


def _tiffs(
    grey: np.ndarray, bit: Image.Image, bits: np.ndarray, palette: Image.Image, colours: np.ndarray
) -> Iterator[Row]:
    separate = {"planarconfig": "separate"}
    fax = _file(bit, "TIFF", compression="group4")
    yield Row("TIFF", "CCITT fax 4", "grey", "1", fax, bits)
    for name, option in (("uncompressed", None), ("deflate", "zlib")):
        for depth, samples in (("8", GREY), ("16", _deep(GREY))):
            yield Row("TIFF", name, "grey", depth, _tiff(samples, compression=option), grey)
            white = np.iinfo(samples.dtype).max - samples
            data = _tiff(white, photometric="miniswhite", compression=option)
            yield Row("TIFF", name, "grey, white is zero", depth, data, grey)
        for depth, samples in (("8", RGB), ("16", _deep(RGB))):
            for layout, given, options in (
                ("", samples, {}),
                (", planes", _planes(samples), separate),
                (
                    ", tiled planes",
                    _planes(samples),
                    {"planarconfig": "separate", "tile": (16, 16)},
                ),
            ):
                data = _tiff(given, photometric="rgb", compression=option, **options)
                yield Row("TIFF", name + layout, "RGB", depth, data, RGB)
    for name in ("tiff_lzw", "packbits", "jpeg"):
        options = {"quality": 97} if name == "jpeg" else {}
        data = _file(IMAGE, "TIFF", compression=name, **options)
        yield Row("TIFF", name.removeprefix("tiff_"), "RGB", "8", data, RGB)
    data = _tiff(_deep(RGB), photometric="rgb", byteorder=">")
    yield Row("TIFF", "big-endian", "RGB", "16", data, RGB)
    for order, name in (("<", "BigTIFF"), (">", "BigTIFF, big-endian")):
        data = _tiff(RGB, photometric="rgb", bigtiff=True, byteorder=order)
        yield Row("TIFF", name, "RGB", "8", data, RGB)
    yield Row("TIFF", "uncompressed", "palette", "8", _file(palette, "TIFF"), colours)
    yield Row("TIFF", "uncompressed", "CMYK", "8", _file(IMAGE.convert("CMYK"), "TIFF"), RGB)
    lab = np.asarray(ImageCms.profileToProfile(
        IMAGE, SRGB, ImageCms.createProfile("LAB"), outputMode="LAB"))  # fmt: skip
    yield Row("TIFF", "uncompressed", "CIELab", "8", _tiff(lab, photometric="cielab"), RGB)
    premultiplied = np.dstack([RGB * (ALPHA[..., None] / 255), ALPHA]).astype(np.uint8)
    for kind, samples, want in (
        ("alpha", np.dstack([RGB, ALPHA]), ON_WHITE),
        ("premultiplied alpha", premultiplied, ON_WHITE),
        ("a fourth channel", np.dstack([RGB, ALPHA]), RGB),
    ):
        extra = {"alpha": "unassalpha", "premultiplied alpha": "assocalpha"}.get(
            kind, "unspecified"
        )
        for depth, given in (("8", samples), ("16", _deep(samples))):
            data = _tiff(given, photometric="rgb", extrasamples=[extra])
            yield Row("TIFF", "uncompressed", f"RGB, {kind}", depth, data, want)
    data = _tiff(np.asarray(_in(PROPHOTO)), photometric="rgb", iccprofile=PROPHOTO)
    yield Row("TIFF", "ICC", "ProPhoto", "8", data, RGB)
    for count in (12, 10):
        samples = RGB.astype(np.uint16) << (count - 8)
        most = (281, 3, 3, ((1 << count) - 1,) * 3, True)
        data = _tiff(samples, photometric="rgb", extratags=[most])
        yield Row("TIFF", "MaxSampleValue", "RGB", f"{count} in 16", data, RGB)
        plain = _tiff(samples, photometric="rgb")
        yield Row("TIFF", "uncompressed", "RGB", f"{count} in 16", plain, samples >> 8)
    for dtype in ("float16", "float32", "float64"):
        depth = f"floating point, {dtype[5:]}"
        for colour, samples, want in (("grey", GREY, grey), ("RGB", RGB, RGB)):
            photometric = "rgb" if colour == "RGB" else "minisblack"
            data = _tiff((samples / 255).astype(dtype), photometric=photometric)
            yield Row("TIFF", "uncompressed", colour, depth, data, want)
    data = _tiff(RGB.astype(np.float32), photometric="rgb")
    yield Row("TIFF", "uncompressed", "RGB, 0 to 255", "floating point, 32", data, RGB)
    data = _tiff((RGB / 255).astype(np.float32), photometric="rgb", compression="zlib")
    yield Row("TIFF", "deflate", "RGB", "floating point, 32", data, RGB)
    for dtype, depth in (("int8", "8, signed"), ("int16", "16, signed"), ("uint32", "32")):
        data = _tiff(GREY.astype(dtype), photometric="minisblack")
        yield Row("TIFF", "uncompressed", "grey", depth, data, grey)
    five = np.dstack([RGB, RGB[..., :2]])
    data = _tiff(five, photometric="minisblack", planarconfig="contig")
    yield Row("TIFF", "uncompressed", "five channels", "8", data, RGB)
    yield Row("TIFF", "3 pages", "RGB", "8", _tiff(np.stack([RGB] * 3), photometric="rgb"), RGB)


def outcome(row: Row) -> str:
    """Return what the decoder does with a row's file."""
    with quiet():
        try:
            found = picture(row.data)
        except BadImage as error:
            return f"not read: {error}"
    pixels = found.pixels.permute(1, 2, 0).numpy().astype(float)
    if pixels.shape != row.want.shape:
        return f"other pixels: {pixels.shape}, not {row.want.shape}"
    apart = float(np.abs(pixels - row.want).mean())
    if apart > CLOSE:
        return f"other pixels, {apart:.0f} levels off"
    return "; ".join(["read", *(remark[0].lower() + remark[1:] for remark in found.remarks)])


def page() -> str:
    """Return the page."""
    lines = [
        HEAD.format(close=CLOSE),
        "| format | container | colour | bits | what is done |",
        "|---|---|---|---|---|",
    ]
    for row in rows():
        cells = (row.format, row.container or "plain", row.colour, row.depth, outcome(row))
        lines.append(f"| {' | '.join(cells)} |")
    lines += [RULES, "## What is recognised and not read", "", "| kind | what to do |", "|---|---|"]
    for kind, way in formats.WAYS.items():
        note = " (where its library is missing)" if kind in ("avif", "heic") else ""
        lines.append(f"| {kind.upper() if note else kind}{note} | {way} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    PAGE.write_text(page())
