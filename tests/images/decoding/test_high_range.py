"""High dynamic range is told wherever a file says so, and its picture taken as it is."""

import io
import struct

import numpy as np
import pytest
from decoded import no_decoder, pixels
from PIL import Image, features
from profiles import P3

from pipeline.images.decoding import decode as module
from pipeline.images.decoding import headers
from pipeline.images.decoding.pictures import as_source
from pipeline.images.decoding.quiet import quiet

TAKEN = "High dynamic range taken as it is (no tone mapping)"
GAIN = "Gain map passed over (the picture is taken in standard range)"
XMP = b"http://ns.adobe.com/xap/1.0/\0"
RGB = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)


def said(data, **options):
    with quiet():
        return module.picture(data, **options).remarks


def segment(marker, body):
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


ULTRA = segment(0xE1, XMP + b'<x xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"/>')
ISO = segment(0xE2, b"urn:iso:std:iso:ts:21496:-1\0\0\0\0\0")
SEVERAL = segment(0xE2, b"MPF\0II*\0")
APPLE = b"\xff\xd8" + segment(0xE1, XMP + b"<HDRGainMap:HDRGainMapVersion/>") + b"\xff\xd9"


@pytest.mark.parametrize(
    ("inside", "after", "told"),
    [
        (ULTRA, b"", True),
        (ISO, b"", True),
        (SEVERAL, APPLE, True),
        (SEVERAL, b"", False),
        (b"", APPLE, False),
        (segment(0xE1, XMP + b"<x/>"), b"", False),
    ],
)
def test_a_gain_map_of_a_jpeg_is_told_on_every_way(encode, monkeypatch, inside, after, told):
    plain = encode(RGB, "JPEG")
    data = plain[:2] + inside + plain[2:] + after
    want = (GAIN,) if told else ()
    assert said(data) == said(data, least=16) == want
    assert np.array_equal(pixels(data), pixels(plain))
    monkeypatch.setattr(module, "decode_jpeg", no_decoder)
    assert said(data) == want


def box(kind, *parts):
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def nclx(primaries, transfer):
    return box(b"colr", b"nclx", struct.pack(">HHHB", primaries, transfer, 1, 128))


def container(*, items, primary=2, wide=False, big=False, entries=b""):
    """Return the head of a file whose items have the properties of these numbers."""
    properties = box(b"ispe", bytes(12)), nclx(9, 16), box(b"irot", b"\1"), nclx(12, 13)
    number = "I" if big else "H"
    of = b"".join(
        struct.pack(f">{number}B", item, len(indices))
        + struct.pack(f">{len(indices)}{'H' if wide else 'B'}", *indices)
        for item, indices in items.items()
    )
    ipma = struct.pack(">BBBBI", big, 0, 0, wide, len(items)) + of
    meta = [
        box(b"hdlr", bytes(24)),
        box(b"pitm", struct.pack(f">I{number}", big << 24, primary)),
        box(b"iinf", bytes(4), entries),
        box(b"iprp", box(b"ipco", *properties), box(b"ipma", ipma)),
    ]
    return box(b"ftyp", b"avif\0\0\0\0mif1") + box(b"meta", bytes(4), *meta) + box(b"mdat", b"x")


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("wide", [False, True])
def test_code_points_are_those_of_the_primary_item(wide, big):
    essential = 0x8000 if wide else 0x80
    data = container(items={1: (1, 2), 2: (1, 3 | essential, 4)}, wide=wide, big=big)
    assert headers.code_points(data) == (12, 13)
    other = container(items={1: (1, 2), 2: (4,)}, wide=wide, big=big, primary=1)
    assert headers.code_points(other) == (9, 16)
    none = container(items={1: (1, 2), 2: (1, 3)}, wide=wide, big=big)
    assert headers.code_points(none) is None


def test_code_points_of_a_sequence_are_its_tracks():
    data = box(b"ftyp", b"avis\0\0\0\0avis") + box(b"moov", box(b"trak", nclx(9, 18)))
    assert headers.code_points(data) == (9, 18)


def test_what_a_container_lacks_or_lies_of_is_no_code_point():
    whole = container(items={1: (1, 2), 2: (1, 90)})
    assert headers.code_points(whole) is None
    for cut in range(len(whole)):
        headers.code_points(whole[:cut])
    for at in range(len(whole)):
        headers.code_points(whole[:at] + b"\xff" + whole[at + 1 :])


@pytest.mark.parametrize("version", [2, 3])
def test_the_gain_map_of_a_container_is_told(version):
    number = struct.pack(">H" if version == 2 else ">I", 3)
    entry = box(b"infe", bytes([version, 0, 0, 0]), number, b"\0\0", b"tmap\0")
    assert headers.heif_remark(container(items={2: (4,)}, entries=entry)) == GAIN
    apple = box(b"auxC", bytes(4), b"urn:com:apple:photo:2020:aux:hdrgainmap\0")
    assert headers.heif_remark(container(items={2: (4,)}, entries=apple)) == GAIN
    assert headers.heif_remark(container(items={2: (4,)})) == ""


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_an_avif_of_high_range_is_told_and_read(encode):
    plain = encode(RGB, "AVIF")
    assert said(plain) == ()
    at = plain.index(b"colrnclx") + 8
    bright = plain[:at] + struct.pack(">HH", 9, 16) + plain[at + 4 :]
    assert said(bright) == (TAKEN,)
    assert said(encode(RGB, "AVIF", icc_profile=P3)) == ("Converted to sRGB (without a name)",)


def test_a_profile_of_high_range_is_told(encode):
    (count,) = struct.unpack_from(">I", P3, 128)
    end = 132 + 12 * count
    moved = b"".join(
        struct.pack(">4sII", name, at + 12, size)
        for name, at, size in struct.iter_unpack(">4sII", P3[132:end])
    )
    body = P3[end:] + b"cicp\0\0\0\0" + bytes([9, 18, 0, 1])
    tag = struct.pack(">4sII", b"cicp", end + 12 + len(P3[end:]), 12)
    head = struct.pack(">I", end + 12 + len(body)) + P3[4:128] + struct.pack(">I", count + 1)
    found = said(encode(RGB, "PNG", icc_profile=head + moved + tag + body))
    assert found == ("High dynamic range converted without tone mapping (without a name)",)


@pytest.mark.parametrize(
    ("points", "told"),
    [
        ((9, 18), (TAKEN,)),
        ((12, 13), ("Converted to sRGB (Display P3)",)),
        ((1, 13), ()),
    ],
)
def test_a_pil_image_that_says_so_is_told_as_its_file(points, told):
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    names = {"color_primaries": points[0], "transfer_characteristics": points[1]}
    heif.from_pillow(Image.fromarray(RGB)).save(
        buffer, quality=95, chroma=444, matrix_coefficients=6, full_range_flag=1, **names
    )
    image = heif.open_heif(buffer).to_pillow()
    assert said(as_source(image)) == said(buffer.getvalue()) == told
