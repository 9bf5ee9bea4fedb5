import csv
import os
import shutil

import numpy as np
import pytest
from conftest import make_folder, picture

import pipeline
from pipeline.errors import PipelineError, UsageError
from pipeline.extraction import writer
from pipeline.extraction.extract import extract_table
from pipeline.extraction.options import ExtractOptions
from pipeline.store.cache import Cache
from pipeline.store.table import FeatureTable
from pipeline.trunks.engines import devices

RECIPE = ExtractOptions(precision="fp32")


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "photos")


@pytest.fixture
def cache(tmp_path):
    return Cache.at(tmp_path / "cache")


def by_path(table: FeatureTable) -> dict[str, bytes]:
    return {p: row.tobytes() for p, row in zip(table.paths, table.features, strict=True)}


def test_the_table_has_a_row_for_every_image_under_its_label(folder, cache, fake_trunk):
    done = extract_table(folder, RECIPE, cache)
    table = done.table
    assert (done.images, done.extracted, done.reused, done.bad) == (20, 20, 0, ())
    assert table.features.shape == (20, 11) and table.features.dtype == np.float32
    assert table.classes == ("ants", "bees")
    for path, label in zip(table.paths, table.labels, strict=True):
        assert path.startswith(table.classes[label])
    assert cache.current() == table.path
    assert table.path.name == f"photos--efficientnet_lite0--{table.table_id[:12]}.h5"


def test_a_list_in_memory_gives_the_table_of_its_folder(folder, cache, fake_trunk, monkeypatch):
    whole = pipeline.extract(folder, cache=cache.root)
    monkeypatch.chdir(folder)
    pairs = list(zip(whole.paths, np.array(whole.classes)[whole.labels], strict=True))
    fake_trunk.batches.clear()
    listed = pipeline.extract(pairs, cache=cache.root)
    assert listed.table_id == whole.table_id and fake_trunk.batches == []
    assert listed.provenance.command.startswith("pipeline extract LIST.csv")
    with pytest.raises(UsageError, match="DATA must be"):
        pipeline.extract({"a": 1}, cache=cache.root)


def test_a_second_run_computes_nothing_and_leaves_the_table_alone(folder, cache, fake_trunk):
    first = extract_table(folder, RECIPE, cache)
    stat = first.table.path.stat()
    fake_trunk.batches.clear()
    second = extract_table(folder, RECIPE, cache)
    assert (second.extracted, second.reused) == (0, 20) and fake_trunk.batches == []
    assert second.table.path.stat().st_mtime_ns == stat.st_mtime_ns
    assert not list((cache.root / "runs").glob("*.h5"))


def test_added_images_alone_are_computed(folder, cache, fake_trunk):
    extract_table(folder, RECIPE, cache)
    for n in range(3):
        (folder / "ants" / f"new{n}.png").write_bytes(picture(500 + n))
    done = extract_table(folder, RECIPE, cache)
    assert (done.extracted, done.reused) == (3, 20)


def test_renaming_relabelling_and_resplitting_compute_nothing(folder, cache, fake_trunk):
    before = extract_table(folder, RECIPE, cache).table
    fake_trunk.batches.clear()
    (folder / "ants" / "000.png").rename(folder / "bees" / "moved.png")
    after = extract_table(
        folder, ExtractOptions(precision="fp32", seed=5, val_fraction=0.3), cache
    ).table
    assert fake_trunk.batches == []
    assert by_path(after)["bees/moved.png"] == by_path(before)["ants/000.png"]
    assert after.table_id != before.table_id


def test_a_file_whose_bytes_change_under_the_same_size_and_times_is_computed_anew(
    folder, cache, fake_trunk
):
    path = folder / "ants" / "000.png"
    first, second = picture(1, kind="BMP"), picture(2, kind="BMP")
    assert len(first) == len(second)
    path.write_bytes(first)
    before = extract_table(folder, RECIPE, cache).table
    stat = path.stat()
    path.write_bytes(second)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    done = extract_table(folder, RECIPE, cache)
    assert done.extracted == 1
    assert by_path(done.table)["ants/000.png"] != by_path(before)["ants/000.png"]


