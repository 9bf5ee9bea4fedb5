"""From the bytes of a list to text: byte order marks, and encodings other than UTF-8."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Callable, Collection

#: What a file begins with → its encoding; the longer ones first.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
#: Encodings that lists are read in where they are not UTF-8: what Excel and editors of each script
#: write.
ENCODINGS = (
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "koi8-r",
    "cp932", "euc_jis_2004", "gb18030", "big5hkscs", "cp949", "mac-roman", "cp850", "cp866",
)  # fmt: skip
#: Of Western Europe as well, and rare: where cp1252 reads a text it is that.
_RARE = ("mac-roman", "cp850")
#: A letter of English beside one of Greek, Cyrillic, Hebrew or Arabic.
_OTHERS = "\u0370-\u04ff\u0590-\u06ff"
_MIXED = re.compile(f"[A-Za-z][{_OTHERS}]|[{_OTHERS}][A-Za-z]")
#: Words of a list that its encoding is told by.
_WORDS = 2000
#: Control characters of no text; the last two begin other scripts in encodings of seven bits.
_NO_TEXT = "\0\1\2\3\4\x0e\x1b"
#: Bytes of a file in which zeros are looked for.
_HEAD = 1 << 16


def decoded(data: bytes) -> str | None:
    """Return the text of a file: marked UTF-8, UTF-16 or UTF-32, UTF-16 without a mark, or UTF-8.

    Bytes that are no UTF-8 stay what they are (`surrogateescape`), as in file names. None where
    the bytes are no text.
    """
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "")
    if not encoding and b"\0" in data[:_HEAD]:
        even, odd = data[0:_HEAD:2].count(0), data[1:_HEAD:2].count(0)
        encoding = "utf-16-be" if even > odd else "utf-16-le"
        if 4 * max(even, odd) < min(len(data), _HEAD) or min(even, odd):
            return None
    try:
        lost = "surrogateescape" if encoding in ("", "utf-8-sig") else "strict"
        text = data.decode(encoding or "utf-8", lost)
    except UnicodeDecodeError:
        return None
    return None if any(letter in text[:_HEAD] for letter in _NO_TEXT) else text


def is_utf8(text: str) -> bool:
    """Tell whether text that `decoded` gave has no bytes that are no UTF-8."""
    return text.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in text)


def read_as(text: str, encoding: str) -> str:
    """Return text that `decoded` gave as UTF-8, read in another encoding."""
    return text.encode("utf-8", "surrogateescape").decode(encoding)


def encoding_of(words: Collection[str], fits: Callable[[str], int]) -> str:
    """Return the encoding that words are in which are not UTF-8.

    Args:
        words: as `decoded` gave them.
        fits: how many files are there whose names are read in an encoding: what decides first.
    """
    import chardet

    # some read every byte: there is always a candidate
    candidates = [encoding for encoding in ENCODINGS if _prints(words, encoding)]
    candidates = [name for name in candidates if not _mixes(words, name)] or candidates
    if "cp1252" in candidates:
        candidates = [encoding for encoding in candidates if encoding not in _RARE]
    files = {encoding: fits(encoding) for encoding in candidates}
    candidates = [name for name in candidates if files[name] == max(files.values())]
    data = "\n".join(sorted(words)[:_WORDS]).encode("utf-8", "surrogateescape")
    found = chardet.detect(data, include_encodings=candidates, no_match_encoding=candidates[0])
    return codecs.lookup(found["encoding"] or candidates[0]).name


def _mixes(words: Collection[str], encoding: str) -> bool:
    """Tell whether an encoding reads most words with letters of two scripts side by side."""
    found = sum(_MIXED.search(read_as(word, encoding)) is not None for word in words)
    return 2 * found > len(words)


def _prints(words: Collection[str], encoding: str) -> bool:
    """Tell whether an encoding reads words without control characters and unused places."""
    try:
        text = "".join(read_as(word, encoding) for word in words)
    except UnicodeDecodeError:
        return False
    kinds = {unicodedata.category(letter) for letter in set(text) if not letter.isascii()}
    return not kinds & {"Cc", "Cf", "Cn", "Co"}
