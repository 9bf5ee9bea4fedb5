"""Results as folders: written under a temporary name and renamed into place."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.store.atomic import TEMPORARY, exchange, make_folder, sync_folder


def commit_folder(folder: Path, write: Callable[[Path], None], *, what: str) -> None:
    """Write a folder and commit it under its name, in place of an earlier one.

    Args:
        folder: final name.
        write: fills the temporary folder that it is given.
        what: what the folder is, for the error's sentence (`the head`).

    Raises:
        PipelineError: the folder and the system's reason; nothing half-written stays.
    """
    make_folder(folder.parent)
    temporary = folder.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
    old = temporary.with_name(f"{temporary.name}-old")
    try:
        temporary.mkdir()
        write(temporary)
        for path in temporary.iterdir():
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(file)
            finally:
                os.close(file)
        sync_folder(temporary)
        if not (folder.exists() and exchange(temporary, folder)):
            if folder.exists():  # killed between these two, it is gone until it is made again
                os.rename(folder, old)
            os.rename(temporary, folder)
        sync_folder(folder.parent)
    except BaseException as error:
        if old.exists() and not folder.exists():
            os.rename(old, folder)
        if isinstance(error, OSError):
            raise PipelineError(
                f"Cannot write {what} {folder}: {error.strerror or error}."
            ) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
