"""Downloads that fail in one sentence and leave nothing half written."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from pipeline.errors import PipelineError

_TIMEOUT = 15.0  # seconds without an answer
_AGENT = {"User-Agent": "headstart"}


def failed(what: str, reason: object) -> PipelineError:
    """Return the error that says what to pass instead of what could not be downloaded."""
    reason = getattr(reason, "reason", reason)  # urllib wraps the system's error
    reason = getattr(reason, "strerror", None) or reason
    return PipelineError(
        f"The weights {what} could not be downloaded ({reason}). Pass --weights FILE with a file "
        "downloaded elsewhere, --weights random, or use the built-in trunk "
        "(--trunk efficientnet_lite0), which needs no download."
    )


def check_reachable(url: str, what: str) -> None:
    """Raise at once where there is no network, by asking for the head of a page.

    Raises:
        PipelineError: no answer.
    """
    request = urllib.request.Request(url, method="HEAD", headers=_AGENT)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT):
            return
    except urllib.error.HTTPError:
        return  # the host answers; what it says about this page is for the one who fetches
    except (OSError, HTTPException) as error:
        raise failed(what, error) from error


def download(url: str, target: Path, what: str) -> Path:
    """Download a file whose name carries the start of its sha256 (`resnet18-f37072fd.pth`).

    Returns:
        `target`, which exists only once all of it is there and hashes right.

    Raises:
        PipelineError: it could not be had.
    """
    expected = target.stem.rpartition("-")[2]
    request = urllib.request.Request(url, headers=_AGENT)
    temporary = None
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
                temporary = Path(file.name)
                shutil.copyfileobj(answer, file, 1 << 20)
        with temporary.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if not found.startswith(expected):
            raise failed(what, f"its sha256 begins with {found[:8]} instead of {expected}")
        temporary.replace(target)
    except (OSError, HTTPException) as error:
        raise failed(what, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return target
