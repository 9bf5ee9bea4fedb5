"""Files that are not read are named as what they are, with the way to read them."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import BadImage
from pipeline.images.decoding import formats, reading
from pipeline.images.decoding.formats import PILLOW_NAMES, WAYS, Unread, claims, sniff, unread, way


def box(kind, body=b""):
    return struct.pack(">I4s", 8 + len(body), kind) + body


def tiff(*entries, order="<"):
    """Return the start of a TIFF: one directory of SHORT and LONG values."""
    body = struct.pack(order + "H", len(entries))
    for tag, value in entries:
        body += struct.pack(order + "HHII", tag, 4, 1, value)
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8) + body + bytes(4)


FILES = {
    "heic": [box(b"ftyp", b"heic\0\0\0\0mif1heic"), box(b"ftyp", b"mif1\0\0\0\0mif1heix"),
             box(b"ftyp", b"msf1\0\0\0\0hevc")],
    "avif": [box(b"ftyp", b"avif\0\0\0\0mif1miaf"), box(b"ftyp", b"mif1\0\0\0\0mif1avif"),
             box(b"ftyp", b"avis\0\0\0\0")],
    "JPEG XL": [b"\xff\x0a\xfa\x1f", b"\0\0\0\x0cJXL \r\n\x87\n"],
    "JPEG 2000": [b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51\0\x2f"],
    "JPEG-LS": [b"\xff\xd8\xff\xf7\0\x0b\x08"], "NRRD": [b"NRRD0005\n"],
    "microscope": [b"ZISRAWFILE", b"\xda\xce\xbe\x0a"], "MATLAB": [b"MATLAB 5.0 MAT-file, made"],
    "DPX": [b"SDPX\0", b"XPDS\0"], "XPM": [b"/* XPM */"], "JBIG": [b"\x97JB2\r\n\x1a\n"],
    "JPEG XR": [b"II\xbc\1\x20\0\0\0"],
    "camera raw": [
        b"II*\0\x10\0\0\0CR\2\0", box(b"ftyp", b"crx \0\0\0\1crx isom"), b"FUJIFILMCCD-RAW 0201",
        b"IIRO\x08\0\0\0", b"IIU\0\x18\0\0\0", b"II\x1a\0\0\0HEAPCCDR",
        tiff((254, 1), (256, 160), (330, 8)),  # NEF, ARW, DNG: a preview first
        tiff((254, 0), (262, 32803)), tiff((262, 34892), order=">"),
    ],
    "DICOM": [bytes(128) + b"DICM"], "NIfTI": [bytes(344) + b"n+1\0"],
    "FITS": [b"SIMPLE  =                    T"], "HDF5": [b"\x89HDF\r\n\x1a\n"],
    "NumPy": [b"\x93NUMPY\1\0"], "PDF": [b"%PDF-1.7\n"],
    "PostScript": [b"%!PS-Adobe-3.0", b"\xc5\xd0\xd3\xc6"],
    "SVG": [
        b'<svg xmlns="http://www.w3.org/2000/svg"/>', b'\xef\xbb\xbf\n<?xml version="1.0"?>\n<svg>',
        b"<!-- by hand -->\n<SVG>", '<?xml version="1.0" encoding="utf-16"?><svg>'.encode("utf-16"),
    ],
    "Photoshop": [b"8BPS\0\1"], "OpenEXR": [b"v/1\1\2\0\0\0"],
    "Radiance HDR": [b"#?RADIANCE\n", b"#?RGBE\n"],
    "PNM": [b"P6 1 1 255 abc", b"P1\n1 1\n0", b"P7\nWIDTH 1"], "PFM": [b"PF\n1 1\n-1.0\n"],
    "Windows icon": [b"\0\0\1\0\1\0"], "macOS icon": [b"icns\0\0"], "DDS": [b"DDS |\0\0\0"],
    "QOI": [b"qoif\0\0\0\1"], "GIMP": [b"gimp xcf v011"], "PCX": [b"\n\5\1\10"],
    "video": [
        box(b"ftyp", b"isom\0\0\2\0mp41"), box(b"ftyp", b"qt  \0\0\0\0"), b"\x1a\x45\xdf\xa3\1",
        b"RIFF\0\0\0\0AVI LIST", b"\0\0\1\xba\x44", box(b"moov"), box(b"mdat"),
    ],
    "bzip2": [b"BZh91AY&SY"], "Zstandard": [b"\x28\xb5\x2f\xfd\4"],
    "ZIP": [b"PK\3\4\x14"], "gzip": [b"\x1f\x8b\x08"], "tar": [bytes(257) + b"ustar\0"],
    "web page": [b"<!DOCTYPE html><html>", b"\n<html lang='en'>"],
    "Git LFS pointer": [b"version https://git-lfs.github.com/spec/v1\n"],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "head"), [(k, head) for k in FILES for head in FILES[k]])
def test_a_kind_is_told_by_its_first_bytes_and_has_a_way(kind, head):
    assert sniff(head) == kind
    assert sniff(head.ljust(formats.HEAD, b"\0")) == kind
    assert kind in WAYS


def test_tga_is_told_by_its_name_and_raw_files_in_tiffs_clothes_too(picture, encode):
    data = encode(picture, "TGA")
    assert (sniff(data, "a/x.TGA"), sniff(data, "a/x.jpg")) == ("TGA", "")
    plain = encode(picture, "TIFF")
    assert [sniff(plain, name) for name in ("x.NEF", "x.tif")] == ["camera raw", "tiff"]


def test_a_pyramid_is_no_raw_file():
    assert sniff(tiff((254, 0), (262, 2), (330, 8))) == "tiff"


@pytest.mark.parametrize("text", [b"<note/>", b"P6", b"Person,label\n", b"\0\0\1", b"path,label\n"])
def test_what_is_no_picture_has_no_kind(text):
    assert sniff(text) == ""
    assert unread("") == formats.NOT_AN_IMAGE and way(formats.NOT_AN_IMAGE) == ""


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"II*\0", b"MM\0+", b"\0\0\0\x18ftyp", b"BM"])
)
def test_any_bytes_have_a_kind_or_none(rest, start):
    assert sniff(start + rest) in {*PILLOW_NAMES, *WAYS, ""}


@pytest.mark.parametrize(("kind", "module"), [("avif", "PIL._avif"), ("heic", "pillow_heif")])
def test_a_kind_is_read_where_its_library_is(monkeypatch, kind, module):
    asked = []
    monkeypatch.setattr(formats, "_has", lambda name: not asked.append(name))
    assert unread(kind) == ""
    monkeypatch.setattr(formats, "_has", lambda name: bool(asked.append(name)))
    assert unread(kind) == f"{kind.upper()}, which is not read"
    assert asked == [module, module]


def test_the_note_counts_and_names_and_says_how():
    reason, other = "DICOM, which is not read", "camera raw, which is not read"
    files = [(f"a/{n}.dcm", reason) for n in range(1200)] + [
        ("b/x.nef", other),
        ("c", "empty file"),
    ]
    first, second = Unread(files).notes
    assert first.startswith("1,200 DICOM files were left out ('a/0.dcm' and 'a/1.dcm', …): convert")
    assert second.startswith("1 camera raw file was left out ('b/x.nef'): develop them")


def test_what_claims_to_be_an_image_that_is_read_counts_as_a_bad_one():
    heic, junk = "HEIC, which is not read", formats.NOT_AN_IMAGE
    assert claims("a.JPG", heic) and claims("a.jpg", junk) and claims("a.heic", junk)
    assert not (claims("a.heic", heic) or claims("a.txt", junk) or claims("a.jpg", "empty file"))


def test_a_file_that_is_not_read_says_what_it_is(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"%PDF-1.4")
    with pytest.raises(BadImage, match=r"^PDF, which is not read$"):
        reading.read_unknown(str(tmp_path / "x.jpg"))


def test_a_hostile_directory_of_a_tiff_costs_nothing():
    huge = b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**60) + bytes(64)
    assert sniff(huge) == "tiff"
    many = np.zeros(40_000, np.uint8).tobytes()
    assert sniff(b"II*\0" + struct.pack("<IH", 8, 3000) + many) == "tiff"
