"""TIFFs of every layout and depth come out right, or with a reason that is true."""

import io
import struct

import numpy as np
import pytest
from decoded import decode, distance, pixels, png, reason
from PIL import Image

from pipeline.images.decoding import decode as module
from pipeline.images.decoding import tiffs
from pipeline.images.decoding.pictures import as_source
from pipeline.images.decoding.quiet import quiet

tifffile = pytest.importorskip("tifffile")
NO_RANGE = "signed or 32-bit integer samples, which have no agreed range"


@pytest.fixture
def rgb():
    """Return a picture of noise, whose every sample counts: uint8 [45, 52, 3]."""
    return np.random.default_rng(0).integers(0, 256, (45, 52, 3)).astype(np.uint8)


def tiff(samples, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, **{"metadata": None, **options})
    return buffer.getvalue()


def said(data):
    with quiet():
        return module.picture(data).remarks


def deep(rgb):
    return rgb.astype(np.uint16) * 257


def planes(samples):
    return np.ascontiguousarray(samples.transpose(2, 0, 1))


LAYOUTS = [
    {}, {"tile": (16, 32)}, {"rowsperstrip": 7}, {"byteorder": ">"}, {"bigtiff": True},
    {"byteorder": ">", "tile": (32, 16)}, {"compression": "zlib"},
    {"byteorder": ">", "bigtiff": True},
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("separate", [False, True])
def test_colours_of_any_layout(rgb, layout, depth, separate):
    samples = rgb if depth == 8 else deep(rgb)
    way = {"planarconfig": "separate"} if separate else {}
    data = tiff(planes(samples) if separate else samples, photometric="rgb", **way, **layout)
    assert np.array_equal(pixels(data), rgb)
    assert said(data) == ()


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha", "unspecified"])
def test_a_fourth_channel_is_alpha_where_the_file_says_so(rgb, separate, kind):
    alpha = np.full(rgb.shape[:2], 51, np.uint8)
    samples = deep(np.dstack([rgb, alpha]))
    if kind == "assocalpha":
        samples[..., :3] = samples[..., :3] // 5
    way = {"planarconfig": "separate"} if separate else {}
    data = tiff(
        planes(samples) if separate else samples, photometric="rgb", extrasamples=[kind], **way
    )
    want = rgb if kind == "unspecified" else rgb / 5 + 255 * 4 / 5
    assert distance(pixels(data), want) < (0.01 if kind == "unspecified" else 2)
    told = "Channels without a meaning passed over (of 4 channels)"
    assert (told in said(data)) == (kind == "unspecified")


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_grey_with_transparency_in_one_block_or_in_planes(rgb, depth, separate, photometric):
    grey = 255 - rgb[..., 0] if photometric == "miniswhite" else rgb[..., 0]
    samples = np.dstack([grey, np.full_like(grey, 51)])
    samples = samples if depth == 8 else deep(samples)
    data = tiff(
        planes(samples) if separate else samples, photometric=photometric,
        extrasamples=["unassalpha"], planarconfig="separate" if separate else "contig",
    )  # fmt: skip
    assert distance(pixels(data), rgb[..., :1] / 5 + 255 * 4 / 5) < 2


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("kind", ["grey", "rgb", "planes"])
def test_bits_may_come_in_the_other_order(rgb, depth, kind):
    samples = rgb if depth == 8 else deep(rgb)
    samples = {"grey": samples[..., 0], "rgb": samples, "planes": planes(samples)}[kind]
    way = {"planarconfig": "separate"} if kind == "planes" else {}
    data = tiff(
        samples, photometric="minisblack" if kind == "grey" else "rgb",
        extratags=[(263, 3, 1, 2, True)], **way,
    )  # fmt: skip
    page = next(tiffs.pages(data))
    (at,) = (one for one in page.entries if data[one : one + 2] == struct.pack("<H", 263))
    first, size = min(page.values(tiffs.OFFSETS)), samples.nbytes
    mirror = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
    data = data[:at] + struct.pack("<H", tiffs.FILL) + data[at + 2 :]  # Threshholding before
    data = data[:first] + data[first : first + size].translate(mirror) + data[first + size :]
    if depth == 16 and kind == "rgb":  # Pillow knows these of 8 bits alone
        assert reason(data).startswith("a variant of TIFF that is not read")
    else:
        assert np.array_equal(pixels(data), rgb[..., :1].repeat(3, 2) if kind == "grey" else rgb)


MIXED_UP = {
    "grey with transparency in packed planes": lambda rgb: tiff(
        planes(rgb[..., :2]), photometric="minisblack", planarconfig="separate",
        extrasamples=["unassalpha"], compression="zlib",
    ),
    "CIELab in planes": lambda rgb: tiff(
        planes(rgb), photometric="cielab", planarconfig="separate"
    ),
    "packed floating point of the other byte order": lambda rgb: tiff(
        (rgb[..., 0] > 99).astype(np.float32) / 2, byteorder=">", compression="zlib"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MIXED_UP)
def test_what_pillow_would_mix_up_without_a_word_is_refused(rgb, kind):
    assert reason(MIXED_UP[kind](rgb)).startswith("a variant of TIFF that is not read (")


def test_what_is_whole_and_not_compressed_is_never_called_damaged(rgb):
    five = np.dstack([rgb, rgb[..., :2]])
    for samples, way in ((five, "contig"), (planes(five), "separate")):
        data = tiff(samples, photometric="separated", planarconfig=way, extrasamples=["assocalpha"])
        assert reason(data).startswith("a variant of TIFF that is not read (CMYK, 8-bit")


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_one_channel_marked_as_separate_planes_is_what_it_is(rgb, depth):
    grey = rgb[..., 0]
    if depth == 16:
        data, want = tiff(deep(grey)), grey
    else:
        buffer = io.BytesIO()
        image = Image.fromarray(grey).convert("1" if depth == 1 else "L")
        image.save(buffer, "TIFF")
        data, want = buffer.getvalue(), np.asarray(image.convert("L"))
    at = data.find(struct.pack("<HHIHH", 284, 3, 1, 1, 0))
    if at < 0:
        pytest.skip("Pillow writes the tag for what has several channels alone")
    data = data[: at + 8] + b"\2" + data[at + 9 :]
    assert np.array_equal(pixels(data)[..., 0], want)


def test_grey_of_sixteen_bits_marked_as_separate_planes(rgb):
    data = tiff(deep(rgb[..., 0]), extratags=[(284, 3, 1, 2, True)])
    assert np.array_equal(pixels(data)[..., 0], rgb[..., 0])


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("layout", [{}, {"byteorder": ">"}, {"compression": "zlib"}], ids=str)
def test_grey_begins_at_black_or_white(rgb, photometric, dtype, layout):
    grey = deep(rgb[..., 0]) if dtype is np.uint16 else rgb[..., 0].astype(dtype)
    data = tiff(grey / dtype(255) if dtype(0.5) else grey, photometric=photometric, **layout)
    if layout.get("compression") and dtype in (np.float16, np.float64):
        assert "not read" in reason(data)
        return
    want = rgb[..., 0] if photometric == "minisblack" else 255 - rgb[..., 0]
    assert np.abs(pixels(data)[..., 0].astype(int) - want).max() <= (dtype is np.float16)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_pil_image_of_white_that_is_zero_is_as_its_file(rgb, dtype):
    grey = deep(rgb[..., 0]) if dtype is np.uint16 else rgb[..., 0].astype(dtype)
    data = tiff(grey / dtype(255) if dtype is np.float32 else grey, photometric="miniswhite")
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(pixels(as_source(image)), pixels(data))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.uint32])
@pytest.mark.parametrize("colour", [False, True])
def test_signed_and_32_bit_samples_are_refused(rgb, dtype, colour):
    samples = (rgb if colour else rgb[..., 0]).astype(dtype)
    found = reason(tiff(samples, photometric="rgb" if colour else "minisblack"))
    assert found == NO_RANGE or (dtype is np.uint32 and "32-bit unsigned" in found)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"byteorder": ">"}], ids=str)
