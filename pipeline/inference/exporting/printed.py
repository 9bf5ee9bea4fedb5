"""The lines that an export's README prints, run on pictures of the kinds that people have."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from pipeline.errors import PipelineError

_RUNS = """
import json, sys
sys.modules["pipeline"] = None  # what is printed has to do without it
code, *paths = json.load(sys.stdin)
code, answers = compile(code, "README.md", "exec"), []
for path in paths:
    sys.argv, names, printed, sys.stdout = ["README.md", path], {}, sys.stdout, sys.stderr
    try:
        exec(code, names)
        answers.append(names["found"].tolist())
    except SystemExit as refusal:
        answers.append(str(refusal))
    finally:
        sys.stdout = printed
json.dump(answers, sys.stdout)
"""


def odd_pictures(side: int) -> dict[str, bytes]:
    """Return files of side×side pixels of which careless lines make other pixels, by their kind.

    Their size is that to which images are resized: what differs is what is done with the samples.
    """
    y, x = np.mgrid[0:side, 0:side] / (side - 1)
    rgb = (np.stack([x, y, (1 - x) * y], 2) * 255).astype(np.uint8)
    colour, alpha = Image.fromarray(rgb), Image.fromarray(rgb[..., 0])
    clear = colour.copy()
    clear.putalpha(alpha)
    palette = colour.quantize(16)
    upright = Image.Exif()
    upright[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, other in ((b"rXYZ", b"    "), (b"gXYZ", b"rXYZ"), (b"    ", b"gXYZ")):
        profile = profile.replace(name, other)  # red and green change places: a conversion shows
    deep = (x * y * 65535).astype(np.uint16)
    return {
        "RGB": _file(colour, "PNG"),
        "RGBA": _file(clear, "PNG"),
        "grey with transparency": _file(clear.convert("LA"), "PNG"),
        "a palette": _file(palette, "PNG"),
        "a palette with transparency": _file(palette, "PNG", transparency=bytes(range(0, 256, 17))),
        "a transparent colour": _file(colour, "PNG", transparency=(0, 0, 0)),
        "CMYK": _file(colour.convert("CMYK"), "JPEG"),
        "EXIF orientation": _file(colour, "JPEG", exif=upright),
        "a colour profile": _file(colour, "PNG", icc_profile=profile),
        "transparency and a profile": _file(clear, "PNG", icc_profile=profile),
        "16-bit grey": _file(Image.fromarray(deep), "PNG"),
        "floating point": _file(Image.fromarray((x * y).astype(np.float32)), "TIFF"),
        "one bit": _file(alpha.convert("1"), "PNG"),
    }


def _file(image: Image.Image, form: str, **options: Any) -> bytes:
    made = io.BytesIO()
    image.save(made, form, **options)
    return made.getvalue()


def run_lines(code: str, folder: Path, pictures: dict[str, bytes]) -> dict[str, np.ndarray | str]:
    """Return each picture's kind to the probabilities [K] that printed lines give, or a refusal.

    Args:
        code: the lines.
        folder: of the export.
        pictures: from `odd_pictures`.

    Raises:
        PipelineError: the lines fail.
    """
    with tempfile.TemporaryDirectory() as place:
        paths = [Path(place) / str(number) for number in range(len(pictures))]
        for path, data in zip(paths, pictures.values(), strict=True):
            path.write_bytes(data)
        done = subprocess.run(
            [sys.executable, "-c", _RUNS], input=json.dumps([code, *map(str, paths)]),
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise PipelineError(f"The lines that the export's README prints fail: {last}")
    answers = json.loads(done.stdout)
    return {
        kind: answer if isinstance(answer, str) else np.array(answer)
        for kind, answer in zip(pictures, answers, strict=True)
    }


def check_lines(
    code: str,
    folder: Path,
    side: int,
    want: Callable[[list[bytes]], np.ndarray],
    *,
    allowed: float,
) -> dict[str, Any]:
    """Return what the printed lines do with each kind of picture: the same, or refuse it.

    Args:
        code: the lines.
        folder: of the export.
        side: of the pictures, in pixels.
        want: the probabilities [N, K] that files should give.
        allowed: largest difference of a probability.

    Returns:
        `same` and `refused`: kinds of pictures, as the README names them.

    Raises:
        PipelineError: the lines fail, or give other probabilities.
    """
    pictures = odd_pictures(side)
    given = run_lines(code, folder, pictures)
    taken = [kind for kind, answer in given.items() if not isinstance(answer, str)]
    for kind, right in zip(taken, want([pictures[kind] for kind in taken]), strict=True):
        difference = float(np.abs(given[kind] - right).max())
        if not difference <= allowed:
            raise PipelineError(
                f"The lines that the export's README prints give other probabilities on a picture "
                f"with {kind}: they differ by up to {difference:.3g}. Nothing was kept."
            )
    return {"same": taken, "refused": [kind for kind in given if kind not in taken]}
