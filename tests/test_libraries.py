"""torchvision and timm come without torch's compiler, and work with it later."""

import subprocess
import sys

CODE = """
import sys
import pipeline.trunks.registry
assert "timm" in sys.modules and "torchvision" in sys.modules
assert "torch._dynamo" not in sys.modules and "sympy" not in sys.modules

import torch
from pipeline.libraries import _disable
real = torch.compiler.disable
assert real.__module__ == "torch.compiler"

from torchvision.ops import roi_align
boxes = [torch.tensor([[0.0, 0.0, 4.0, 4.0]])]
assert roi_align(torch.ones(1, 1, 8, 8), boxes, 2).shape == (1, 1, 2, 2)

marked = _disable(lambda x: x + 1)
assert marked(1) == 2
import torch._dynamo
assert marked(1) == 2
from torch._dynamo.utils import is_compile_supported  # the real one
assert "stand" not in repr(sys.modules["torch._dynamo.utils"])
assert sys.modules["torch._dynamo.utils"].__file__
"""


THREADS = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from pipeline.images.decoding.decode import picture
from pipeline.images.preprocess import Preprocess
import io
from PIL import Image
file = io.BytesIO()
Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(file, "JPEG")

def work(number):
    shown = picture(file.getvalue()).pixels if number % 2 else None
    if shown is None:
        import torch
        shown = torch.zeros((3, 9, 9), dtype=torch.uint8)
    return Preprocess(8, 8).apply(shown).shape

with ThreadPoolExecutor(8) as pool:
    assert set(pool.map(work, range(16))) == {(3, 8, 8)}
"""


def test_threads_that_need_torchvision_first_wait_for_each_other():
    done = subprocess.run(
        [sys.executable, "-c", THREADS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_libraries_leaves_the_compiler_out_and_nothing_changed():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