@pytest.mark.parametrize("channels", ["grey", "rgb", "planes"])
def test_floating_point_of_any_size(rgb, dtype, layout, channels):
    samples = (rgb / 255).astype(dtype)
    if channels == "grey":
        data = tiff(samples[..., 0], **layout)
    elif channels == "rgb":
        data = tiff(samples, photometric="rgb", **layout)
    else:
        data = tiff(planes(samples), photometric="rgb", planarconfig="separate", **layout)
    want = rgb[..., :1] if channels == "grey" else rgb
    assert np.abs(pixels(data).astype(int) - want).max() <= (1 if dtype is np.float16 else 0)


@pytest.mark.parametrize("value", [1.0000001, 1.0009, -0.0005])
def test_a_rounding_error_beyond_the_range_is_none(value):
    found = pixels(tiff(np.array([[0.5, value]], np.float32)))[0, :, 0]
    assert found.tolist() == [128, 255 if value > 0 else 0]


# Fewer bits than are stored


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("layout", [{}, {"byteorder": ">"}, {"compression": "zlib"}], ids=str)
def test_samples_of_declared_bits_are_scaled(rgb, bits, colour, layout):
    picture = rgb if colour else rgb[..., 0]
    samples = picture.astype(np.uint16) << (bits - 8)
    photometric = "rgb" if colour else "minisblack"
    count = 3 if colour else 1
    most = (281, 3, count, ((1 << bits) - 1,) * count if colour else (1 << bits) - 1, True)
    data = tiff(samples, photometric=photometric, extratags=[most], **layout)
    found = pixels(data)
    assert np.array_equal(found if colour else found[..., 0], picture)
    assert said(data) == ()


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("colour", [0, 2])
def test_a_png_that_declares_its_bits_and_does_not_scale_is_scaled(rgb, bits, colour):
    samples = (rgb if colour else rgb[..., 0]).astype(np.uint16) << (bits - 8)
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    size = rgb.shape[1::-1]
    sbit = (b"sBIT", bytes([bits] * (3 if colour else 1)))
    found = pixels(png(raw, size=size, depth=16, colour=colour, extra=[sbit]))
    assert np.array_equal(found if colour else found[..., 0], rgb if colour else rgb[..., 0])
    dark = png(raw, size=size, depth=16, colour=colour)
    largest = int(samples.max())
    assert said(dark) == (
        f"Dark 16-bit samples, taken as they are (largest {largest:,} of 65,535)",
    )
    assert np.abs(pixels(dark).reshape(*samples.shape[:2], 3)).max() == largest >> 8


