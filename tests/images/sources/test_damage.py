"""Archives that are cut off, broken or hostile end in a sentence; what is whole of them stays."""

import gzip
import io
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from packing import as_parquet, as_tar, as_zip
from photos import paint
from PIL import Image

from pipeline.errors import PipelineError
from pipeline.images.datasets.scan import scan
from pipeline.images.digest import digest_all
from pipeline.images.sources import files as sources_files
from pipeline.images.sources import members, tars


def png(seed: int = 0, side: int = 40) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def photos(tmp_path) -> Path:
    return paint(tmp_path / "photos", each=4)


def read(place):
    """Return the set, and path → digest or reason of each of its images."""
    images = scan(str(place))
    found = digest_all(images.root, images.paths, None)
    return images, {
        path: one.digest or one.reason for path, one in zip(images.paths, found, strict=True)
    }


def tar_of(place: Path, entries, mode="w") -> Path:
    """Write (name or TarInfo, bytes) into a tar."""
    with tarfile.open(place, mode) as tar:
        for name, data in entries:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return place


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


GOOD = [("a/1.png", png(1)), ("a/2.png", png(2)), ("b/1.png", png(3)), ("b/2.png", png(4))]


def whole(place, left=4):
    images, found = read(place)
    assert sum(isinstance(one, bytes) for one in found.values()) == left
    return images, " ".join(images.notes)


def test_a_tar_that_is_cut_off_keeps_what_is_whole_and_names_the_member(tmp_path):
    place = tar_of(tmp_path / "x.tar", GOOD)
    whole(place)
    with tarfile.open(place) as tar:
        os.truncate(place, tar.getmember("b/1.png").offset_data + 100)
    images, notes = whole(place, 2)
    assert ("b/1.png", members.CUT_OFF) in images.left_out
    assert f"{place} is damaged: it breaks off after 'b/1.png'" in notes
    assert "2 files of it can be read" in notes


def test_a_tar_without_an_end_mark_may_be_cut_off(tmp_path):
    place = tar_of(tmp_path / "x.tar", GOOD)
    with tarfile.open(place) as tar:
        last = tar.getmembers()[-1]
        end = last.offset_data + (last.size + 511) // 512 * 512
    os.truncate(place, end)
    assert "it has no end mark after 'b/2.png': perhaps it is cut off" in whole(place)[1]


def test_after_a_damaged_header_in_a_tar_the_next_members_are_read(tmp_path):
    place = tar_of(tmp_path / "x.tar", GOOD)
    with tarfile.open(place) as tar:
        offset = tar.getmembers()[1].offset
    with place.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 512)
    images, notes = whole(place, 3)
    assert "it is damaged after 'a/1.png'" in notes and images.classes == ("a", "b")


