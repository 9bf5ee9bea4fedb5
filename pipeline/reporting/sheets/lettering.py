"""Text that can be drawn whatever a name holds: every character has a glyph, and it fits."""

from __future__ import annotations

import unicodedata
from functools import cached_property
from typing import Any

from pipeline.images.names import shown

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
    """Text for one picture.

    Args:
        renderer: matplotlib's, that the text is drawn with.
        points: size of the letters that `fit` measures, unless it is told another.
    """

    def __init__(self, renderer: Any, points: float = 9.0):
        self.renderer, self.points = renderer, points

    @cached_property
    def families(self) -> list[str]:
        """Return the fonts that text is drawn with, in the order in which they are asked."""
        from matplotlib.font_manager import fontManager

        there = {entry.name for entry in fontManager.ttflist}
        return [OWN, *(name for name in OTHERS if name in there)]

    @cached_property
    def _drawable(self) -> frozenset[int]:
        from matplotlib.font_manager import FontProperties, findfont, get_font

        files = (findfont(FontProperties(family=[name])) for name in self.families)
        return frozenset(code for file in files for code in get_font(file).get_charmap())

    def legible(self, text: str) -> str:
        """Return text on one line, in which what cannot be drawn is replaced.

        Control characters, bytes that are not UTF-8 and characters without a glyph become `�`.
        """
        return "".join(self._letter(c) for c in shown(text[:_LONGEST]))

    def _letter(self, c: str) -> str:
        hidden = unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        return MISSING if hidden or ord(c) not in self._drawable else c

    def fit(self, text: str, width: float, **style: Any) -> str:
        """Return legible text at most `width` pixels wide, its middle left out if need be.

        Names that begin alike differ at their ends.
        """
        text = self.legible(text)
        if self.width(text, **style) <= width:
            return text
        low, high = 0, len(text)  # how many characters fit, by bisection
        while low < high:
            middle = (low + high + 1) // 2
            if self.width(_shortened(text, middle), **style) <= width:
                low = middle
            else:
                high = middle - 1
        return _shortened(text, low)

    def width(self, text: str, **style: Any) -> float:
        """Return the width of legible text in pixels."""
        if not text:
            return 0.0
        wide, _, _ = self.renderer.get_text_width_height_descent(
            text, self.properties(**style), ismath=False
        )
        return float(wide)

    def properties(self, *, points: float | None = None, bold: bool = False) -> Any:
        """Return matplotlib's font properties."""
        from matplotlib.font_manager import FontProperties

        weight = "bold" if bold else "normal"
        return FontProperties(family=self.families, size=points or self.points, weight=weight)


def _shortened(text: str, letters: int) -> str:
    """Return the beginning and the end of a text, so many letters together."""
    end = letters // 3
    return text[: letters - end].rstrip() + ELLIPSIS + text[len(text) - end :].lstrip()
