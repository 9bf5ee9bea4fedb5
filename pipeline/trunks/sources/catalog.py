"""Names of trunks read from the libraries' sources, without importing them: for shell completion.

A contract test holds them to `registry.names()`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path

from pipeline.trunks.sources.families import NOT_CNN, TIMM_NOT_CNN

BUILTIN = "efficientnet_lite0"
#: A function under the libraries' decorator, other decorators and comments between them.
_ENTRY = re.compile(r"^@register_model\b(?:\(\))?[^\n]*\n(?:^[@#][^\n]*\n)*^def (\w+)\(", re.M)


def names() -> list[str]:
    """Return the names of all trunks there are, sorted."""
    return sorted({BUILTIN, *_torchvision(), *_timm()})


def _torchvision() -> Iterator[str]:
    for path in _sources("torchvision"):
        for name in _ENTRY.findall(path.read_text()):
            if not any(fnmatchcase(name, pattern) for pattern in NOT_CNN):
                yield name


def _timm() -> Iterator[str]:
    for path in _sources("timm"):
        pattern, _ = TIMM_NOT_CNN.get(path.stem, ("", ""))
        for name in _ENTRY.findall(path.read_text()):
            if not (pattern and fnmatchcase(name, pattern)):
                yield f"timm/{name}"


def _sources(package: str) -> list[Path]:
    spec = find_spec(package)  # of a package, not of what is in it: that would import it
    if spec is None or spec.origin is None:
        return []
    return sorted((Path(spec.origin).parent / "models").glob("*.py"))
