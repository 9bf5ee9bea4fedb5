"""Downloads of weights. One that fails says so in one sentence and leaves nothing half written."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.store import atomic

_TIMEOUT = 15.0  # seconds without an answer
_AGENT = {"User-Agent": "headstart"}


def failed(what: str, reason: object) -> PipelineError:
    """Return the error that says what to pass instead of what could not be downloaded."""
    return PipelineError(
        f"The weights {what} could not be downloaded ({reason_of(reason)}). Pass --weights FILE "
        "with a file downloaded elsewhere, --weights random, or use the built-in trunk "
        "(--trunk efficientnet_lite0), which needs no download."
    )


def reason_of(error: object) -> object:
    """Return the system's own words for an error."""
    error = getattr(error, "reason", error)  # urllib wraps the system's error
    return getattr(error, "strerror", None) or error


def check_reachable(url: str, what: str) -> None:
    """Raise at once where there is no network.

    Raises:
        PipelineError: no answer.
    """
    if fault := unreachable(url):
        raise failed(what, fault) from fault


def unreachable(url: str) -> Exception | None:
    """Return why nothing answers, found at once by asking for the head of a page; else None."""
    request = urllib.request.Request(url, method="HEAD", headers=_AGENT)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT):
            return None
    except urllib.error.HTTPError:
        return None  # the host answers; what it says about this page is for the one who fetches
    except (OSError, HTTPException) as error:
        return error


def download(url: str, target: Path, what: str) -> None:
    """Download a file whose name carries the start of its sha256 (`resnet18-f37072fd.pth`).

    `target` exists only once all of it is there and hashes right.

    Raises:
        PipelineError: it could not be had, or could not be written.
    """
    expected = target.stem.rpartition("-")[2]
    atomic.write_pieces(target, _received(url, expected, what), what=f"the weights {what}")


def _received(url: str, expected: str, what: str) -> Iterator[bytes]:
    """Yield what a server sends, and raise at the end where its sha256 begins otherwise."""
    request = urllib.request.Request(url, headers=_AGENT)
    sha = hashlib.sha256()
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            while piece := answer.read(1 << 20):
                sha.update(piece)
                yield piece
    except (OSError, HTTPException) as error:
        raise failed(what, error) from error
    if not sha.hexdigest().startswith(expected):
        raise failed(what, f"its sha256 begins with {sha.hexdigest()[:8]} instead of {expected}")
