import io

import numpy as np
import pytest
from PIL import Image

from pipeline.images.decoding.headers import holds_every_row


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "LA", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 17)])
def test_whole_files_hold_every_row(mode, size):
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG")
    assert holds_every_row(buffer.getvalue())
    taller = bytearray(buffer.getvalue())
    taller[23] += 1  # height
    assert not holds_every_row(bytes(taller))


def test_the_interlaced_files_of_pngsuite_hold_every_row(shared):
    files = sorted((shared("odd_images") / "pngsuite/png").glob("[!x]*.png"))
    interlaced = [data for file in files if (data := file.read_bytes())[28]]
    assert len(interlaced) > 30
    for data in interlaced:
        assert holds_every_row(data)
        for at, least in ((19, 8), (23, 8)):  # a width or height of one pass more
            grown = bytearray(data)
            grown[at] += least
            assert not holds_every_row(bytes(grown))


def test_rows_of_noise_are_counted_over_many_chunks():
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    assert buffer.getvalue().count(b"IDAT") > 3
    assert holds_every_row(buffer.getvalue())
