import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import PipelineError
from pipeline.images.thumbnails import Picture
from pipeline.reporting.sheets.contents import Content, Item
from pipeline.reporting.sheets.lettering import ELLIPSIS, MISSING, Lettering
from pipeline.reporting.sheets.sheet import draw
from pipeline.store.outputs import DRAWN, output_path

HOSTILE = (
    r"$\frac{1}{0}$",
    "a\nb\tc",
    "<b>bold</b>&amp;",
    "very long " * 300,
    "中文 мак вαλ עברית 🌸",
    "$_^{}$$\\",
    "latin-\udce9",
    "gnp\u202egpj.exe",
    "%s %d {}",
    "",
)


LETTERING = Lettering()


def tile(picture, captions=(), right=None):
    return picture, Item(0, captions, right=right)


def plain(value, size=(60, 60)):
    return tile(Picture(np.full((*size, 3), value, np.uint8)))


def drawn(*tiles, title="title", heading="heading", side=60, columns=4):
    items = tuple(item for _, item in tiles)
    content = Content(title, ("a note",), ((heading, items),), columns)
    data = draw(content, [picture for picture, _ in tiles], side=side)
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_can_be_a_title_a_heading_and_a_caption(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a missing glyph warns
        wrong = tile(Picture(None, name), (name, name), right=False)
        sheet = drawn(wrong, title=name, heading=name)
    assert sheet.shape[1] == 2 * 24 + 4 * 68 - 8


def test_a_dollar_is_a_dollar_and_no_formula():
    one, other = (drawn(plain(0), title=f"$a{c}b$") for c in "_-")
    assert one.shape == other.shape and (one != other).any()
    assert LETTERING.width("$a_b$") > LETTERING.width("a_b")


def test_what_has_no_glyph_is_replaced_and_other_scripts_stay():
    found = LETTERING
    assert found.legible("a\nb") == f"a{MISSING}b"
    assert found.legible("\udcff\u202e") == MISSING * 2
    assert found.legible("мак βαλ é") == "мак βαλ é"
    assert found.legible(chr(0x10FFFD)) == MISSING


@settings(max_examples=60)
@given(st.text(max_size=60), st.integers(20, 200))
def test_fitted_text_is_never_wider_than_its_room(text, room):
    found = LETTERING
    fitted = found.fit(text, room)
    assert found.width(fitted) <= room
    if found.width(found.legible(text)) <= room:
        assert fitted == found.legible(text)
    else:
        assert ELLIPSIS in fitted


def test_of_a_long_name_the_beginning_and_the_end_are_kept():
    fitted = LETTERING.fit("species number 007 of the collection, taken in May", 120)
    assert fitted.startswith("species") and fitted.endswith("May")


def test_pictures_stand_in_rows_unchanged():
    tiles = [plain(value) for value in (10, 60, 110, 160, 210)]
    sheet = drawn(*tiles, columns=3)
    found = [
        [value for value in (10, 60, 110, 160, 210) if (row == value).sum() >= 3 * 60]
        for row in sheet
    ]
    rows = [list(key) for key in dict.fromkeys(map(tuple, found)) if key]
    assert rows == [[10, 60, 110], [160, 210]]


def test_wrong_pictures_are_framed_and_marked():
    right, wrong, neither = (
        drawn(tile(Picture(np.zeros((60, 60, 3), np.uint8)), ("a",), mark))
        for mark in (True, False, None)
    )
    red = (207, 34, 46)
    frames = [(sheet == red).all(-1).sum() > 4 * 60 * 3 for sheet in (right, wrong, neither)]
    assert frames == [False, True, False]
    assert (right != neither).any()


def test_a_few_pixels_are_enlarged_as_they_are():
    board = (np.indices((4, 4)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, -1)
    sheet = drawn(tile(Picture(board)))
    inside = sheet[-24 - 40 : -24 - 20, 24 + 20 : 24 + 40]
    assert set(np.unique(inside).tolist()) <= {0, 255}


def test_a_missing_picture_has_its_reason_in_its_place():
    empty, told = (drawn(tile(Picture(None, reason))) for reason in ("", "no such file"))
    assert empty.shape == told.shape and (empty != told).any()


def test_a_users_settings_of_matplotlib_change_nothing():
    import matplotlib

    before = drawn(plain(0), title="$x$")
    odd = {"text.usetex": True, "font.family": "serif", "image.origin": "lower", "figure.dpi": 30}
    with matplotlib.rc_context(odd):
        assert (drawn(plain(0), title="$x$") == before).all()


def test_only_a_sheet_is_taken_for_one(tmp_path):
    sheet, photo, text = tmp_path / "s.png", tmp_path / "p.png", tmp_path / "t.png"
    content = Content("t", (), (("", (Item(0),)),), 1)
    sheet.write_bytes(draw(content, [plain(0)[0]], side=60))
    Image.new("RGB", (4, 4)).save(photo)
    text.write_text("x")
    assert output_path(sheet, mark=DRAWN, what="a sheet") == sheet
    for path in (photo, text):
        with pytest.raises(PipelineError, match="is there and is not a sheet"):
            output_path(path, mark=DRAWN, what="a sheet")