def test_another_trunk_other_weights_and_another_size_are_other_rows(folder, cache, fake_trunk):
    fingerprints = {
        extract_table(folder, recipe, cache).table.fingerprint
        for recipe in (
            RECIPE,
            ExtractOptions(precision="bf16"),
            ExtractOptions(precision="fp32", trunk="resnet18"),
            ExtractOptions(precision="fp32", weights="other"),
            ExtractOptions(precision="fp32", image_size=16),
            ExtractOptions(precision="fp32", layer="layer3"),
            ExtractOptions(precision="fp32", pool="max"),
        )
    }
    assert len(fingerprints) == 7


def test_what_does_not_change_the_numbers_does_not_change_the_fingerprint(
    folder, cache, fake_trunk
):
    one = extract_table(folder, RECIPE, cache)
    other = extract_table(
        folder, ExtractOptions(precision="fp32", batch_size=3, workers=1, seed=9, name="x"), cache
    )
    assert one.table.fingerprint == other.table.fingerprint and other.extracted == 0


def test_precision_auto_is_what_the_store_holds(folder, cache, fake_trunk):
    extract_table(folder, ExtractOptions(precision="bf16"), cache)
    done = extract_table(folder, ExtractOptions(), cache)
    assert done.table.provenance.precision == "bf16" and done.extracted == 0


def without_bf16(monkeypatch):
    monkeypatch.setattr(devices, "cpu_has_bf16", lambda: False)


def test_precision_auto_does_not_follow_rows_of_other_images(
    tmp_path, folder, cache, fake_trunk, monkeypatch
):
    without_bf16(monkeypatch)
    extract_table(
        make_folder(tmp_path / "other", start=500), ExtractOptions(precision="bf16"), cache
    )
    done = extract_table(folder, ExtractOptions(device="cpu"), cache)
    assert done.table.provenance.precision == "fp32"
    assert not any("recision" in note for note in done.notes)


def test_precision_auto_follows_rows_that_this_machine_cannot_add_to_only_where_none_is_missing(
    folder, cache, fake_trunk, monkeypatch
):
    without_bf16(monkeypatch)
    extract_table(folder, ExtractOptions(precision="bf16"), cache)
    (folder / "ants" / "new.png").write_bytes(picture(500))
    done = extract_table(folder, ExtractOptions(device="cpu"), cache)
    assert (done.table.provenance.precision, done.extracted) == ("fp32", 21)


def test_precision_auto_says_that_it_followed_the_cache(folder, cache, fake_trunk, monkeypatch):
    without_bf16(monkeypatch)
    first = extract_table(folder, ExtractOptions(device="cpu"), cache)
    assert not any("recision" in note for note in first.notes)
    monkeypatch.setattr(devices, "cpu_has_bf16", lambda: True)
    (folder / "ants" / "new.png").write_bytes(picture(500))
    done = extract_table(folder, ExtractOptions(device="cpu"), cache)
    assert (done.table.provenance.precision, done.extracted) == ("fp32", 1)
    assert "--precision auto is fp32 here: the cache holds 20 of the 21 rows in it." in done.notes
    again = extract_table(folder, ExtractOptions(device="cpu"), cache)
    assert "--precision auto is fp32 here: the cache holds 21 of the 21 rows in it." in again.notes
    without_bf16(monkeypatch)
    again = extract_table(folder, ExtractOptions(device="cpu"), cache)
    assert again.notes == extract_table(folder, RECIPE, cache).notes


def test_equal_files_are_computed_once_and_keep_a_row_each(folder, cache, fake_trunk):
    shutil.copy(folder / "ants" / "000.png", folder / "ants" / "copy.png")
    done = extract_table(folder, RECIPE, cache)
    assert (done.images, done.extracted, done.reused) == (21, 20, 1)
    rows = by_path(done.table)
    assert rows["ants/000.png"] == rows["ants/copy.png"]
    splits = dict(zip(done.table.paths, done.table.splits, strict=True))
    assert splits["ants/000.png"] == splits["ants/copy.png"]


@pytest.mark.parametrize("position", range(8))
def test_a_bad_image_at_any_place_of_a_batch_moves_no_other_row(
    tmp_path, cache, fake_trunk, position
):
    good = make_folder(tmp_path / "good", classes=("a",), each=8)
    bad = make_folder(tmp_path / "bad", classes=("a",), each=8)
    path = bad / "a" / f"{position:03}.png"
    path.write_bytes(path.read_bytes()[:200])
    want = by_path(extract_table(good, RECIPE, cache).table)
    done = extract_table(bad, RECIPE, Cache.at(tmp_path / "other"))
    got = by_path(done.table)
    assert [name for name, _ in done.bad] == [f"a/{position:03}.png"]
    assert (done.images, done.extracted, len(done.bad)) == (8, 7, 1)
    assert got == {name: row for name, row in want.items() if name != f"a/{position:03}.png"}
    again = extract_table(bad, RECIPE, Cache.at(tmp_path / "other"))
    assert (again.extracted, again.bad) == (0, done.bad)


