"""What is remembered, what is not stored, and what other processes read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from packing import as_parquet, as_tar, as_webdataset, as_zip, files, in_memory, served
from photos import FAST, OPTIONS, Heard, paint
from PIL import Image

import pipeline
from pipeline.errors import PipelineError, UsageError
from pipeline.extraction import scan as gathering
from pipeline.extraction.extract import extract_table
from pipeline.extraction.options import ExtractOptions
from pipeline.images.datasets.scan import scan
from pipeline.images.digest import digest_all
from pipeline.images.sources import fetch, shelf
from pipeline.store.cache import Cache


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return paint(tmp_path_factory.mktemp("reading") / "photos", each=6)


def kept(home: Path) -> Cache:
    (home / "cache").mkdir()
    return Cache(home / "cache")


def aged(monkeypatch):
    """Let the clock be past the time in which a file may change without its times."""
    monkeypatch.setattr(shelf, "RACY_NS", -(10**12))


@pytest.mark.parametrize("pack", [as_tar, as_zip, as_parquet])
def test_an_archive_that_is_known_is_not_opened_again(pack, photos, tmp_path, monkeypatch):
    aged(monkeypatch)
    suffix = {"as_tar": "tar", "as_zip": "zip", "as_parquet": "parquet"}[pack.__name__]
    place, cache = pack(photos, tmp_path / f"x.{suffix}"), kept(tmp_path)
    before = gathering.of_data(str(place), cache, Heard())

    def opened(address):
        raise AssertionError(address)

    monkeypatch.setattr(shelf._SHELF, "_open", type(shelf._SHELF._open)())
    monkeypatch.setattr(shelf, "ARCHIVES", dict.fromkeys(shelf.ARCHIVES, opened))
    again = gathering.of_data(str(place), cache, Heard())
    assert again.digests == before.digests and again.notes == before.notes
    with pytest.raises(AssertionError):
        gathering.of_data(str(place), cache, Heard(), rehash=True)
    place.touch()
    with pytest.raises(AssertionError):
        gathering.of_data(str(place), cache, Heard())


def test_many_compressed_archives_are_unpacked_once_to_list_and_hash_them(
    photos, tmp_path, monkeypatch
):
    aged(monkeypatch)
    every = files(photos)
    for number in range(6):
        (tmp_path / f"p{number}" / "a").mkdir(parents=True)
        for path in every[number::6]:
            name = "-".join(path.relative_to(photos).parts)
            (tmp_path / f"p{number}" / "a" / name).write_bytes(path.read_bytes())
        as_tar(tmp_path / f"p{number}", tmp_path / f"s-{number}.tar.gz", "w:gz")
    opened = []
    make = shelf.ARCHIVES["tar"]
    monkeypatch.setitem(shelf.ARCHIVES, "tar", lambda a: opened.append(a) or make(a))
    images = gathering.of_data(str(tmp_path / "s-{0..5}.tar.gz"), kept(tmp_path), Heard())
    assert len(images.digests) == len(every) and len(opened) == 6


def test_a_web_address_with_a_password_leaves_no_trace(photos, tmp_path):
    as_tar(photos, tmp_path / "photos.tar")
    with served(tmp_path) as address:
        secret = address.replace("http://", "http://me:sesame@") + "/photos.tar?token=sesame"
        done = extract_table(secret, ExtractOptions(**OPTIONS), Cache.at(tmp_path / "cache"))
    assert done.table.provenance.root == f"{address}/photos.tar"
    found = [
        path for path in (tmp_path / "cache").rglob("*")
        if path.is_file() and b"sesame" in path.read_bytes()
    ]  # fmt: skip
    assert not found and "sesame" not in json.dumps(done.to_json())
    with pytest.raises(PipelineError) as caught:
        scan(secret)  # nobody serves it any more
    assert "sesame" not in str(caught.value)


def test_a_server_that_is_gone_is_no_missing_image(photos):
    with served(photos) as address:
        images = scan(address)
        assert len(images.paths) == 24
        missing = digest_all("", [f"{address}/train/blue/99.png"], None)
        assert [one.reason for one in missing] == ["vanished"]
    with pytest.raises(PipelineError, match="may be intact"):
        digest_all(images.root, images.paths, None)


def test_parts_and_processes_read_from_an_archive(photos, tmp_path):
    place = str(as_tar(photos, tmp_path / "x.tar"))
    options = {**OPTIONS, "batch_size": 4}
    for part in ("1/2", "2/2"):
        pipeline.extract_part(place, part, cache=tmp_path / "cache", **options)
    done = extract_table(place, ExtractOptions(**options), Cache.at(tmp_path / "cache"))
    assert (done.extracted, done.reused) == (0, 24)


def test_bytes_in_memory_are_kept_in_the_cache_and_are_the_same_set(photos, tmp_path):
    folder = scan(str(photos))

    def rows():
        for path in files(photos):
            yield path.read_bytes(), path.parts[-2], path.parts[-3]

    table = pipeline.extract(rows(), cache=tmp_path / "cache", **OPTIONS)
    digests = digest_all(folder.root, folder.paths, None)
    assert table.digests == tuple(one.digest.hex() for one in digests)
    assert (table.classes, table.splits) == (folder.classes, folder.splits)
    assert Path(table.provenance.root).parent == (tmp_path / "cache" / "data").resolve()
    again = pipeline.extract(rows(), cache=tmp_path / "cache", **OPTIONS)
    assert again.provenance.root == table.provenance.root
    with pytest.raises(UsageError, match="there is 3 in it"):
        pipeline.extract([(b"x", "a"), 3], cache=tmp_path / "cache", **OPTIONS)


def test_a_list_may_name_members_of_archives_and_addresses_elsewhere(photos, tmp_path):
    as_tar(photos, tmp_path / "x.tar")
    home = in_memory(photos, tmp_path.name)
    names = [f"x.tar/{path.relative_to(photos)}" for path in files(photos)[:4]]
    names += [f"{home}/{path.relative_to(photos)}" for path in files(photos)[4:8]]
    lines = "".join(f"{name},{name.split('/')[-2]}\n" for name in names)
    (tmp_path / "list.csv").write_text(f"path,label\n{lines}")
    images = scan(tmp_path / "list.csv")
    found = digest_all(images.root, images.paths, None)
    whole = digest_all("", [str(path) for path in files(photos)[:8]], None)
    assert [one.digest for one in found] == [one.digest for one in whole]
    table = pipeline.extract(tmp_path / "list.csv", cache=tmp_path / "cache", **OPTIONS)
    assert len(table.labels) == 8


def test_samples_of_webdataset_have_the_class_that_is_said_beside_them(photos, tmp_path):
    images = scan(as_webdataset(photos, tmp_path / "shards"))
    assert images.classes == ("blue", "red") and not images.left_out
    assert images.splits is not None and set(images.splits) == {"train", "val"}


def test_shards_that_are_not_there_are_named(photos, tmp_path):
    as_webdataset(photos, tmp_path / "shards")
    with pytest.raises(UsageError, match=r"2 of the 5 files .* are not there: .*shard-003\.tar"):
        scan(tmp_path / "shards" / "shard-{000..004}.tar")


def test_a_missing_library_is_named_with_its_extra(tmp_path):
    code = (
        "import sys\n"
        "for name in ('pyarrow', 'fsspec', 'zstandard'): sys.modules[name] = None\n"
        "from pipeline.images.datasets.scan import scan\n"
        "from pipeline.errors import PipelineError\n"
        f"for data in ({str(tmp_path / 'x.parquet')!r}, 's3://b/x', "
        f"{str(tmp_path / 'x.tar.zst')!r}):\n"
        "    try: scan(data)\n"
        "    except PipelineError as error: print(error)\n"
    )
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    (tmp_path / "x.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    parquet, remote, zst = done.stdout.splitlines()
    assert "headstart[parquet]" in parquet and "headstart[remote]" in remote and "zstd" in zst


def test_scanning_a_folder_or_a_tar_imports_no_library_for_other_forms(photos, tmp_path):
    place = as_tar(photos, tmp_path / "x.tar")
    code = (
        "import sys\nfrom pipeline.images.datasets.scan import scan\n"
        f"scan({str(photos)!r}); scan({str(place)!r})\n"
        "print([n for n in ('pyarrow', 'fsspec', 'aiohttp', 'zstandard', 'torch', 'PIL') "
        "if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_part_that_a_server_does_not_give_is_no_other_bytes(photos, tmp_path):
    as_zip(photos, tmp_path / "photos.zip")
    with served(tmp_path, parts=False) as address:
        found = fetch.status(f"{address}/photos.zip")
        assert not fetch.gives_parts(f"{address}/photos.zip", found)
        with pytest.raises(PipelineError, match="were asked for"):
            fetch.part(f"{address}/photos.zip", 10, 20)


@pytest.mark.slow
def test_what_works_on_a_table_reads_its_images_from_an_archive(photos, tmp_path):
    place, cache = as_tar(photos, tmp_path / "x.tar.gz", "w:gz"), tmp_path / "cache"
    table = pipeline.extract(place, cache=cache, **OPTIONS)
    head = pipeline.fit_head(table, clf="logreg", cache=cache)
    model = pipeline.finetune(head, live=True, cache=cache, **FAST)
    assert pipeline.evaluate(place, model, cache=cache)
    assert pipeline.audit(table, cache=cache)
    moved = tmp_path / "moved.zip"
    as_zip(photos, moved)
    place.unlink()
    with pytest.raises(PipelineError, match="are missing"):
        pipeline.evaluate(table, model, cache=cache)
    assert pipeline.evaluate(as_tar(photos, tmp_path / "y.tar"), model, cache=cache)
    place = as_tar(photos, tmp_path / "x.tar")
    assert pipeline.evaluate(table, model, data=str(place), cache=cache)


@pytest.mark.parametrize(
    ("inside", "splits"),
    [("photos/train", {"train"}), ("train", {"train"}), ("photos", None), ("", None)],
)
def test_folders_around_a_data_set_in_an_archive_are_read_as_on_disk(tmp_path, inside, splits):
    for name in ("a/1.png", "b/2.png"):
        picture = tmp_path / "all" / inside / name
        picture.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(picture)
    found = scan(as_tar(tmp_path / "all", tmp_path / "x.tar"))
    assert found.classes == ("a", "b")
    assert (set(found.splits) if found.splits else None) == splits
