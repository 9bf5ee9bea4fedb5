"""The lines in an export's README prepare a picture as `predict` does, or refuse it."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image
from profiles import PROPHOTO, SRGB_BYTES, cmyk_profile, grey_profile

from pipeline.errors import BadImage, PipelineError
from pipeline.images.decoding.decode import decode
from pipeline.images.decoding.quiet import quiet
from pipeline.images.preprocess import Preprocess
from pipeline.inference.exporting.printed import check_lines, odd_pictures, run_lines
from pipeline.inference.exporting.readme import OPEN, fit_lines

HEAD = "import io, sys, numpy as np\nfrom PIL import Image, ImageChops, ImageCms, ImageOps\n"
PIXELS = f"{HEAD}{OPEN}found = np.asarray(image).astype(int)\n"
CARELESS = (
    f'{HEAD}image = ImageOps.exif_transpose(Image.open(sys.argv[1])).convert("RGB")\n'
    "found = np.asarray(image).astype(int)\n"
)


def wanted(files):
    return np.stack([pixels(data) for data in files])


def pixels(data):
    with quiet():
        return decode(data).permute(1, 2, 0).numpy()


def chunked(image, name, data):
    """Return a PNG with a chunk behind its header."""
    made = io.BytesIO()
    image.save(made, "PNG")
    whole = made.getvalue()
    crc = struct.pack(">I", zlib.crc32(name + data))
    return whole[:33] + struct.pack(">I", len(data)) + name + data + crc + whole[33:]


def png(kind, bits, width, *, key=b"", palette=b""):
    """Return a PNG of noise: kind 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha."""

    def chunk(name, data):
        crc = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + crc

    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    length = (width * samples * bits + 7) // 8
    rows = np.random.default_rng(bits).integers(0, 256, (8, length), np.uint8)
    header = struct.pack(">IIBBBBB", width, 8, bits, kind, 0, 0, 0)
    parts = [(b"IHDR", header), (b"PLTE", palette), (b"tRNS", key)]
    parts += [(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(name, data) for name, data in [*parts, (b"IEND", b"")] if data or name == b"IEND"
    )


def further():
    """Return more kinds of files: depths and keys of PNGs, orientations, animations, formats."""
    colours = bytes(range(48))
    files = {
        f"PNG {kind} {bits} {key!r}": png(kind, bits, 12, key=key, palette=colours * (kind == 3))
        for kind, bits, key in [
            (0, 1, b""), (0, 2, b"\0\1"), (0, 4, b"\0\1"), (0, 8, b"\0\1"), (0, 16, b""),
            (2, 8, b"\0" * 6), (2, 16, b""), (2, 16, b"\0" * 6), (3, 2, b""), (3, 4, b"\0\x80"),
            (4, 8, b""), (4, 16, b""), (6, 8, b""), (6, 16, b""),
        ]
    }  # fmt: skip
    noise = np.random.default_rng(0).integers(0, 256, (10, 12, 4), np.uint8)
    clear = Image.fromarray(noise)
    for orientation in range(1, 9):
        for form in ("JPEG", "PNG", "TIFF", "WEBP"):
            exif = Image.Exif()
            exif[0x0112] = orientation
            made = io.BytesIO()
            clear.convert("RGB").save(made, form, exif=exif)
            files[f"{form} turned {orientation}"] = made.getvalue()
    for form in ("GIF", "PNG", "WEBP"):
        made = io.BytesIO()
        flipped = clear.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        clear.save(made, form, save_all=True, append_images=[flipped])
        files[f"{form} moving"] = made.getvalue()
    for mode in ("1", "L", "CMYK", "LAB", "I"):
        made = io.BytesIO()
        image = Image.new("LAB", (9, 8), (90, 3, 200)) if mode == "LAB" else clear.convert(mode)
        image.save(made, "TIFF")
        files[f"TIFF {mode}"] = made.getvalue()
    profiled = {"sRGB": SRGB_BYTES, "a broken": SRGB_BYTES[:200], "a wide": PROPHOTO,
                "a grey": grey_profile(1.0), "a CMYK": cmyk_profile()}  # fmt: skip
    for name, profile in profiled.items():
        for form, mode in [
            *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
            *(("JPEG", mode) for mode in ("L", "RGB", "CMYK")),
            ("TIFF", "RGBA"),
        ]:
            made = io.BytesIO()
            clear.convert(mode).save(made, form, icc_profile=profile)
            files[f"{form} {mode} with {name} profile"] = made.getvalue()
    files["PNG with cICP"] = chunked(clear.convert("RGB"), b"cICP", bytes([12, 13, 0, 1]))
    files["PNG with gAMA"] = chunked(clear.convert("RGB"), b"gAMA", struct.pack(">I", 100000))
    ten = Image.fromarray(noise[..., 0].astype(np.uint16) * 4)
    files["PNG 10 in 16"] = chunked(ten, b"sBIT", bytes([10]))
    for name, samples, how in (
        ("16-bit planes", noise[..., :3].transpose(2, 0, 1).astype(np.uint16) << 8,
         {"planarconfig": "separate", "photometric": "rgb"}),
        ("signed", noise[..., 0].view(np.int8), {"photometric": "minisblack"}),
        ("16-bit", noise[..., :3].astype(np.uint16), {"photometric": "rgb"}),
    ):  # fmt: skip
        made = io.BytesIO()
        tifffile.imwrite(made, samples, **how)
        files[f"TIFF of {name}"] = made.getvalue()
    return files


def test_what_is_printed_makes_the_pixels_of_predict_of_every_kind_of_file_or_refuses(tmp_path):
    files = {**odd_pictures(16), **further()}
    given = run_lines(PIXELS, tmp_path, files)
    taken = {kind for kind, answer in given.items() if not isinstance(answer, str)}
    for kind, data in files.items():
        try:
            right = pixels(data)
        except BadImage:
            assert kind not in taken
            continue
        if kind in taken:
            np.testing.assert_array_equal(given[kind], right, err_msg=kind)
        else:
            assert "save it as 8-bit RGB" in given[kind]
    assert {"RGBA", "grey with transparency", "a palette with transparency", "CMYK"} <= taken
    assert {kind for kind in files if " turned " in kind or " profile" in kind} <= taken


@pytest.mark.parametrize("size", [(2, 3000), (900, 3), (40, 57), (57, 40)])
@pytest.mark.parametrize("squash", [False, True])
def test_what_is_printed_resizes_and_crops_as_predict_does_strips_too(tmp_path, size, squash):
    fit = Preprocess(36, 32, "bicubic", squash=squash)
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    waves = np.stack([np.sin(x / 9), np.sin(y / 9), np.sin((x + y) / 7)], 2)
    made = io.BytesIO()
    Image.fromarray((waves * 99 + 128).astype(np.uint8)).save(made, "PNG")
    code = (
        f"{HEAD}{OPEN}info = {{'preprocess': {fit.to_json()}}}\n{fit_lines(fit.to_json())}"
        "found = np.asarray(image).astype(int)\n"
    )
    found = run_lines(code, tmp_path, {"it": made.getvalue()})["it"]
    with quiet():
        right = fit.apply(decode(made.getvalue())).permute(1, 2, 0).numpy()
    assert np.abs(found - right).max() <= 2


def test_lines_that_drop_transparency_or_clip_samples_are_found_out(tmp_path):
    for kind in ("RGBA", "16-bit grey", "floating point", "a palette with transparency"):
        given = run_lines(CARELESS, tmp_path, {kind: odd_pictures(16)[kind]})
        assert np.abs(given[kind] - wanted([odd_pictures(16)[kind]])[0]).max() > 2
    with pytest.raises(PipelineError, match="other probabilities on a picture with"):
        check_lines(CARELESS, tmp_path, 16, wanted, allowed=1e-3)


def test_the_check_says_which_kinds_come_out_the_same_and_which_are_refused(tmp_path):
    done = check_lines(PIXELS, tmp_path, 16, wanted, allowed=0)
    assert sorted([*done["same"], *done["refused"]]) == sorted(odd_pictures(16))
    assert "RGBA" in done["same"] and "floating point" in done["refused"]


def test_lines_that_need_this_package_or_fail_are_told(tmp_path):
    with pytest.raises(PipelineError, match=r"README prints fail: .*import of pipeline"):
        check_lines("import pipeline\n" + PIXELS, tmp_path, 16, wanted, allowed=0)
    with pytest.raises(PipelineError, match="README prints fail: ZeroDivisionError"):
        check_lines("1 / 0", tmp_path, 16, wanted, allowed=0)
