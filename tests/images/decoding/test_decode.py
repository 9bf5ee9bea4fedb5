import errno
import io
import re
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torchvision
from decoded import decode, distance, no_decoder, pixels, png, reason
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import BadImage
from pipeline.images.decoding import decode as module
from pipeline.images.decoding import pillow
from pipeline.images.decoding.formats import WAYS
from pipeline.images.decoding.quiet import quiet

LOSSLESS = [
    ("PNG", {}),
    ("BMP", {}),
    ("WEBP", {"lossless": True}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "tiff_deflate"}),
    ("TIFF", {"compression": "packbits"}),
    ("TIFF", {"big_tiff": True}),
]
LOSSY = [("JPEG", {"quality": 95}), ("JPEG", {"progressive": True}), ("WEBP", {"quality": 95})]


# Formats and modes


@pytest.mark.parametrize(("kind", "options"), LOSSLESS)
def test_lossless_formats_give_the_very_pixels(picture, encode, kind, options):
    assert np.array_equal(pixels(encode(picture, kind, **options)), picture)


@pytest.mark.parametrize(("kind", "options"), LOSSY)
def test_lossy_formats_give_nearly_the_pixels(picture, encode, kind, options):
    smooth = np.asarray(Image.fromarray(picture).resize((640, 480), Image.Resampling.BICUBIC))
    assert distance(pixels(encode(smooth, kind, **options)), smooth) < 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_grey_is_the_same_in_three_channels(encode, kind):
    grey = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (40, 1))
    found = pixels(encode(grey, kind))
    assert (found == found[..., :1]).all() or kind == "WEBP"
    assert distance(found, grey[..., None]) < 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_one_bit_is_black_and_white(encode, kind):
    image = Image.fromarray(np.eye(20, dtype=bool))
    assert np.array_equal(pixels(encode(image, kind))[..., 0], np.eye(20) * 255)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_a_palette_gives_its_colours(picture, encode, kind):
    few = Image.fromarray(picture).quantize(200)
    assert np.array_equal(pixels(encode(few, kind)), np.asarray(few.convert("RGB")))


def test_the_extension_does_not_matter_and_nor_does_what_follows(picture, encode):
    data = encode(picture, "JPEG")
    assert np.array_equal(pixels(data), pixels(data + b"trailing junk"))


def test_torchvision_and_pillow_give_the_same_pixels_of_a_jpeg(picture, encode):
    for image in (picture, picture[..., 0]):
        for options in ({}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 2}):
            data = encode(image, "JPEG", **options)
            with quiet():
                assert np.array_equal(module._jpeg(data), pillow.picture(data, "jpeg").rgb)


def test_a_cmyk_jpeg_has_the_colours_of_the_picture(encode):
    colours = np.zeros((32, 96, 3), np.uint8)
    colours[:, :32, 0] = colours[:, 32:64, 1] = colours[:, 64:, 2] = 255
    cmyk = Image.fromarray(colours).convert("CMYK")
    assert distance(pixels(encode(cmyk, "JPEG", quality=95)), colours) < 3


def test_a_ycck_jpeg_has_the_colours_of_the_picture(encode):
    """Made from a CMYK JPEG that holds what Photoshop writes: YCC of the inverted picture."""
    colours = np.full((32, 32, 3), (200, 60, 90), np.uint8)
    ycc = np.asarray(Image.fromarray(255 - colours).convert("YCbCr"))
    black = np.full((32, 32, 1), 255, np.uint8)
    raw = 255 - np.concatenate([ycc, black], axis=2)  # Pillow inverts what it writes
    data = bytearray(encode(Image.frombytes("CMYK", (32, 32), raw.tobytes()), "JPEG", quality=98))
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    data[at] = 2  # transform: YCCK
    assert distance(pixels(bytes(data)), colours) < 3


