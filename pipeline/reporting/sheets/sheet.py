"""A contact sheet: sections of small pictures with a line or two under each, as a PNG."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.images.decoding.thumbnails import Picture
from pipeline.reporting.sheets.lettering import Lettering

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What a sheet says of itself, so that it may be replaced by another.
SOFTWARE = "Headstart contact sheet"

_DPI = 100
_MARGIN, _GAP = 24, 8  # pixels
_LINE, _TITLE = 17, 26  # height of a line of text and of the title, pixels
_PAPER, _EMPTY, _EDGE = (255, 255, 255), (240, 242, 244), (216, 222, 228)
_INK, _GREY = "#1f2328", "#59636e"
#: Right and wrong: told apart without colours too, by the marks.
_COLOURS = {True: "#1a7f37", False: "#cf222e", None: _INK}
_WRONG = (207, 34, 46)
_MARKS = {True: "✓ ", False: "✗ ", None: ""}
_FRAME = 3  # of the gap: the picture stays whole


@dataclass(frozen=True, eq=False)
class Tile:
    """A picture of a sheet. Equal only when identical.

    Attributes:
        picture: it, or why there is none.
        captions: lines under it.
        right: whether it shows something right or wrong, which is marked; None for neither.
    """

    picture: Picture
    captions: tuple[str, ...] = ()
    right: bool | None = None


@dataclass(frozen=True, eq=False)
class Section:
    """Pictures under a heading. Equal only when identical.

    Attributes:
        heading: above them; empty for none.
        tiles: the pictures.
    """

    heading: str
    tiles: tuple[Tile, ...]


def draw(
    title: str, notes: Sequence[str], sections: Sequence[Section], *, side: int, columns: int
) -> bytes:
    """Return a sheet as the bytes of a PNG.

    Args:
        title: at its top.
        notes: lines below the title.
        sections: one below the other.
        side: pixels of a picture's cell; a picture of at most half that is enlarged.
        columns: pictures beside each other.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image, PngImagePlugin

    width = 2 * _MARGIN + columns * (side + _GAP) - _GAP
    height, places = _layout(notes, sections, side, columns)
    pixels = np.full((height, width, 3), _PAPER, np.uint8)
    for (top, left), tile in _tiles(places, sections):
        wide, edge = (_FRAME, _WRONG) if tile.right is False else (1, _EDGE)
        end = side + wide
        pixels[top - wide : top + end, left - wide : left + end] = edge
        _paste(pixels[top : top + side, left : left + side], tile)
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    canvas: Any = FigureCanvasAgg(figure)
    figure.figimage(pixels, origin="upper")
    write = _Writer(figure, Lettering(canvas.get_renderer()), width, height)
    write(title, _MARGIN, _MARGIN, width - 2 * _MARGIN, points=14, bold=True)
    for number, note in enumerate(notes):
        top = _MARGIN + _TITLE + number * _LINE
        write(note, top, _MARGIN, width - 2 * _MARGIN, colour=_GREY)
    for section, (top, _) in zip(sections, places, strict=True):
        write(section.heading, top, _MARGIN, width - 2 * _MARGIN, points=10, bold=True)
    for (top, left), tile in _tiles(places, sections):
        if tile.picture.rgb is None:
            write.reason(tile.picture.reason, top, left, side)
        for number, caption in enumerate(tile.captions):
            first = number == 0
            text = (_MARKS[tile.right] if first else "") + caption
            colour = _COLOURS[tile.right] if first else _GREY
            write(text, top + side + 3 + number * _LINE, left, side, colour=colour)
    canvas.draw()
    told = PngImagePlugin.PngInfo()
    told.add_text("Software", SOFTWARE)
    buffer = io.BytesIO()
    drawn = np.asarray(canvas.buffer_rgba())[..., :3]
    Image.fromarray(np.ascontiguousarray(drawn)).save(buffer, "PNG", pnginfo=told)
    return buffer.getvalue()


#: Top of a section, and (top, left) of each of its tiles.
_Place = tuple[int, list[tuple[int, int]]]


def _layout(
    notes: Sequence[str], sections: Sequence[Section], side: int, columns: int
) -> tuple[int, list[_Place]]:
    """Return the sheet's height, and where everything is."""
    top, places = _MARGIN + _TITLE + len(notes) * _LINE + 2 * _GAP, []
    for section in sections:
        start, top = top, top + (_LINE + _GAP if section.heading else 0)
        lines = max((len(tile.captions) for tile in section.tiles), default=0)
        step = side + (lines * _LINE + 3 if lines else 0) + _GAP
        places.append((start, [
            (top + n // columns * step, _MARGIN + n % columns * (side + _GAP))
            for n in range(len(section.tiles))
        ]))  # fmt: skip
        top += -(-len(section.tiles) // columns) * step + _GAP
    return top - 2 * _GAP + _MARGIN, places


def _tiles(
    places: Sequence[_Place], sections: Sequence[Section]
) -> list[tuple[tuple[int, int], Tile]]:
    return [
        pair
        for (_, spots), section in zip(places, sections, strict=True)
        for pair in zip(spots, section.tiles, strict=True)
    ]


def _paste(cell: np.ndarray, tile: Tile) -> None:
    """Put a picture into the middle of its cell [side, side, 3]."""
    side = len(cell)
    cell[:] = _EMPTY
    if tile.picture.rgb is not None:
        rgb = _enlarged(tile.picture.rgb, side)
        top, left = ((side - length) // 2 for length in rgb.shape[:2])
        cell[top : top + rgb.shape[0], left : left + rgb.shape[1]] = rgb


def _enlarged(rgb: np.ndarray, side: int) -> np.ndarray:
    """Return a picture that fills its cell; a few pixels are shown as such, not blurred."""
    from PIL import Image

    longest = max(rgb.shape[:2])
    if longest <= side // 2:
        by = side // longest
        return rgb.repeat(by, 0).repeat(by, 1)
    height, width = (max(1, round(length * side / longest)) for length in rgb.shape[:2])
    image = Image.fromarray(np.ascontiguousarray(rgb))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


class _Writer:
    """Writes text on a figure, at pixels from its top left corner."""

    def __init__(self, figure: Figure, lettering: Lettering, width: int, height: int):
        self.figure, self.lettering = figure, lettering
        self.width, self.height = width, height

    def __call__(
        self, text: str, top: float, left: float, room: float, *, colour: str = _INK, **style: Any
    ) -> None:
        """Write one line into `room` pixels; names are taken as they are, never as TeX."""
        text = self.lettering.fit(text, room, **style)
        base = top + style.get("points", self.lettering.points) * _DPI / 72
        if text:
            self.figure.text(
                left / self.width, 1 - base / self.height, text, color=colour, va="baseline",
                fontproperties=self.lettering.properties(**style), parse_math=False, usetex=False,
            )  # fmt: skip

    def reason(self, text: str, top: float, left: float, side: int) -> None:
        """Write why there is no picture into the middle of its cell."""
        letters = max(8, round(side / 9))
        lines = textwrap.wrap(self.lettering.legible(text), letters, max_lines=max(1, side // 24))
        start = top + (side - len(lines) * _LINE) / 2
        for number, line in enumerate(lines):
            room = side - 2 * _GAP
            fitted = self.lettering.fit(line, room)
            middle = left + (side - self.lettering.width(fitted)) / 2
            self(fitted, start + number * _LINE, middle, room + 1, colour=_GREY)
