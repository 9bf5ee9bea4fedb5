"""A feature that is not finite is an image's fault, until it is that of many."""

import numpy as np
import pytest
from conftest import make_folder

from pipeline.errors import PipelineError
from pipeline.extraction import plan, writer
from pipeline.extraction.extract import extract_table
from pipeline.extraction.options import ExtractOptions
from pipeline.store.cache import Cache
from pipeline.trunks.engines.finite import FiniteRows

RECIPE = ExtractOptions(precision="fp32")


def poison(monkeypatch, engine, folder, *names, value=np.inf):
    """Let the engine give a row that is not finite for these pictures."""
    from pipeline.images.decoding.loader import load
    from pipeline.images.preprocess import Preprocess

    files = [(str(folder / name), None, 0) for name in names]
    batches = load(files, Preprocess(10, 8), batch_size=4, workers=1)
    crops = [batch.crops[n].numpy().tobytes() for batch in batches for n in range(batch.count)]
    run = type(engine).run

    def poisoned(self, batches):
        taken = []

        def each():
            for batch in batches:
                taken.append(batch)
                yield batch

        for rows in run(self, each()):
            batch = taken.pop(0)
            for n, crop in enumerate(batch):
                if crop.numpy().tobytes() in crops:
                    rows[n, 1] = value
            yield rows

    monkeypatch.setattr(type(engine), "run", poisoned)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_one_image_is_listed_with_its_reason_and_the_others_have_the_same_bits(
    tmp_path, cache, fake_trunk, monkeypatch, value
):
    folder = make_folder(tmp_path / "photos", each=18)
    whole = extract_table(folder, RECIPE, cache).table
    poison(monkeypatch, fake_trunk, folder, "bees/006.png", value=value)
    other = Cache.at(tmp_path / "other")
    done = extract_table(folder, RECIPE, other)
    assert done.bad == (("bees/006.png", "its feature is not finite in fp32"),)
    assert done.extracted == 35 and "bees/006.png" in done.listing.read_text()
    assert any("1 image have" in n or "'bees/006.png'" in n for n in done.notes)
    kept = [n for n, path in enumerate(whole.paths) if path != "bees/006.png"]
    assert done.table.features.tobytes() == whole.features[kept].tobytes()
    fake_trunk.batches.clear()
    again = extract_table(folder, RECIPE, other)
    assert fake_trunk.batches == [] and again.bad == done.bad and again.reused == 35
    assert again.table.path == done.table.path


def test_rehash_tries_it_again(tmp_path, cache, fake_trunk, monkeypatch):
    folder = make_folder(tmp_path / "photos", each=5)
    with monkeypatch.context() as patch:
        poison(patch, fake_trunk, folder, "ants/000.png")
        assert len(extract_table(folder, RECIPE, cache).bad) == 1
    done = extract_table(folder, ExtractOptions(precision="fp32", rehash=True), cache)
    assert done.bad == () and done.extracted == 1


def test_bf16_says_that_fp32_may_do(tmp_path, cache, fake_trunk, monkeypatch):
    folder = make_folder(tmp_path / "photos", each=5)
    poison(monkeypatch, fake_trunk, folder, "ants/000.png")
    done = extract_table(folder, ExtractOptions(precision="bf16"), cache)
    assert done.bad == (("ants/000.png", "its feature is not finite in bf16"),)
    assert any("--precision fp32 may give" in note for note in done.notes)


def test_more_than_one_in_a_hundred_are_the_trunks_fault(tmp_path, cache, fake_trunk, monkeypatch):
    folder = make_folder(tmp_path / "photos", each=18)
    poison(monkeypatch, fake_trunk, folder, "ants/004.png", "bees/006.png")
    with pytest.raises(
        PipelineError,
        match=r"2 of 36 images have features that are not finite in fp32, .*ants/004.png first: "
        r".*is to blame.*Use another trunk or other weights",
    ):
        extract_table(folder, RECIPE, cache)
    assert cache.table_files() == []


def test_of_a_thousand_images_ten_may_be_bad_and_of_a_batch_not_all():
    rows = np.zeros((100, 3), np.float32)
    rows[::10, 1] = np.nan
    names = [f"{n}.png" for n in range(100)]
    assert len(FiniteRows("t", "fp32", total=1000).bad(rows, names)) == 10
    with pytest.raises(PipelineError, match="11 of 1,000"):
        FiniteRows("t", "fp32", total=1000, found=1).bad(rows, names)
    stream = FiniteRows("t", "bf16")
    assert len(stream.bad(rows, names)) == 10  # nobody knows how many will come
    with pytest.raises(PipelineError, match=r"All 8 images of a batch .*Give --precision fp32"):
        stream.bad(np.full((8, 3), np.nan, np.float32), names)
    assert FiniteRows("t", "fp32", total=1).bad(np.full((1, 3), np.nan), names) != {}


def test_a_whole_batch_stops_the_run_whatever_the_precision(
    tmp_path, cache, fake_trunk, monkeypatch
):
    folder = make_folder(tmp_path / "photos", each=10)
    monkeypatch.setattr(
        type(fake_trunk), "run", lambda self, xs: (np.full((len(x), 11), np.nan) for x in xs)
    )
    with pytest.raises(PipelineError, match=r"not finite in bf16.*Give --precision fp32"):
        extract_table(folder, ExtractOptions(precision="bf16", batch_size=10), cache)
    assert cache.table_files() == []


def test_a_run_that_goes_on_counts_what_the_earlier_one_found(
    tmp_path, cache, fake_trunk, monkeypatch
):
    monkeypatch.setattr(plan, "SHARD_ROWS", 4)
    folder = make_folder(tmp_path / "photos", each=10)
    poison(monkeypatch, fake_trunk, folder, "ants/000.png", "bees/009.png")
    for _ in range(2):  # the first is committed, and the second ends both runs
        with pytest.raises(PipelineError, match="2 of 20 images"):
            extract_table(folder, RECIPE, cache)
    (folder / "bees" / "009.png").unlink()
    done = extract_table(folder, RECIPE, cache)
    assert [path for path, _ in done.bad] == ["ants/000.png"]


def test_half_precision_never_stores_an_infinity_however_large_the_rows():
    from pipeline.images.preprocess import Preprocess
    from pipeline.trunks.spec import FeatureKey

    key = FeatureKey("t", "w", "layer3", "map", Preprocess(10, 8), "fp32", "float16")
    for large in (7e4, 1e20, 3e38):
        rows = np.full((2, 3), large, np.float32)
        with pytest.raises(writer.HalfRangeError):
            writer.stored(rows, key)
    assert np.isfinite(writer.stored(np.full((2, 3), 6e4, np.float32), key)).all()


def test_a_view_that_is_not_finite_costs_its_image_and_nothing_shifts(
    tmp_path, cache, fake_trunk, monkeypatch
):
    folder = make_folder(tmp_path / "photos", each=20)
    run = type(fake_trunk).run
    table = extract_table(folder, RECIPE, cache).table
    first = table.paths[table.training_rows[0]]
    calls = []

    def poisoned(self, batches):
        for rows in run(self, batches):
            if not calls:
                rows[1] = np.inf  # view 2 of the first training image
            calls.append(rows)
            yield rows

    monkeypatch.setattr(type(fake_trunk), "run", poisoned)
    done = extract_table(folder, ExtractOptions(precision="fp32", views=3), cache)
    assert done.bad == ((first, "its feature is not finite in fp32"),)
    assert done.table.views.shape == (len(table.training_rows) - 1, 3, 11)
