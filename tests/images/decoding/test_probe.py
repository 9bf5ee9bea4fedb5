import os
import signal
import sys

import pytest

from pipeline.images.decoding import probe
from pipeline.images.decoding.probe import crashes

#: Programs that stand for the decoding process: what they do with an image.
CHILD = """
import os, signal, sys
data = sys.stdin.buffer.read()
sys.stdout.buffer.write(b"ready\\n"); sys.stdout.flush()
{what}
"""


def crashing(images):
    return [crashes(data) for data in images]


def child(monkeypatch, what):
    monkeypatch.setattr(probe, "COMMAND", (sys.executable, "-c", CHILD.format(what=what)))


def test_the_decoder_itself_reads_good_and_bad_files_without_a_crash(picture, encode):
    files = [encode(picture, "JPEG"), b"\x89PNG\r\n\x1a\n" + bytes(90), b"", encode(picture, "PNG")]
    assert crashing(files) == [False] * 4


@pytest.mark.parametrize("number", sorted(probe.CRASHES))
def test_an_image_at_which_the_process_faults_twice_is_found_among_others(monkeypatch, number):
    child(monkeypatch, f"data[:1] == b'x' and signal.raise_signal({int(number)})")
    assert crashing([b"a", b"x", b"b" * 200_000, b"x"]) == [False, True, False, True]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_ended_from_outside_blames_no_image(monkeypatch, number):
    child(monkeypatch, f"os.kill(os.getpid(), {int(number)})")
    assert crashing([b"a", b"b"]) == [False, False]


def test_a_crash_that_does_not_happen_again_blames_no_image(monkeypatch, tmp_path):
    mark = str(tmp_path / "once")
    child(monkeypatch, f"os.path.exists({mark!r}) or (os.mkdir({mark!r}), os.abort())")
    assert crashing([b"a"]) == [False]
    assert os.path.exists(mark)


@pytest.mark.parametrize("program", ["import os; os.abort()", "raise SystemExit(3)"])
def test_a_process_that_does_not_start_blames_no_image(monkeypatch, program):
    monkeypatch.setattr(probe, "COMMAND", (sys.executable, "-c", program))
    assert crashing([b"a", b"b"]) == [False, False]


#: The decoding process, with torchvision's PNG decoder, which crashes at two of the odd images.
TORCHVISION = """
import sys, types, torch
from torchvision.io import decode_png
from pipeline.images.decoding import probe

def decode(data):
    try:
        decode_png(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    except RuntimeError:
        pass

stub = types.ModuleType("pipeline.images.decoding.decode")
stub.MAX_PIXELS, stub.fits, stub.decode = 1 << 20, lambda pixels: True, decode
sys.modules["pipeline.images.decoding.decode"] = stub
probe.main()
"""


@pytest.mark.slow
def test_a_c_library_that_really_crashes_is_survived(shared, monkeypatch):
    folder = shared("odd_images")
    names = ["basn2c08", "xcsn0g01", "basn0g16", "xc1n0g08"]
    files = [folder / "pngsuite" / "png" / f"{name}.png" for name in names]
    files.insert(3, folder / "pillow/Tests/images/broken_data_stream.png")
    monkeypatch.setattr(probe, "COMMAND", (sys.executable, "-c", TORCHVISION))
    found = crashing(file.read_bytes() for file in files)
    if not any(found):
        pytest.skip("this torchvision does not crash at them")
    assert found == [False, True, False, True, False]