def test_the_first_frame_of_an_animation_is_taken(picture, encode):
    other = Image.fromarray(picture[::-1, ::-1])
    for kind, options in (("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})):
        data = encode(picture, kind, save_all=True, append_images=[other], **options)
        assert np.array_equal(pixels(data), picture)
    few = Image.fromarray(picture).quantize(100)
    data = encode(few, "GIF", save_all=True, append_images=[few.transpose(0)])
    assert np.array_equal(pixels(data), np.asarray(few.convert("RGB")))


# What is refused


def test_what_is_no_image_is_refused():
    assert reason(b"") == "empty file"
    for data in (b"text", b"\0" * 100, b"<xml/>", b"P6"):
        assert reason(data) == "not a JPEG, PNG, WebP, GIF, BMP or TIFF file"


def test_a_format_that_pillow_knows_and_we_do_not_is_never_opened(picture, encode):
    for kind, name in (("PPM", "PNM"), ("ICO", "Windows icon"), ("JPEG2000", "JPEG 2000")):
        assert reason(encode(picture, kind)) == f"{name}, which is not read"
    assert reason(encode(picture, "TGA")) == "not a JPEG, PNG, WebP, GIF, BMP or TIFF file"


@pytest.mark.parametrize(
    ("kind", "options"),
    [*LOSSLESS, *LOSSY, ("GIF", {}), ("GIF", {"save_all": True}), ("WEBP", {"save_all": True})],
)
def test_a_file_cut_anywhere_is_refused_or_whole(picture, encode, kind, options):
    if options.get("save_all"):
        options = {**options, "append_images": [Image.fromarray(picture[::-1])]}
    data = encode(picture, kind, **options)
    whole = pixels(data)
    cuts = sorted({*range(1, len(data), max(1, len(data) // 60)), *range(len(data) - 8, len(data))})
    refused = 0
    for cut in cuts:
        try:
            found = pixels(data[:cut])
        except BadImage:
            refused += 1
        else:
            assert np.array_equal(found, whole), f"cut at {cut} of {len(data)}"
    assert refused > len(cuts) // 3


def test_the_reason_for_a_cut_file_says_so(picture, encode):
    for kind in ("JPEG", "PNG", "BMP"):
        data = encode(picture, kind)
        assert reason(data[: len(data) // 2]) == "truncated"


def test_a_png_whose_rows_end_early_is_truncated(picture):
    rows = [b"\0" + row.tobytes() for row in picture]
    raw = b"".join(rows)
    assert np.array_equal(pixels(png(raw, size=(64, 48), depth=8, colour=2)), picture)
    for cut in (raw[:-1], b"".join(rows[:24]), rows[0]):
        assert reason(png(cut, size=(64, 48), depth=8, colour=2)) == "truncated"


def test_a_png_whose_last_row_is_black_is_whole(picture):
    picture[-1] = 0
    raw = b"".join(b"\0" + row.tobytes() for row in picture)
    assert np.array_equal(pixels(png(raw, size=(64, 48), depth=8, colour=2)), picture)


@pytest.mark.parametrize("chunk", [b"IHDR", b"IDAT"])
def test_a_png_with_a_wrong_checksum_is_damaged(picture, encode, chunk):
    data = bytearray(encode(picture, "PNG"))
    at = data.index(chunk)
    length = struct.unpack(">I", data[at - 4 : at])[0]
    data[at + 4 + length] ^= 1
    assert reason(bytes(data)) == "damaged"


def bomb(kind, encode):
    data = bytearray(encode(np.zeros((8, 8, 3), np.uint8), kind))
    huge = 60_000
    if kind == "PNG":
        header = data[12:16] + struct.pack(">II", huge, huge) + data[24:29]
        data[12:33] = header + struct.pack(">I", zlib.crc32(header))
    elif kind == "JPEG":
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", huge, huge)
    elif kind == "GIF":
        data[6:10] = struct.pack("<HH", huge, huge)
    elif kind == "BMP":
        data[18:26] = struct.pack("<ii", huge, huge)
    elif kind == "TIFF":
        for tag in (256, 257):
            at = data.index(struct.pack("<HH", tag, 4))
            data[at + 8 : at + 12] = struct.pack("<I", huge)
    else:
        data = bytearray(b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\x3f\0" * 2 + bytes(20))
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_decompression_bomb_is_refused_from_its_header(encode, monkeypatch, kind):
    data = bomb(kind, encode)
    monkeypatch.setattr(module, "decode_jpeg", lambda *args, **options: pytest.fail("decoded"))
    monkeypatch.setattr(Image.core, "new", lambda *args: pytest.fail("allocated"))
    assert reason(data) == "more pixels than the limit of 178,956,970"


def test_a_jpeg_without_height_has_no_pixels(picture, encode):
    data = bytearray(encode(picture, "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 7] = b"\0\0"
    assert reason(bytes(data)) == "a picture without pixels"


def test_a_jpeg_of_endless_scans_is_refused(picture, encode, monkeypatch):
    data = encode(picture, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xc4", 0, data.rindex(b"\xff\xda"))
    assert reason(data[:-2] + data[last:-2] * 300 + data[-2:]) == (
        "a JPEG of too many scans for its size"
    )
    pixels(data)
    monkeypatch.setattr(module, "MAX_SCANNED", 64 * 48 * 5)
    assert reason(data) == "a JPEG of too many scans for its size"


def test_a_bomb_in_a_text_of_a_png_ends_as_a_reason_or_pixels(picture, encode):
    text = b"a\0\0" + zlib.compress(bytes(200_000_000), 9)
    raw = b"\0" + bytes(3)
    data = png(raw, size=(1, 1), depth=8, colour=2, extra=[(b"zTXt", text)])
    assert reason(data) == "damaged"


@settings(max_examples=150)
@given(
    st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_any_damage_ends_as_pixels_or_as_one_of_the_reasons(kind, changes):
    image = Image.linear_gradient("L").resize((40, 30)).convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, kind)
    data = bytearray(buffer.getvalue())
    for at, value in changes:
        data[at % len(data)] = value
    try:
        pixels(bytes(data))
    except BadImage as error:
        assert re.sub(r"( not read) \(.*\)|of \d+ bits", r"\1", str(error)) in REASONS


REASONS = {
    "not a JPEG, PNG, WebP, GIF, BMP or TIFF file",
    "more pixels than the limit of 178,956,970",
    "a picture without pixels",
    "a JPEG of too many scans for its size",
    "truncated",
    "damaged",
    "a variant of its format that is not read",
    "a variant of TIFF that is not read",
    "a JPEG  a sample, which is not read",
    "a JPEG without loss, which is not read",
    "a JPEG of several resolutions, which is not read",
    *(f"{kind}, which is not read" for kind in WAYS),
    "signed or 32-bit integer samples, which have no agreed range",
    "floating point samples outside 0 to 1",
    "asks for more memory than its size needs",
}


# The machine's trouble


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_trouble_of_the_system_is_no_bad_image(picture, encode, monkeypatch, error):
    def fail(*args, **options):
        raise error

    data = encode(picture, "PNG")
    for place in ("open", "core.new"):
        with monkeypatch.context() as patch:
            patch.setattr(f"PIL.Image.{place}", fail)
            with pytest.raises(type(error)) as caught:
                decode(data)
            assert caught.value is error


def test_a_jpeg_that_torchvision_has_no_memory_for_is_no_bad_image(picture, encode, monkeypatch):
    def full(*args, **options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    def also_full(*args, **options):
        raise MemoryError

    data = encode(picture, "JPEG")
    expected = decode(data)
    monkeypatch.setattr(module, "decode_jpeg", full)
    assert torch.equal(decode(data), expected)
    monkeypatch.setattr("PIL.Image.core.new", also_full)
    with pytest.raises(MemoryError):
        decode(data)


def test_a_codec_out_of_memory_is_the_files_fault_only_where_there_is_memory(
    picture, encode, monkeypatch
):
    def fail(*args, **options):
        raise OSError("out of memory when reading image file")

    data = encode(picture, "TIFF")
    monkeypatch.setattr("PIL.TiffImagePlugin.TiffImageFile.load", fail)
    assert reason(data) == "asks for more memory than its size needs"
    monkeypatch.setattr(pillow, "fits", lambda pixels: False)
    with pytest.raises(MemoryError):
        decode(data)


# Threads, quiet, policy


def test_many_threads_give_what_one_gives(picture, encode):
    files = [
        encode(np.roll(picture, shift, axis=1), kind)
        for shift in range(12)
        for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF")
    ]
    with ThreadPoolExecutor(8) as pool:
        for found, data in zip(pool.map(decode, files), files, strict=True):
            assert torch.equal(found, decode(data))


def test_large_pictures_are_decoded_one_at_a_time(picture, encode, monkeypatch):
    monkeypatch.setattr(pillow, "LARGE", 100)
    held = []
    real = module._jpeg

    def look(data):
        held.append(pillow._one_large.locked())
        return real(data)

    monkeypatch.setattr(module, "_jpeg", look)
    decode(encode(picture, "JPEG"))
    decode(encode(picture[:5, :5], "JPEG"))
    assert held == [True, False]
    assert not pillow._one_large.locked()


def test_nothing_is_printed_or_warned_about(picture, encode, capfd):
    jpeg = encode(picture, "JPEG")
    at = jpeg.index(b"\xff\xdb")
    junk = jpeg[:at] + b"junk" + jpeg[at:]  # libjpeg prints: extraneous bytes before marker
    image = Image.new("P", (2, 1))
    palette = encode(image, "PNG", transparency=b"\0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(pixels(junk), pixels(jpeg))
        pixels(palette)
    assert capfd.readouterr() == ("", "")
    with warnings.catch_warnings(record=True) as told:  # the proof that there was something
        warnings.simplefilter("always")
        module._jpeg(junk)
    deprecates = [int(part) for part in torchvision.__version__.split(".")[:2]] >= [0, 29]
    assert any("superseded" in str(one.message) for one in told) == deprecates
    assert "Corrupt JPEG data" in capfd.readouterr().err


def test_without_torchvisions_decoder_the_pixels_are_the_same(picture, encode, monkeypatch):
    data = encode(picture, "JPEG")
    expected = decode(data)
    monkeypatch.setattr(module, "decode_jpeg", no_decoder)
    assert torch.equal(decode(data), expected)
