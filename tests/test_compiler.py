"""Networks' libraries are imported without torch's compiler, which works when it is asked for."""

import subprocess
import sys

import pytest
from photos import paint


def alone(program: str, *words: str) -> str:
    """Run a program in a process that has imported nothing; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("trunk", ["efficientnet_lite0", "resnet18", "timm/resnet10t"])
def test_a_cold_extract_imports_no_compiler(tmp_path, trunk):
    paint(tmp_path / "photos", each=1)
    program = (
        "import sys\n"
        "from pipeline.cli import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "print('imported:', [name for name in sys.modules if name.startswith('torch._dynamo')])"
    )
    words = ("extract", str(tmp_path / "photos"), "--trunk", trunk, "--weights", "random")
    printed = alone(program, *words, "--image-size", "64", "--cache", str(tmp_path / "c"))
    assert printed.endswith("imported: []\n")


IMPORT = """
import sys
import torch
from pipeline.compiler import deferred, import_library
timm, vision = import_library("timm"), import_library("torchvision")
assert "torch._dynamo" not in sys.modules
"""


@pytest.mark.parametrize(
    "use",
    [
        # as timm has the compiler pass over functions
        """
with deferred():
    @torch.compiler.disable
    def plus(x):
        'of one'
        return x + (1 if torch.compiler.is_compiling() else 2)
assert "torch._dynamo" not in sys.modules and plus.__doc__ == 'of one'
assert torch.compile(plus, backend='eager')(torch.ones(2)).eq(3).all()
""",
        # a function that torchvision has of it
        """
boxes = torch.tensor([[0.0, 0, 4, 4]])
assert vision.ops.roi_align(torch.ones(1, 1, 4, 4), [boxes], 2).eq(1).all()
assert vision.ops.roi_align.__module__ == 'torchvision.ops.roi_align'
assert vision.ops.roi_align.__globals__['is_compile_supported']('cpu') in (True, False)
""",
        "assert torch.compile(lambda x: x + 1, backend='eager')(torch.ones(2)).eq(2).all()",
        "import torch._dynamo.config; assert torch._dynamo.config.verbose in (True, False)",
        # what stand-ins do not give
        """
with deferred():
    from torch._dynamo import reset
    reset()
""",
        """
with deferred():
    import torch._dynamo.config
    torch._dynamo.reset()
assert torch._dynamo.config.verbose in (True, False)
""",
        """
with deferred():
    kept = torch.compiler.disable(torch.nn.Linear(2, 2))
assert kept(torch.ones(1, 2)).shape == (1, 2)
""",
    ],
    ids=["timm", "torchvision", "compile", "config", "other", "package", "module"],
)
def test_the_compiler_works_when_it_is_used(use):
    alone(IMPORT + use + "\nassert type(sys.modules.get('torch._dynamo')).__name__ != '_StandIn'")


def test_an_error_in_the_block_leaves_no_stand_in():
    alone(
        IMPORT + "try:\n    with deferred():\n        1 / 0\nexcept ZeroDivisionError:\n    pass\n"
        "assert 'torch._dynamo' not in sys.modules and 'torch._dynamo.utils' not in sys.modules"
    )
