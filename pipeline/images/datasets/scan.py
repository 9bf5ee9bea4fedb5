"""From DATA to what is in it: a folder, a list, archives, tables of images, here or elsewhere."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from pipeline.arguments import path_of
from pipeline.errors import PipelineError, UsageError, nearest
from pipeline.images.datasets.builtin import BUILTIN
from pipeline.images.datasets.folders import image_set, scan_folder
from pipeline.images.datasets.imageset import ImageSet
from pipeline.images.datasets.layout import Layout, NameTree
from pipeline.images.datasets.lists.listing import Given, scan_bytes, scan_given, scan_listing
from pipeline.images.datasets.packed import scan_archives
from pipeline.images.names import is_hidden, listed, shown
from pipeline.images.sources import fetch
from pipeline.images.sources.address import (
    common,
    expanded,
    has_braces,
    is_remote,
    kind_of,
    known,
    stem_of,
)
from pipeline.images.sources.catalogue import Catalogue

#: Names of lists end so.
LISTS = (".csv", ".tsv", ".txt", ".lst")
#: What lies beside archives and is no data, in any case.
_BESIDE = (
    ".json", ".jsonl", ".md", ".rst", ".txt", ".csv", ".tsv", ".yaml", ".yml", ".toml", ".py",
    ".lock", ".crc", ".sha256", ".md5", ".idx", ".index", ".gitattributes",
)  # fmt: skip
_ALSO_BESIDE = ("license", "readme", "_success", "_metadata", "_common_metadata")
#: What Hugging Face's `datasets` computed from a data set and keeps in its folder.
_COMPUTED = ("cache-", "tmp")


def scan(data: str | Path | Given, catalogue: Catalogue | None = None) -> ImageSet:
    """Return what a folder, a list or archives consist of; no image is decoded.

    Args:
        data: (1) a folder with `train/`, `val/`, `test/`, each with a folder for each class;
            (2) a folder with a folder for each class; (3) a CSV or TSV file with the columns
            `path,label` and optionally `split` and `group`, or a text file with a path in each
            line; (4) a folder of images alone; (5) a tar, ZIP archive, Parquet or Arrow file, a
            folder of them, or several as `shard-{000..012}.tar` or with `*`; (6) the address of
            any of these as fsspec has it, such as `s3://bucket/photos`; (7) a list in memory.
        catalogue: lists archives; None for one that remembers nothing.

    Raises:
        PipelineError: with all that is wrong with the input in one message.
        UsageError: there is no such file or folder.
    """
    catalogue = catalogue or Catalogue()
    if isinstance(data, Given):
        return scan_given(data)
    text = os.fspath(data)
    if not text:
        raise UsageError("DATA is empty. Give a folder of images or a CSV file.")
    if is_remote(text):
        return _scan_remote(text, catalogue)
    path = path_of(_local(text), "DATA")
    try:
        path.stat()
    except FileNotFoundError:
        if archives := archives_matching(path):
            return _scan_several(archives, catalogue)
        raise UsageError(_not_there(path)) from None
    except OSError as error:
        raise PipelineError(f"Cannot read {shown(path)}: {error.strerror}.") from error
    if path.is_dir():
        real = Path(os.path.realpath(path))
        name = real.name if path.name in ("", "..") else path.name
        if archives := archives_in(str(real)):
            return scan_archives(archives, real, name, catalogue)
        return scan_folder(real, name)
    if not path.is_file():
        raise UsageError(f"{shown(path)} is neither a folder nor a file.")
    # Paths are relative to the file where it is given, not to where a link to it leads.
    place = Path(os.path.realpath(path.parent)) / path.name
    if kind_of(path.name):
        return _scan_archive(str(place), catalogue)
    return scan_listing(place, path.stem)


def _local(text: str) -> str:
    """Return the path of a `file://` address; other texts as they are."""
    return unquote(text[7:]) if text.lower().startswith("file:///") else text


def _scan_archive(address: str, catalogue: Catalogue) -> ImageSet:
    """Return the set in one archive: paths begin in it, or beside a table of images."""
    rows = kind_of(address) in ("parquet", "arrow")
    root = address.rpartition("/")[0] if rows else address
    return scan_archives([address], _root(root), stem_of(address), catalogue)


def _scan_several(archives: Sequence[str], catalogue: Catalogue) -> ImageSet:
    root = "/".join(common([address.split("/")[:-1] for address in archives]))
    stem = "".join(common([list(stem_of(address)) for address in archives]))
    name = stem.rstrip("-_.0123456789") or root.rpartition("/")[2]
    return scan_archives(archives, _root(root), name, catalogue)


def _root(address: str) -> str | Path:
    return address if is_remote(address) else Path(address)


def archives_matching(path: Path) -> list[str]:
    """Return the archives that a pattern with braces, `*` or `?` stands for; none where it is none.

    Raises:
        UsageError: of those in braces some are not there, or what it stands for are no archives.
    """
    text = str(path.absolute())
    if not (has_braces(text) or glob.has_magic(text)):
        return []
    found: list[str] = []
    for one in expanded(text):
        found += sorted(glob.glob(one)) if glob.has_magic(one) else [one]  # noqa: PTH207
    return _checked(found, shown(path), [one for one in found if not os.path.isfile(one)])  # noqa: PTH113


def _checked(found: Sequence[str], pattern: str, missing: Sequence[str]) -> list[str]:
    if not found:
        raise UsageError(f"There is no file that {pattern} stands for.")
    if missing:
        raise UsageError(
            f"{len(missing):,} of the {len(found):,} files that {pattern} stands for are not "
            f"there: {listed(missing, 3)}."
        )
    if others := [one for one in found if not kind_of(one)]:
        raise UsageError(
            f"A pattern as DATA stands for archives (.tar, .zip, .parquet, …); {listed(others, 3)} "
            f"{'is' if len(others) == 1 else 'are'} none. Give their folder."
        )
    return list(dict.fromkeys(os.path.join(_real(one.rpartition("/")[0]), one.rpartition("/")[2])
                              for one in found))  # fmt: skip


def _real(folder: str) -> str:
    return folder if is_remote(folder) else os.path.realpath(folder)


def archives_in(folder: str) -> list[str]:
    """Return the archives below a folder, where it holds nothing else that could be data."""
    found: list[str] = []
    for path in _below(folder, ()):
        last = path.rpartition("/")[2]
        if kind_of(last):
            if not is_computed(last):
                found.append(path)
        elif not _is_beside(last):
            return []
    return sorted(found, key=os.fsencode)


def is_computed(name: str) -> bool:
    """Tell whether an Arrow file is one that `datasets` computed from a data set beside it."""
    return name.rpartition("/")[2].startswith(_COMPUTED) and kind_of(name) == "arrow"


def _is_beside(name: str) -> bool:
    low = name.lower()
    return is_hidden(name) or low.endswith(_BESIDE) or low.startswith(_ALSO_BESIDE)


def _below(folder: str, above: tuple[str, ...]) -> Iterator[str]:
    """Yield the files of a folder and then those of its folders, without a list of them."""
    folders = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append(entry.path)
                else:
                    yield entry.path
    except OSError:
        return  # whoever reads it tells
    here = os.path.realpath(folder)
    for path in folders:
        if not is_hidden(path.rpartition("/")[2]) and here not in above:
            yield from _below(path, (*above, here))


def _scan_remote(given: str, catalogue: Catalogue) -> ImageSet:
    """Return the set at an address of another machine."""
    address = known(given)
    last = address.rpartition("/")[2]
    if has_braces(address) or ("*" in last and kind_of(last)):
        found: list[str] = []
        for one in expanded(address):
            found += fetch.matching(one) if "*" in one else [one]
        return _scan_several(_checked(found, shown(address), ()), catalogue)
    if kind_of(last):
        try:
            return _scan_archive(address, catalogue)
        except FileNotFoundError:
            raise UsageError(f"There is no file {shown(address)}.") from None
    if last.lower().endswith(LISTS):
        try:
            data = fetch.content(address)
        except FileNotFoundError:
            raise UsageError(f"There is no file {shown(address)}.") from None
        stem, root = last.rpartition(".")[0], address.rpartition("/")[0]
        return scan_bytes(data, title=shown(address), root=root, name=stem)
    names = fetch.below(address)
    if not names:
        raise UsageError(
            f"There is nothing at {shown(address)}, or its server lists no folders. Give a folder, "
            "an archive (.tar, .zip, .parquet) or a CSV file."
        )
    archives = [name for name in names if kind_of(name) and not is_computed(name)]
    others = [n for n in names if not kind_of(n) and not _is_beside(n.rpartition("/")[2])]
    if archives and not others:
        every = sorted(f"{address}/{name}" for name in archives)
        return scan_archives(every, address, last, catalogue)
    layout = Layout.of(NameTree(names))
    layout.images.sort(key=lambda image: os.fsencode(image.path))
    return image_set(layout, address, last)


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
