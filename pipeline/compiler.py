"""Import the networks' libraries without torch's compiler, which takes longer than they do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

_COMPILER = "torch._dynamo"


def import_library(name: str) -> Any:
    """Return a module of torchvision or timm, imported without torch's compiler."""
    if name in sys.modules:
        return import_module(name)
    with deferred():
        return import_module(name)


@contextmanager
def deferred() -> Iterator[None]:
    """Import torch's compiler only when it is used.

    torchvision imports a function of it, timm has it pass over some of its own, and neither needs
    it for that. Until the block ends, stand-ins hold the places of its two modules; the functions
    that they give import the compiler when they are called, and whatever else is asked of a
    stand-in imports it at once.
    """
    if _COMPILER in sys.modules:
        yield
        return
    sys.modules.update({name: _StandIn(name) for name in _FUNCTIONS})
    try:
        yield
    finally:
        _remove()


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if found := _FUNCTIONS[self.__name__].get(name):
            return found
        if name.startswith("__") and (self.__name__, name) != (_COMPILER, "__path__"):
            raise AttributeError(name)  # but a package may be asked for its other modules
        return getattr(_real(self.__name__), name)


def _real(name: str) -> Any:
    """Import one of the compiler's modules."""
    _remove()
    return import_module(name)


def _remove() -> None:
    for name in _FUNCTIONS:
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


def _is_compile_supported(*args: Any, **kwargs: Any) -> Any:
    return _real(f"{_COMPILER}.utils").is_compile_supported(*args, **kwargs)


def _disable(function: Any = None, *args: Any, **kwargs: Any) -> Any:
    """Have the compiler pass over a function, once it is called."""
    if not isinstance(function, FunctionType):
        return _real(_COMPILER).disable(function, *args, **kwargs)

    @wraps(function)
    def passed_over(*given: Any, **named: Any) -> Any:
        return _real(_COMPILER).disable(function, *args, **kwargs)(*given, **named)

    return passed_over


#: What the libraries ask of the compiler while they are imported, by module.
_FUNCTIONS: dict[str, dict[str, Callable[..., Any]]] = {
    _COMPILER: {"disable": _disable},
    f"{_COMPILER}.utils": {"is_compile_supported": _is_compile_supported},
}
