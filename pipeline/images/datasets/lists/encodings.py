"""From the bytes of a list to text: byte order marks, and encodings other than UTF-8."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Callable, Collection, Sequence

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
    "iso8859-2", "cp852", "cp437",
)  # fmt: skip
#: Encodings of seven bits that their own shifts tell → a shift that each begins with.
_SEVEN_BITS = {
    "iso2022_jp_ext": re.compile(rb"\x1b\$[@B(]"),
    "iso2022_kr": re.compile(rb"\x1b\$\)C"),
    "hz": re.compile(rb"~\{[!-~]+~\}"),
}
#: Of Western Europe as well, and rare: where cp1252 reads a text it is that.
_RARE = ("mac-roman", "cp850")
#: Letters of Greek, Cyrillic, Hebrew and Arabic, which no letter of English stands beside.
_OTHERS = "\u0370-\u04ff\u0590-\u06ff"
#: A sign that stands in no name, beside a letter: what another encoding has for a letter.
_SIGNS = (
    "\xa2-\xa9\xac-\xaf\xb1-\xb4\xb6\xb8\xb9\xbc-\xbe\xd7\xf7"
    "\u02c6-\u02dd\u201a\u201e\u2020-\u203a\u2190-\u25ff"
)
_MIXED = re.compile(
    f"[A-Za-z][{_OTHERS}]|[{_OTHERS}][A-Za-z]|[^\\W\\d_][{_SIGNS}]|[{_SIGNS}][^\\W\\d_]"
    # a single Chinese letter that took the place of two of Europe
    "|[a-z][\u3400-\u9fff](?![^\x00-\x7f])"
)
#: What may be letters in UTF-7.
_UTF7 = re.compile(r"\+[A-Za-z0-9+/]{3,}-?")
#: Words of a list that its encoding is told by.
_WORDS = 2000
#: Control characters of no text; the last two begin other scripts in encodings of seven bits.
_NO_TEXT = "\0\1\2\3\4\x0e\x1b"
_NO_LETTERS = {"Cc", "Cf", "Cn", "Co", "Cs"}  # kinds of what stands in no name
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


def seven_bits(data: bytes) -> str:
    """Return which encoding of seven bits a file is in, by its shifts; empty for none."""
    if not data.isascii():
        return ""
    for encoding, shift in _SEVEN_BITS.items():
        if shift.search(data):
            try:
                text = data.decode(encoding)
            except UnicodeDecodeError:
                continue
            if not text.isascii() and _is_text(text):
                return encoding
    return ""


def from_utf7(text: str) -> str:
    """Return what text would be in UTF-7; as it is where it would be nothing else.

    `C+vis-2` would be too: it is for other witnesses to decide.
    """
    if not _UTF7.search(text):
        return text
    try:
        found = text.encode("ascii").decode("utf-7")
    except UnicodeError:
        return text
    return found if _is_text(found) else text


def encoding_of(words: Collection[str], fits: Callable[[str], int]) -> tuple[str, str]:
    """Return the encoding that words are in which are not UTF-8, and the next likely one.

    The second reads some word differently; it is empty where there is no other.

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
    some = sorted(words)[:_WORDS]
    data = "\n".join(some).encode("utf-8", "surrogateescape")
    ranked: list[str] = []
    while candidates and len(ranked) < 2:
        found = chardet.detect(data, include_encodings=candidates, no_match_encoding=candidates[0])
        best = _named(found["encoding"], candidates)
        ranked.append(best)
        candidates = [
            name for name in candidates
            if name != best and any(read_as(w, name) != read_as(w, best) for w in some)
        ]  # fmt: skip
    return ranked[0], ranked[1] if len(ranked) > 1 else ""


def _named(found: str | None, candidates: Sequence[str]) -> str:
    """Return which of the candidates was found; some stand for their elder brothers (Big5)."""
    name = codecs.lookup(found or candidates[0]).name
    family = name.partition("_")[0]
    alike = [one for one in candidates if one.startswith(family)]
    return name if name in candidates else (alike or [*candidates])[0]


def _mixes(words: Collection[str], encoding: str) -> bool:
    """Tell whether an encoding reads half of the words or more as no names are written.

    With letters of two scripts side by side, or a sign beside a letter.
    """
    odd = [word for word in words if not word.isascii()]
    found = sum(_MIXED.search(read_as(word, encoding)) is not None for word in odd)
    return 2 * found >= len(odd)


def _prints(words: Collection[str], encoding: str) -> bool:
    """Tell whether an encoding reads words without control characters and unused places."""
    try:
        text = "".join(read_as(word, encoding) for word in words)
    except UnicodeDecodeError:
        return False
    return _is_text(text)


def _is_text(text: str) -> bool:
    """Tell whether text holds no control characters beside ASCII's, and no unused places."""
    return not {unicodedata.category(one) for one in set(text) if not one.isascii()} & _NO_LETTERS
