"""What a file decodes to, for the tests of decoding."""

import struct
import zlib

import numpy as np
import pytest
import torch

from pipeline.errors import BadImage
from pipeline.images.decoding import decode as module
from pipeline.images.decoding.quiet import quiet

#: EXIF orientation → how a stored picture [H, W, 3] is shown (Exif 2.32, table 4.6.4 A).
SHOWN = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored.transpose(1, 0, 2), 2),
    8: np.rot90,
}


def decode(data, **options):
    """Decode as every caller does: quietly."""
    with quiet():
        return module.decode(data, **options)


def pixels(data):
    """Return uint8 [H, W, 3]."""
    found = decode(data)
    assert (found.dtype, found.shape[0], found.dim()) == (torch.uint8, 3, 3)
    return found.permute(1, 2, 0).numpy()


def no_decoder(*args, **options):
    """Stand in for a release of torchvision without `decode_jpeg`."""
    raise ImportError


def reason(data):
    with pytest.raises(BadImage) as caught:
        decode(data)
    return str(caught.value)


def distance(one, other):
    return np.abs(one.astype(float) - other.astype(float)).mean()


def png(raw, *, size, depth, colour, extra=()):
    """Return a PNG file made by hand: kinds that Pillow doesn't write."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
