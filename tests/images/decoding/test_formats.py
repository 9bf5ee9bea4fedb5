import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import features

from pipeline.images.decoding.formats import HEAD, PILLOW_NAMES, sniff
from pipeline.images.decoding.headers import jpeg_header, webp_size


@pytest.mark.parametrize("kind", PILLOW_NAMES)
def test_every_format_is_told_by_its_first_bytes(kind, picture, encode):
    if kind == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    assert sniff(encode(picture, PILLOW_NAMES[kind])[:HEAD]) == kind


def test_big_tiff_is_tiff_and_old_bmp_is_bmp(picture, encode):
    assert sniff(encode(picture, "TIFF", big_tiff=True)[:HEAD]) == "tiff"
    assert sniff(b"BM" + bytes(12) + b"\x0c\0\0\0") == "bmp"  # OS/2's header of 12 bytes


@pytest.mark.parametrize(
    "head", [b"", b"BM", b"BMW is a car maker from Munich", b"RIFF....ACON", b"GIF88a", b"\xff\xd8"]
)
def test_what_only_begins_alike_is_something_else(head):
    assert sniff(head) == ""


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}]
)
def test_a_jpegs_size_is_read_from_its_header(picture, encode, options):
    header = jpeg_header(encode(picture, "JPEG", **options))
    assert (header.width, header.height) == (64, 48)
    assert (header.scans > 1) == ("progressive" in options)


def test_a_thumbnail_inside_does_not_count(picture, encode):
    inner = encode(picture[:8, :8], "JPEG", progressive=True)
    outer = encode(picture, "JPEG", exif=b"Exif\0\0" + inner)
    assert jpeg_header(outer)[:3] == (64, 48, 1)


def test_scans_are_counted_where_a_frame_takes_several(picture, encode):
    data = encode(picture, "JPEG")
    scan = data.index(b"\xff\xda")
    assert data[scan + 4] == 3  # components of the only scan
    assert jpeg_header(data + data[scan:] * 9).scans == 1
    fewer = data[: scan + 4] + b"\1" + data[scan + 5 :]
    assert jpeg_header(fewer + data[scan:] * 9).scans == 10


def test_junk_and_fill_bytes_between_segments_are_skipped(picture, encode):
    data = encode(picture, "JPEG")
    assert jpeg_header(data[:2] + b"junk\xff\xff\xff" + data[3:]) == jpeg_header(data)


@given(st.binary(max_size=80))
def test_any_bytes_have_a_header_or_none(rest):
    jpeg_header(b"\xff\xd8\xff" + rest)
    webp_size(b"RIFF    WEBP" + rest)


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif\0\0MM\0*\0\0\0\0"}])
def test_a_webps_size_is_read_from_its_header(picture, encode, options):
    assert webp_size(encode(picture, "WEBP", **options)) == (64, 48)
