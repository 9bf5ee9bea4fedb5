"""Where an image lies, as text: a path of which a part may be an archive, here or elsewhere.

    photos/cat/1.jpg      shards/000.tar/cat/1.jpg      s3://bucket/photos.zip/cat/1.jpg
    train.parquet/12      https://host/photos/cat/1.jpg

Names and passwords, and what follows the `?` of a web address (signatures, mostly), are kept in the
memory of the process alone: no table, plan or message has them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from urllib.parse import quote, unquote, urlsplit

from pipeline.errors import UsageError

#: How the name of an archive ends → its kind, which a module of this room reads.
KINDS = {
    ".tar": "tar", ".tar.gz": "tar", ".tgz": "tar", ".tar.bz2": "tar", ".tbz2": "tar",
    ".tar.xz": "tar", ".txz": "tar", ".tar.zst": "tar", ".tzst": "tar", ".zip": "zip",
    ".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow",
}  # fmt: skip
_ENDINGS = "|".join(re.escape(ending) for ending in sorted(KINDS, key=len, reverse=True))
_ARCHIVE = re.compile(rf"[^/](?P<ending>{_ENDINGS})(?=/|$)", re.IGNORECASE)
_REMOTE = re.compile(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]*://")
_WEB = ("http://", "https://")
_BRACES = re.compile(r"\{([^{}]*(?:,|\.\.)[^{}]*)\}")
#: Most addresses that a pattern may stand for.
MOST = 100_000

#: Address without → (user and password, query) with which it was given, in this process.
_ACCESS: dict[str, tuple[str, str]] = {}


def is_remote(address: str | os.PathLike[str]) -> bool:
    """Tell whether an address is one of another file system, such as `s3://bucket/a.jpg`."""
    return isinstance(address, str) and _REMOTE.match(address) is not None


def is_data(word: str) -> bool:
    """Tell whether a word can only mean images: an address elsewhere, or a pattern of archives."""
    return is_remote(word) or (has_braces(word) and bool(kind_of(word)))


def kind_of(name: str) -> str:
    """Return which kind of archive a name is one of, a value of `KINDS`; "" for none."""
    last = name.rpartition("/")[2]
    found = next((end for end in _ARCHIVE.finditer(last) if end.end() == len(last)), None)
    return KINDS[found["ending"].lower()] if found else ""


def stem_of(name: str) -> str:
    """Return the last part of a name without the ending of an archive."""
    last = name.rstrip("/").rpartition("/")[2]
    for ending in sorted(KINDS, key=len, reverse=True):
        if last.lower().endswith(ending):
            return last[: -len(ending)]
    return last


def held(address: str) -> tuple[str, str] | None:
    """Return the archive that an address leads into, and what it names there; None for none.

    On disk that is the first part named as an archive that is a file.
    """
    for found in _ARCHIVE.finditer(address):
        archive, member = address[: found.end()], address[found.end() + 1 :]
        if member and (is_remote(address) or os.path.isfile(archive)):  # noqa: PTH113
            return archive, member
    return None


def joined(root: str | os.PathLike[str], path: str) -> str:
    """Return the address of a path that is relative to `root`; one of another machine as it is."""
    if is_remote(path):
        return path
    return os.path.join(root, path)


def beside(address: str, path: str) -> str:
    """Return the address of a path that is relative to the folder of a file."""
    return joined(address.rpartition("/")[0], path)


def known(address: str) -> str:
    """Return an address that a person gave without its secrets, which this process remembers.

    Names in web addresses are as people read them: `a b.jpg` for `a%20b.jpg`.
    """
    plain, user, query = _parts(address)
    if user or query:
        _ACCESS[plain] = (user, query)
    return plain


def cleaned(address: str) -> str:
    """Return an address as `known` does, without remembering anything."""
    return _parts(address)[0]


def _parts(address: str) -> tuple[str, str, str]:
    """Return an address without secrets, user and password, and query."""
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    user, at, host = host.rpartition("@")
    if ":" not in user:
        user, host = "", f"{user}{at}{host}"
    query = ""
    if f"{scheme.lower()}://" in _WEB:
        path = path.partition("#")[0]
        path, _, query = path.partition("?")
        path = unquote(path, errors="surrogateescape")
    plain = f"{scheme.lower()}://{host}{slash}{path}".rstrip("/")
    if plain.endswith(":"):  # of nothing but the file system
        plain = f"{plain}//"
    return plain, user, query


def without_access(text: str) -> str:
    """Return what a person gave as DATA, as it may be printed and stored."""
    return known(text) if is_remote(text) else text


def opened(address: str) -> str:
    """Return an address as its file system wants it, with its secrets where they are known."""
    scheme, _, rest = address.partition("://")
    user, query = "", ""
    for plain in sorted(_ACCESS, key=len, reverse=True):
        if address == plain or address.startswith(f"{plain}/"):
            user, query = _ACCESS[plain]
            break
    if f"{scheme}://" in _WEB:
        host, slash, path = rest.partition("/")
        path = quote(path, safe="/:@!$&'()*+,;=~-._", errors="surrogateescape")
        rest = f"{host}{slash}{path}{f'?{query}' if query else ''}"
    return f"{scheme}://{f'{user}@' if user else ''}{rest}"


def secrets() -> dict[str, tuple[str, str]]:
    """Return what `remember` takes, for another process of the same person."""
    return dict(_ACCESS)


def remember(given: Mapping[str, Sequence[str]]) -> None:
    """Take over the secrets of the process that started this one."""
    _ACCESS.update({address: (user, query) for address, (user, query) in given.items()})


def without_secrets(text: str) -> str:
    """Return what a library says, without passwords and queries in the addresses that it names."""
    text = re.sub(r"(\w+://)[^/\s@'\"]*@", r"\1", text)
    return re.sub(r"(https?://[^\s?'\"]*)\?[^\s'\")]*", r"\1", text)


def has_braces(pattern: str) -> bool:
    """Tell whether a pattern has `{000..012}` or `{a,b}` in it."""
    return _BRACES.search(pattern) is not None


def expanded(pattern: str) -> Iterator[str]:
    """Yield what a pattern with braces stands for, as a shell does; itself without.

    Raises:
        UsageError: it stands for more than `MOST`, or runs backwards.
    """
    texts = _BRACES.split(pattern)
    choices = [_choices(part, pattern) for part in texts[1::2]]
    count = 1
    for some in choices:
        count *= len(some)
    if count > MOST:
        raise UsageError(f"{pattern} stands for {count:,} files; at most {MOST:,} can be given.")
    for chosen in product(*choices):
        yield "".join(a + b for a, b in zip(texts[::2], (*chosen, ""), strict=True))


def _choices(part: str, pattern: str) -> list[str]:
    first, dots, last = part.partition("..")
    if not dots:
        return part.split(",")
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
        raise UsageError(f"{{{part}}} in {pattern} is not one such as {{000..012}} or {{a,b,c}}.")
    if int(last) - int(first) >= MOST:
        raise UsageError(f"{{{part}}} in {pattern} stands for more than {MOST:,} files.")
    width = len(first) if first.startswith("0") or len(first) == len(last) else 0
    return [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]


def host_of(address: str) -> str:
    """Return what of an address names the file system, for people."""
    return urlsplit(address).scheme + "://"


def common(parts: Sequence[list[str]]) -> list[str]:
    """Return how all lists begin; one at least."""
    first, last = min(parts), max(parts)
    count = next((at for at, part in enumerate(first) if part != last[at]), len(first))
    return first[:count]
