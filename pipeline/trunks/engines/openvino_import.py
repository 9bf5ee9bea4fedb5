"""OpenVINO without its telemetry."""

from __future__ import annotations

import sys
from typing import Any

_TELEMETRY = "openvino_telemetry"


def openvino() -> Any:
    """Import and return OpenVINO, so that it tells nobody what runs here.

    It sends an event when it is imported and when it converts, from a process of its own, unless
    its package for that cannot be imported. A program that imported either before has decided
    about it already.
    """
    silenced = "openvino" not in sys.modules and _TELEMETRY not in sys.modules
    if silenced:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino.preprocess  # with all that is used of it
    finally:
        if silenced:
            del sys.modules[_TELEMETRY]
    return openvino