def test_what_is_left_out_is_listed_with_reasons_beside_the_table(folder, cache, fake_trunk):
    (folder / "ants" / "notes.txt").write_text("not a picture")
    (folder / "ants" / "broken.jpg").write_text("not a picture either")
    (folder / "ants" / "empty.png").write_bytes(b"")
    (folder / "ants" / "half.png").write_bytes(picture(77)[:150])
    done = extract_table(folder, RECIPE, cache)
    assert done.listing.parent == done.table.path.parent
    with done.listing.open() as file:
        rows = {row["path"]: row["kind"] for row in csv.DictReader(file)}
    assert rows == {
        "ants/notes.txt": "left out",
        "ants/empty.png": "left out",
        "ants/broken.jpg": "bad image",
        "ants/half.png": "bad image",
    }
    assert {path for path, _ in done.bad} == {"ants/broken.jpg", "ants/half.png"}
    assert done.images == 22


def test_more_bad_images_than_allowed_fail_with_their_names(folder, cache, fake_trunk):
    for n in range(3):
        (folder / "ants" / f"{n:03}.png").write_bytes(picture(n)[:100])
    with pytest.raises(PipelineError, match=r"3 images.*--max-bad allows 2.*ants/000.png"):
        extract_table(folder, ExtractOptions(precision="fp32", max_bad=2), cache)
    assert len(extract_table(folder, ExtractOptions(precision="fp32", max_bad=3), cache).bad) == 3
    with pytest.raises(PipelineError, match="--max-bad allows 0"):
        extract_table(folder, ExtractOptions(precision="fp32", max_bad=0), cache)


def test_max_bad_counts_the_files_that_the_list_counts(folder, cache, fake_trunk):
    half = picture(7)[:100]
    for name in ("one", "two"):
        (folder / "ants" / f"{name}.png").write_bytes(half)
    with pytest.raises(PipelineError, match=r"2 images.*--max-bad allows 1.*Fix or remove them"):
        extract_table(folder, ExtractOptions(precision="fp32", max_bad=1), cache)
    assert len(extract_table(folder, ExtractOptions(precision="fp32", max_bad=2), cache).bad) == 2


def test_bad_images_of_other_data_do_not_count(tmp_path, folder, cache, fake_trunk):
    (make_folder(tmp_path / "other", start=500) / "ants" / "bad.png").write_bytes(picture(7)[:100])
    assert len(extract_table(tmp_path / "other", RECIPE, cache).bad) == 1
    done = extract_table(folder, ExtractOptions(precision="fp32", max_bad=0), cache)
    assert done.bad == () and done.extracted == 20


def test_a_folder_of_bad_images_alone_makes_no_table(tmp_path, cache, fake_trunk):
    (tmp_path / "x" / "a").mkdir(parents=True)
    (tmp_path / "x" / "a" / "1.png").write_bytes(picture(1)[:100])
    with pytest.raises(PipelineError, match=r"No image .* could be decoded.*a/1.png"):
        extract_table(tmp_path / "x", RECIPE, cache)
    assert cache.table_files() == [] and cache.current() is None


