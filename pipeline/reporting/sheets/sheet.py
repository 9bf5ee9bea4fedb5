"""A contact sheet: sections of small pictures with a line or two under each, as a PNG."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.images.thumbnails import Picture
from pipeline.reporting.sheets.contents import Content, Item
from pipeline.reporting.sheets.lettering import Lettering

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

#: What a sheet says of itself, so that it may be replaced by another.
SOFTWARE = "Headstart contact sheet"

_MARGIN, _GAP = 24, 8  # pixels
_LINE, _TITLE = 17, 26  # height of a line of text and of the title, pixels
_FRAME = 3  # of the gap: the picture stays whole
_PAPER, _EMPTY, _EDGE, _INK, _GREY = "#ffffff", "#f0f2f4", "#d8dee4", "#1f2328", "#59636e"
#: Right and wrong: told apart without colours too, by the marks.
_COLOURS = {True: "#1a7f37", False: "#cf222e", None: _INK}
_MARKS = {True: "✓ ", False: "✗ ", None: ""}


def draw(content: Content, pictures: Sequence[Picture], *, side: int) -> bytes:
    """Return a sheet as the bytes of a PNG.

    Args:
        content: titles, and what is said of each picture.
        pictures: of the content's items, in order.
        side: pixels of a picture's cell; a picture of at most half that is enlarged.
    """
    from PIL import Image, PngImagePlugin

    width, rest = content.columns * (side + _GAP) - _GAP + 2 * _FRAME, iter(pictures)
    small, text = Lettering(14, bold=True), Lettering()
    strips = [_line(content.title, width, _TITLE, Lettering(19.5, bold=True))]
    strips += [_line(note, width, _LINE, text, _GREY) for note in content.notes]
    strips.append(Image.new("RGB", (width, 2 * _GAP), _PAPER))
    for heading, items in content.sections:
        if heading:
            strips.append(_line(heading, width, _LINE + _GAP, small))
        cells = [_cell(item, next(rest), side=side, text=text) for item in items]
        strips.append(_grid(cells, width, content.columns))
    height = sum(strip.height for strip in strips) + 2 * _MARGIN - 2 * _GAP + _FRAME
    sheet, top = Image.new("RGB", (width + 2 * (_MARGIN - _FRAME), height), _PAPER), _MARGIN
    for strip in strips:
        sheet.paste(strip, (_MARGIN - _FRAME, top))
        top += strip.height
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", SOFTWARE)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def _line(text: str, width: int, height: int, lettering: Lettering, colour: str = _INK) -> Image:
    """Return a line of text, as wide as the sheet's pictures."""
    strip, pen = _canvas(width, height)
    lettering.write(pen, text, left=_FRAME, top=0, room=width - 2 * _FRAME, colour=colour)
    return strip


def _grid(cells: Sequence[Image], width: int, columns: int) -> Image:
    """Return cells in rows, each row as high as its highest."""
    height = max((cell.height for cell in cells), default=0)
    strip, _ = _canvas(width, -(-len(cells) // columns) * height + _GAP)
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        strip.paste(cell, (column * (cell.width - 2 * _FRAME + _GAP), row * height))
    return strip


def _cell(item: Item, picture: Picture, *, side: int, text: Lettering) -> Image:
    """Return a picture in its frame, with its captions."""
    lines = len(item.captions) * _LINE + 3 if item.captions else 0
    cell, pen = _canvas(side + 2 * _FRAME, side + lines + _GAP)
    wide, edge = (_FRAME, _COLOURS[False]) if item.right is False else (1, _EDGE)
    corners = (_FRAME - wide, side + _FRAME + wide - 1)
    pen.rectangle((corners[0], corners[0], corners[1], corners[1]), _EMPTY, edge, wide)
    if picture.rgb is None:
        _write_reason(pen, picture.reason, side, text)
    else:
        image = _enlarged(picture.rgb, side)
        left, top = (_FRAME + (side - length) // 2 for length in image.size)
        cell.paste(image, (left, top))
    for number, caption in enumerate(item.captions):
        mark, colour = ("", _GREY) if number else (_MARKS[item.right], _COLOURS[item.right])
        top = _FRAME + side + 3 + number * _LINE
        text.write(pen, mark + caption, left=_FRAME, top=top, room=side, colour=colour)
    return cell


def _write_reason(pen: ImageDraw, reason: str, side: int, text: Lettering) -> None:
    """Write why there is no picture into the middle of its cell."""
    letters = max(8, round(side / 9))
    lines = textwrap.wrap(text.legible(reason), letters, max_lines=max(1, side // 24))
    top = _FRAME + (side - len(lines) * _LINE) / 2
    for number, line in enumerate(lines):
        fitted = text.fit(line, side - 2 * _GAP)
        left = _FRAME + (side - text.width(fitted)) / 2
        text.write(pen, fitted, left=left, top=top + number * _LINE, room=side, colour=_GREY)


def _enlarged(rgb: np.ndarray, side: int) -> Image:
    """Return a picture that fills its cell; a few pixels are shown as such, not blurred."""
    from PIL import Image, ImageOps

    image = Image.fromarray(np.ascontiguousarray(rgb))
    if max(image.size) <= side // 2:
        return ImageOps.scale(image, side // max(image.size), Image.Resampling.NEAREST)
    return ImageOps.contain(image, (side, side))


def _canvas(width: int, height: int) -> tuple[Image, ImageDraw]:
    """Return empty paper, and what draws on it."""
    from PIL import Image, ImageDraw

    paper = Image.new("RGB", (width, height), _PAPER)
    return paper, ImageDraw.Draw(paper)