def test_a_png_that_declares_its_bits_and_scales_stays(rgb):
    samples = (rgb[..., 0].astype(np.uint16) << 4) * 16
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    data = png(raw, size=rgb.shape[1::-1], depth=16, colour=0, extra=[(b"sBIT", b"\x0c")])
    assert np.array_equal(pixels(data)[..., 0], rgb[..., 0])


def test_a_statistic_is_no_declaration(rgb):
    samples = rgb[..., 0].astype(np.uint16) << 4
    data = tiff(samples, extratags=[(281, 3, 1, int(samples.max()), True)])
    assert np.array_equal(pixels(data)[..., 0], samples >> 8)
    assert said(data)[0].startswith("Dark 16-bit samples")


@pytest.mark.parametrize("separate", [False, True])
def test_dark_colours_are_told_with_the_largest_sample(rgb, separate):
    samples = rgb.astype(np.uint16) * 16
    way = {"planarconfig": "separate"} if separate else {}
    data = tiff(planes(samples) if separate else samples, photometric="rgb", **way)
    assert said(data) == (
        f"Dark 16-bit samples, taken as they are (largest {int(samples.max()):,} of 65,535)",
    )


def test_black_is_not_told(rgb):
    assert said(tiff(np.zeros((9, 9), np.uint16))) == ()


# Pages and frames


@pytest.mark.parametrize("count", [2, 3])
def test_further_pages_are_told(rgb, count):
    data = tiff(np.stack([rgb] * count), photometric="rgb")
    assert said(data) == (f"Only the first page read ({count} pages)",)
    assert np.array_equal(pixels(data), rgb)


