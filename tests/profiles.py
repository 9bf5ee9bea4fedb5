"""Colour profiles that the tests make."""

import struct

import numpy as np
from PIL import Image, ImageCms

from pipeline.images.decoding.colour import matrix_profile

SRGB = ImageCms.createProfile("sRGB")
SRGB_BYTES = ImageCms.ImageCmsProfile(SRGB).tobytes()
D50 = (0.3457, 0.3585)
P3 = matrix_profile(((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), (0.3127, 0.3290), None)
ADOBE = matrix_profile(((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), (0.3127, 0.3290), 563 / 256)
PROPHOTO = matrix_profile(((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), D50, 1.8)


def grey_profile(exponent):
    """Return a profile of grey with a curve (ICC.1:2022, 8.3.4)."""
    curve = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(exponent * 256))
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    tags = b"".join(
        name + struct.pack(">II", at, size)
        for name, at, size in ((b"wtpt", 156, 20), (b"kTRC", 176, 16))
    )
    head = struct.pack(">I4xI12s", 192, 0x02400000, b"mntrGRAYXYZ ").ljust(36, b"\0") + b"acsp"
    head = head.ljust(68, b"\0") + white[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", 2) + tags + white + curve


def cmyk_profile():
    """Return an output profile of CMYK with a coarse table of its own (ICC.1:2022, 10.10)."""
    lab = ImageCms.createProfile("LAB")
    steps = np.array([0, 255], np.uint8)
    inks = np.stack(np.meshgrid(steps, steps, steps, steps, indexing="ij"), -1).reshape(1, 16, 4)
    rgb = 255 - np.minimum(255, inks[..., :3].astype(int) * 3 // 4 + inks[..., 3:]).astype(np.uint8)
    seen = ImageCms.profileToProfile(
        Image.fromarray(rgb.astype(np.uint8)), SRGB, lab, outputMode="LAB"
    )
    table = (np.asarray(seen).reshape(16, 3).astype(np.uint8) ^ [0, 128, 128]).astype(np.uint8)
    identity = b"".join(struct.pack(">i", 65536 * (i % 4 == 0)) for i in range(9))
    ramp = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + table.tobytes() + ramp * 3
    lut += bytes(-len(lut) % 4)
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    start = 128 + 4 + 24
    tags = (
        b"wtpt" + struct.pack(">II", start, 20) + b"A2B0" + struct.pack(">II", start + 20, len(lut))
    )
    size = start + 20 + len(lut)
    head = struct.pack(">I4xI12s", size, 0x02400000, b"prtrCMYKLab ").ljust(36, b"\0") + b"acsp"
    head = head.ljust(68, b"\0") + white[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", 2) + tags + white + lut


def camera_exif(index=b"R03\0", space=0xFFFF):
    """Return EXIF with a colour space and an interoperability index."""
    zero = struct.pack("<HHHIII", 1, 0x8769, 4, 1, 26, 0)
    inner = struct.pack("<HHHIHHHHIII", 2, 0xA001, 3, 1, space, 0, 0xA005, 4, 1, 56, 0)
    inter = struct.pack("<HHHI4sI", 1, 1, 2, 4, index, 0)
    return b"Exif\0\0II*\0\x08\0\0\0" + zero + inner + inter
