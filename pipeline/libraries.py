"""torchvision and timm without torch's compiler, which importing them brings along.

The compiler takes longer to import than torch, and nothing here compiles. torchvision asks it a
question when one of its detection operators runs, and timm marks functions that it must leave
alone: with the stand-ins that are there while both are imported, the compiler is met only then.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from threading import Lock
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo"
_UTILS = f"{_COMPILER}.utils"
_lock = Lock()


def without_compiler(*names: str) -> None:
    """Import modules of torchvision or timm; torch's compiler stays out unless it is there already.

    A program that imported them itself has them as they are. Of several threads one imports, and
    the others wait.
    """
    with _lock:
        lacking = [name for name in names if name not in sys.modules]
        if not lacking:
            return
        with _stand_ins(import_module("torch")):
            for name in lacking:
                import_module(name)


@contextmanager
def _stand_ins(torch: Any) -> Iterator[None]:
    if _COMPILER in sys.modules:
        yield
        return
    marking, utils = torch.compiler.disable, _Utils(_UTILS)
    sys.modules[_UTILS], torch.compiler.disable = utils, _disable
    try:
        yield
    finally:
        torch.compiler.disable = marking
        if sys.modules.get(_UTILS) is utils:
            del sys.modules[_UTILS]


class _Utils(ModuleType):
    """Stands in for `torch._dynamo.utils` while torchvision takes a function from it."""

    def __getattr__(self, name: str) -> Any:
        if name == "is_compile_supported":
            return _is_compile_supported
        if name.startswith("__"):  # as `inspect` looks for
            raise AttributeError(name)
        if sys.modules.get(_UTILS) is self:
            del sys.modules[_UTILS]
        return getattr(import_module(_UTILS), name)


def _is_compile_supported(device: str) -> Any:
    return import_module(_UTILS).is_compile_supported(device)


def _disable(fn: Callable[..., Any] | None = None, *how: Any, **more: Any) -> Any:
    """Do what `torch.compiler.disable` does, from the moment when the compiler is there."""
    if fn is None:
        return lambda own: _disable(own, *how, **more)
    marked = fn

    @wraps(marked)
    def call(*args: Any, **named: Any) -> Any:
        if _COMPILER not in sys.modules:  # nothing is being compiled
            return marked(*args, **named)
        return import_module("torch").compiler.disable(marked, *how, **more)(*args, **named)

    return call
