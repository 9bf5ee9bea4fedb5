"""From DATA to what is in it: a folder, a CSV or TSV file, or a built-in set."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import PipelineError, UsageError, nearest
from pipeline.images.datasets.builtin import BUILTIN
from pipeline.images.datasets.folders import scan_folder
from pipeline.images.datasets.imageset import ImageSet
from pipeline.images.datasets.listing import scan_listing
from pipeline.images.names import is_hidden, shown


def scan(data: str | Path) -> ImageSet:
    """Return what a folder or listing consists of; no image is opened.

    Args:
        data: (1) a folder with `train/`, `val/`, `test/`, each with a folder for each class;
            (2) a folder with a folder for each class; (3) a CSV or TSV file with the columns
            `path,label` and optionally `split` and `group`; (4) a folder of images alone.

    Raises:
        PipelineError: with all that is wrong with the input in one message.
        UsageError: there is no such file or folder.
    """
    if not os.fspath(data):
        raise UsageError("DATA is empty. Give a folder of images or a CSV file.")
    path = Path(data).expanduser()
    try:
        path.stat()
    except FileNotFoundError:
        raise UsageError(_not_there(path)) from None
    except OSError as error:
        raise PipelineError(f"Cannot read {shown(path)}: {error.strerror}.") from error
    except ValueError:
        raise UsageError(f"{str(path)!r} is not a path.") from None
    if path.is_dir():
        real = Path(os.path.realpath(path))
        name = real.name if path.name in ("", "..") else path.name
        return scan_folder(real, name)
    if not path.is_file():
        raise UsageError(f"{shown(path)} is neither a folder nor a file.")
    # Paths are relative to the listing where it is given, not to where a link to it leads.
    return scan_listing(Path(os.path.realpath(path.parent)) / path.name, path.stem)


def _not_there(path: Path) -> str:
    """Return the sentence for a path that does not exist, with the nearest names that do."""
    if path.is_symlink():
        return f"{shown(path)} is a link to a place that does not exist."
    alone = path.parent == Path()  # a bare name may be meant for a built-in set
    try:
        near = [name for name in os.listdir(path.parent) if not is_hidden(name)]
    except OSError:
        near = []
    hint = shown(nearest(path.name, near + (list(BUILTIN) if alone else [])))
    built_in = f", nor a built-in set of that name (there is {', '.join(BUILTIN)})" if alone else ""
    return f"There is no folder or file {shown(path)}{built_in}.{hint}"