def test_smaller_copies_are_no_pages(rgb):
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(rgb, photometric="rgb")
        writer.write(rgb[::4, ::4], photometric="rgb", subfiletype=1)
    assert said(buffer.getvalue()) == ()


def test_a_chain_of_pages_that_bites_its_tail_ends(rgb):
    data = bytearray(tiff(rgb, photometric="rgb"))
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    struct.pack_into("<I", data, at + 2 + 12 * count, at)
    assert tiffs.count_pages(bytes(data)) == 1


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_further_frames_are_told(picture, encode, kind):
    other = Image.fromarray(picture[::-1])
    (found,) = said(
        encode(picture, kind, save_all=True, append_images=[other, Image.new("RGB", (64, 48))])
    )
    count = "several" if kind == "GIF" else "3"
    assert found == f"Only the first frame read ({count} frames)"
    assert said(encode(picture, kind)) == ()


# What is not read


def test_a_variant_that_is_not_read_is_named_and_not_called_damaged(rgb):
    four = np.dstack([rgb, rgb[..., :1]])
    assert reason(tiff(four, photometric="minisblack", planarconfig="contig")) == (
        "a variant of TIFF that is not read (grey, 8-bit unsigned, 4 samples, uncompressed)"
    )
    data = bytearray(tiff(rgb, photometric="rgb"))
    at = data.index(struct.pack("<HHIHH", 259, 3, 1, 1, 0))
    for number, name in ((34887, "LERC"), (34712, "JPEG 2000"), (4711, "compression 4711")):
        struct.pack_into("<H", data, at + 8, number)
        assert (
            reason(bytes(data))
            == f"a variant of TIFF that is not read (RGB, 8-bit unsigned, {name})"
        )


def test_uncompressed_ycbcr_of_fewer_colours_is_not_read_for_what_it_is_not():
    luma = np.arange(64, dtype=np.uint8).reshape(8, 8)
    data = bytearray(tiff(np.dstack([luma] * 3), photometric="rgb"))
    at = data.index(struct.pack("<HHIHH", 262, 3, 1, 2, 0))
    struct.pack_into("<H", data, at + 8, 6)
    assert "YCbCr" in reason(bytes(data))


def test_what_is_cut_or_broken_is_truncated_or_damaged(rgb):
    for options in ({}, {"planarconfig": "separate"}):
        samples = planes(deep(rgb)) if options else deep(rgb)
        whole = tiff(samples, photometric="rgb", **options)
        assert reason(whole[:-500]) == "truncated"
    assert reason(b"II*\0" + bytes(100)) == "damaged"


def test_the_reason_of_an_odd_jpeg_says_which_it_is(picture, encode):
    data = bytearray(encode(picture, "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = 0xC1, 12
    assert reason(bytes(data)) == "a JPEG of 12 bits a sample, which is not read"
    data[at + 1], data[at + 4] = 0xC5, 8
    assert reason(bytes(data)) == "a JPEG of several resolutions, which is not read"


@pytest.mark.parametrize("first", [{254: 1, 330: 8}, {262: 32803}, {262: 34892}], ids=str)
def test_a_raw_file_whose_directory_is_far_behind_is_no_picture_either(first):
    entries = sorted(
        {256: 8, 257: 8, 258: 8, 259: 1, 273: 8, 277: 1, 278: 8, 279: 64, **first}.items()
    )
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    data = struct.pack("<4sI", b"II*\0", 9000) + bytes(8992)
    data += struct.pack("<H", len(entries)) + body + bytes(4)
    assert reason(data) == "camera raw, which is not read"


def test_planes_keep_their_orientation_and_profile(rgb):
    data = tiff(planes(deep(rgb)), photometric="rgb", planarconfig="separate",
                extratags=[(274, 3, 1, 6, True)])  # fmt: skip
    assert np.array_equal(pixels(data), np.rot90(rgb, -1))
    assert decode(data).shape == (3, 52, 45)
