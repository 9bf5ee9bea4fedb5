"""Text that can be drawn whatever a name holds: every character has a glyph, and it fits."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

from pipeline.images.names import shown

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

#: The font that comes with matplotlib: Latin, Greek, Cyrillic, Arabic, Hebrew and more.
OWN = "DejaVu Sans"
#: Fonts of other scripts, used where the system has them.
OTHERS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "WenQuanYi Micro Hei",
    "Microsoft YaHei",
    "Hiragino Sans",
    "Arial Unicode MS",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
)
MISSING, ELLIPSIS = "\N{REPLACEMENT CHARACTER}", "…"
#: Characters of a name that are looked at: no cell is wider.
_LONGEST = 400


class Lettering:
    """Text of one size.

    Args:
        pixels: size of the letters.
        bold: whether they are bold.
    """

    def __init__(self, pixels: float = 12.5, *, bold: bool = False):
        self.pixels, self.bold = pixels, bold

    @cached_property
    def _fonts(self) -> list[tuple[FreeTypeFont, frozenset[int]]]:
        """Return fonts and the characters that each can draw, in the order of preference."""
        from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
        from PIL import ImageFont

        there = {entry.name for entry in fontManager.ttflist}
        weight = "bold" if self.bold else "normal"
        found = []
        for name in (OWN, *(name for name in OTHERS if name in there)):
            file = findfont(FontProperties(family=[name], weight=weight))
            font = ImageFont.truetype(str(file), self.pixels, layout_engine=ImageFont.Layout.BASIC)
            found.append((font, frozenset(get_font(file).get_charmap())))
        return found

    def legible(self, text: str) -> str:
        """Return text on one line, in which what cannot be drawn is replaced.

        Control characters, bytes that are not UTF-8 and characters without a glyph become `�`.
        """
        return "".join(self._letter(c) for c in shown(text[:_LONGEST]))

    def _letter(self, c: str) -> str:
        hidden = unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        return MISSING if hidden or self._font_of(c) is None else c

    def _font_of(self, c: str) -> FreeTypeFont | None:
        return next((font for font, letters in self._fonts if ord(c) in letters), None)

    def fit(self, text: str, width: float) -> str:
        """Return legible text at most `width` pixels wide, its middle left out if need be.

        Names that begin alike differ at their ends.
        """
        text = self.legible(text)
        if self.width(text) <= width:
            return text
        lengths = range(len(text) + 1)
        fitting = bisect_right(lengths, width, key=lambda n: self.width(_shortened(text, n)))
        return _shortened(text, max(0, fitting - 1))

    def width(self, text: str) -> float:
        """Return the width of legible text in pixels."""
        return sum(font.getlength(run) for font, run in self._runs(text))

    def write(
        self, pen: ImageDraw, text: str, *, left: float, top: float, room: float, colour: str
    ) -> None:
        """Write one line into `room` pixels; names are taken as they are."""
        for font, run in self._runs(self.fit(text, room)):
            pen.text((left, top + self.pixels), run, colour, font, "ls")
            left += font.getlength(run)

    def _runs(self, text: str) -> list[tuple[FreeTypeFont, str]]:
        """Return the parts of legible text that one font draws, with the font."""
        groups = ((font, "".join(run)) for font, run in groupby(text, self._font_of))
        return [(font, run) for font, run in groups if font is not None]


def _shortened(text: str, letters: int) -> str:
    """Return the beginning and the end of a text, so many letters together."""
    end = letters // 3
    return text[: letters - end].rstrip() + ELLIPSIS + text[len(text) - end :].lstrip()