def test_a_compressed_tar_that_is_cut_off_keeps_what_is_whole(tmp_path):
    place = tar_of(tmp_path / "x.tar.gz", GOOD, "w:gz")
    os.truncate(place, place.stat().st_size * 2 // 3)
    _, notes = whole(place, 2)
    assert "its compressed data end or break" in notes and "breaks off after 'b/1.png'" in notes


def test_what_is_no_archive_is_told_by_its_name(tmp_path):
    for name, title in (("x.tar", "no tar"), ("x.zip", "no ZIP"), ("x.parquet", "no whole Parquet"),
                        ("x.arrow", "no whole Arrow")):  # fmt: skip
        (tmp_path / name).write_bytes(b"nothing of the kind" * 100)
        with pytest.raises(PipelineError, match=f"{name} is {title}"):
            scan(tmp_path / name)
    (tmp_path / "empty.zip").write_bytes(b"")
    with pytest.raises(PipelineError, match=r"empty\.zip is no ZIP"):
        scan(tmp_path / "empty.zip")


def test_one_lost_archive_of_several_costs_only_itself(tmp_path):
    for number in range(3):
        tar_of(tmp_path / f"s-{number}.tar", [(f"{n[:-4]}-{number}.png", d) for n, d in GOOD])
    (tmp_path / "s-1.tar").write_bytes(b"x" * 2000)
    images, notes = whole(tmp_path / "s-{0..2}.tar", 8)
    assert "WARNING: 1 of 3 archives cannot be read" in notes and "s-1.tar is no tar" in notes
    assert ("s-1.tar", "an archive that cannot be read") in images.left_out


def test_what_must_not_be_followed_in_a_tar_is_left_out(tmp_path):
    bad = [
        ("../out.png", png(5)),
        ("/etc/a.png", png(6)),
        (special("a/link.png", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (special("a/hard.png", tarfile.LNKTYPE, "a/1.png"), b""),
        (special("a/pipe.png", tarfile.FIFOTYPE), b""),
        (special("a/disk.png", tarfile.BLKTYPE), b""),
        ("b/inner.zip", b"PK"),
    ]
    images, notes = whole(tar_of(tmp_path / "x.tar", GOOD + bad))
    reasons = dict(images.left_out)
    assert reasons["../out.png"] == reasons["etc/a.png"] == members.ESCAPES
    assert reasons["a/link.png"] == reasons["a/hard.png"] == members.LINK
    assert reasons["a/pipe.png"] == reasons["a/disk.png"] == members.NOT_A_FILE
    assert reasons["b/inner.zip"] == members.NESTED
    assert "Left out of " in notes and "7 members" in notes


def test_of_members_of_one_name_the_last_counts_and_the_others_are_told(tmp_path):
    place = tar_of(tmp_path / "x.tar", [("a/1.png", png(9)), *GOOD])
    images, found = read(place)
    assert found["a/1.png"] == digest_all("", [str(_file(tmp_path, GOOD[0][1]))], None)[0].digest
    assert ("a/1.png", members.DUPLICATE) in images.left_out


def _file(home: Path, data: bytes) -> Path:
    (home / "one.png").write_bytes(data)
    return home / "one.png"


def test_a_tar_that_unpacks_to_far_more_than_its_size_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(tars, "_FLOOR", 1 << 20)
    place = tar_of(tmp_path / "x.tar.gz", [*GOOD, ("b/bomb.bmp", bytes(64 << 20))], "w:gz")
    images, notes = whole(place)
    assert "unpacks to more than 200 times its size" in notes
    assert ("b/bomb.bmp", members.CUT_OFF) in images.left_out


def test_a_full_disk_where_a_tar_is_unpacked_is_named(tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sources_files.tempfile, "TemporaryFile", lambda **options: Full())
    with pytest.raises(PipelineError, match=r"temporary file in .*No space left.*TMPDIR"):
        scan(tar_of(tmp_path / "x.tar.gz", GOOD, "w:gz"))


def test_a_zip_that_is_cut_off_keeps_what_is_whole(photos, tmp_path):
    place = as_zip(photos, tmp_path / "x.zip")
    whole(place, 16)
    os.truncate(place, place.stat().st_size // 2)
    _, notes = whole(place, 8)
    assert "its directory at the end is missing: it is cut off after 'photos/" in notes


def test_a_zip_that_was_streamed_and_cut_off_keeps_what_is_whole(tmp_path):
    class Pipe(io.RawIOBase):
        def __init__(self):
            self.data = bytearray()

        def writable(self):
            return True

        def write(self, data):
            self.data += data
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in GOOD:
            out.writestr(name, data)
    assert struct.unpack_from("<H", pipe.data, 6)[0] & 8  # the sizes follow the data
    start = pipe.data.index(b"PK\1\2")
    (tmp_path / "x.zip").write_bytes(pipe.data[: start - 30])
    whole(tmp_path / "x.zip", 3)


def test_a_zip_member_with_a_flipped_bit_is_left_out_alone(tmp_path):
    place = tmp_path / "x.zip"
    with zipfile.ZipFile(place, "w") as out:
        for name, data in GOOD:
            out.writestr(name, data)
    data = bytearray(place.read_bytes())
    data[data.index(GOOD[1][1]) + 200] ^= 1
    place.write_bytes(data)
    _, found = read(place)
    assert found["a/2.png"] == members.DAMAGED
    assert sum(isinstance(one, bytes) for one in found.values()) == 3


def test_what_must_not_be_read_in_a_zip_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(members, "LEAST_BOMB", 1 << 20)
    place = tmp_path / "x.zip"
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in [*GOOD, ("a\\..\\..\\x.png", png(7)), ("b/x.tar.gz", b"x")]:
            out.writestr(name, data)
        out.writestr("b/bomb.png", bytes(8 << 20))
        link = zipfile.ZipInfo("a/link.png")
        link.external_attr = 0o120777 << 16
        out.writestr(link, "/etc/passwd")
        out.writestr("b/secret.png", png(8))
    data = bytearray(place.read_bytes())
    for mark, flags in ((b"PK\1\2", 8), (b"PK\3\4", 6)):  # mark the last one as encrypted
        at = data.rindex(b"b/secret.png", 0, data.rindex(mark) + 60 if mark == b"PK\3\4" else None)
        at = data.rindex(mark, 0, at)
        data[at + flags] |= 1
    place.write_bytes(data)
    images, _ = whole(place)
    reasons = dict(images.left_out)
    assert reasons["a/../../x.png"] == members.ESCAPES and reasons["b/x.tar.gz"] == members.NESTED
    assert reasons["b/bomb.png"] == members.BOMB and reasons["a/link.png"] == members.LINK
    assert reasons["b/secret.png"] == members.ENCRYPTED


def test_a_parquet_file_with_a_broken_row_group_keeps_the_others(photos, tmp_path):
    place = as_parquet(photos, tmp_path / "x.parquet", rows=4)
    page = pyarrow.parquet.ParquetFile(place).metadata.row_group(1).column(0).data_page_offset
    with place.open("r+b") as file:
        file.seek(page)
        file.write(b"\xff" * 40)
    images, found = read(place)
    good = [path for path, one in found.items() if isinstance(one, bytes)]
    assert len(good) == 12
    # where the statistics say that each row has bytes, the fault shows when these are read
    lost = {**dict(images.left_out), **{path: found[path] for path in found if path not in good}}
    names = {path.rpartition("/")[2]: reason for path, reason in lost.items()}
    assert names == dict.fromkeys(("4", "5", "6", "7"), members.DAMAGED)
    if images.left_out:
        notes = " ".join(images.notes)
        assert "rows 4 to 7 cannot be read" in notes and "12 files of it can be read" in notes


def test_a_parquet_file_that_is_cut_off_is_refused_with_a_sentence(photos, tmp_path):
    place = as_parquet(photos, tmp_path / "x.parquet")
    os.truncate(place, place.stat().st_size - 20)
    with pytest.raises(PipelineError, match=r"x\.parquet is no whole Parquet file"):
        scan(place)


def test_an_archive_that_changes_between_two_reads_is_opened_anew(photos, tmp_path):
    place = as_tar(photos, tmp_path / "x.tar")
    before = read(place)[1]
    tar_of(place, GOOD)
    assert set(read(place)[1]) == {name for name, _ in GOOD} != set(before)


def test_an_empty_archive_says_so(tmp_path):
    with pytest.raises(PipelineError, match="holds no files that can be taken"):
        scan(tar_of(tmp_path / "x.tar", []))
    with gzip.open(tmp_path / "y.tar.gz", "wb"):
        pass
    with pytest.raises(PipelineError, match=r"y\.tar\.gz"):
        scan(tmp_path / "y.tar.gz")