def test_rehash_reads_everything_and_tries_bad_images_again(folder, cache, fake_trunk, monkeypatch):
    from pipeline.errors import BadImage
    from pipeline.images.decoding import crops

    real = crops.picture
    half = picture(333)

    def refuse(data, **options):
        if data == half:
            raise BadImage("an older decoder")
        return real(data, **options)

    (folder / "ants" / "000.png").write_bytes(half)
    with monkeypatch.context() as patch:
        patch.setattr(crops, "picture", refuse)
        assert len(extract_table(folder, RECIPE, cache).bad) == 1
    assert len(extract_table(folder, RECIPE, cache).bad) == 1
    done = extract_table(folder, ExtractOptions(precision="fp32", rehash=True), cache)
    assert (done.bad, done.extracted) == ((), 1)
    assert extract_table(folder, RECIPE, cache).extracted == 0


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_shard_is_told_and_computed_again_alone(folder, cache, fake_trunk, damage):
    first = extract_table(folder, ExtractOptions(precision="fp32", batch_size=4), cache)
    want = by_path(first.table)
    for n in range(4):
        (folder / "bees" / f"new{n}.png").write_bytes(picture(600 + n))
    second = extract_table(folder, RECIPE, cache)
    store = cache.rows(first.table.fingerprint)
    name = first.table.shards[0]
    data = bytearray(store.path(name).read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 4
        store.path(name).write_bytes(data)
    elif damage == "truncate":
        store.path(name).write_bytes(data[:-7])
    else:
        store.path(name).unlink()

    from pipeline.store import upkeep

    verdict = upkeep.verify(cache)
    assert any(name in problem for problem in verdict.problems)
    assert verdict.repairs[0].startswith("pipeline extract")
    done = extract_table(folder, RECIPE, cache)
    assert (done.extracted, done.reused) == (20, 4)
    assert by_path(done.table) == by_path(second.table)
    assert {path: by_path(done.table)[path] for path in want} == want
    assert upkeep.verify(cache).problems == {}


def test_a_damaged_table_is_made_again_from_its_shards(folder, cache, fake_trunk):
    table = extract_table(folder, RECIPE, cache).table
    data = bytearray(table.path.read_bytes())
    data[-3] ^= 1
    table.path.write_bytes(data)
    done = extract_table(folder, RECIPE, cache)
    assert done.extracted == 0 and FeatureTable.open(table.path).table_id == table.table_id


def test_a_damaged_memo_costs_time_alone(folder, cache, fake_trunk):
    extract_table(folder, RECIPE, cache)
    cache.memo.write_bytes(b"not a database" * 100)
    assert extract_table(folder, RECIPE, cache).extracted == 0


def test_a_system_error_while_reading_is_no_bad_image(folder, cache, fake_trunk, monkeypatch):
    import builtins

    from pipeline.images.decoding import reading

    def fail(*args, **options):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(reading, "open", fail, raising=False)
        with pytest.raises(PipelineError, match=r"Cannot read .*Too many open files"):
            extract_table(folder, RECIPE, cache)
    assert builtins.open is open
    done = extract_table(folder, RECIPE, cache)
    assert done.bad == () and done.extracted == 20


def test_fractions_for_data_with_splits_of_their_own_are_refused(tmp_path, cache, fake_trunk):
    make_folder(tmp_path / "x" / "train", each=3)
    make_folder(tmp_path / "x" / "val", each=2, start=50)
    with pytest.raises(UsageError, match=r"data without splits; .* has train, val"):
        extract_table(tmp_path / "x", ExtractOptions(val_fraction=0.2), cache)
    assert extract_table(tmp_path / "x", RECIPE, cache).table.split_counts == {"train": 6, "val": 4}


def test_unlabelled_images_make_a_table_for_prediction(tmp_path, cache, fake_trunk):
    (tmp_path / "x").mkdir()
    for n in range(3):
        (tmp_path / "x" / f"{n}.png").write_bytes(picture(n))
    table = extract_table(tmp_path / "x", RECIPE, cache).table
    assert table.labels.tolist() == [-1] * 3 and table.classes == ()


def test_all_faults_of_the_options_come_in_one_message():
    recipe = ExtractOptions(image_size=0, precision="bf61", layer="layr4", name="a/b", max_bad=-1)
    with pytest.raises(UsageError) as error:
        recipe.check()
    for part in (
        "--image-size 0 is below 1",
        "--precision 'bf61' is not one of auto, fp32, tf32, bf16, fp16. Did you mean bf16?",
        "Did you mean layer4",
        "--name 'a/b' cannot be part of a file's name; try 'a-b'",
        "--max-bad -1 is below 0",
    ):
        assert part in str(error.value)


def test_a_shard_ends_where_its_rows_are_many_bytes(folder, cache, fake_trunk, monkeypatch):
    whole = extract_table(folder, RECIPE, cache)
    assert len(whole.table.shards) == 1
    monkeypatch.setattr(writer, "SHARD_BYTES", 2 * 4 * 11 * 4)  # of two batches
    done = extract_table(folder, RECIPE, Cache.at(cache.root / "other"))
    assert len(done.table.shards) == 3
    assert done.table.features.tobytes() == whole.table.features.tobytes()
