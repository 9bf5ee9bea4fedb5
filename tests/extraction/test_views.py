"""`--views`: rows of augmented views in the store, in tables, and in what heads learn from."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import make_folder, picture
from fitting import fitted
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import OPTIONS, tune
from tables import digest, make_table

import pipeline
from pipeline.errors import PipelineError, UsageError
from pipeline.extraction import plan
from pipeline.extraction.extract import extract_table
from pipeline.extraction.options import ExtractOptions
from pipeline.heads.head import Head
from pipeline.heads.options import FitHeadOptions
from pipeline.heads.task import learned, split_rows
from pipeline.store import upkeep
from pipeline.store.cache import Cache
from pipeline.store.table import FeatureTable


def recipe(**options) -> ExtractOptions:
    return ExtractOptions(precision="fp32", **options)


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "photos")


@pytest.fixture
def cache(tmp_path):
    return Cache.at(tmp_path / "cache")


def by_path(table: FeatureTable) -> dict[str, bytes]:
    """Return the views of each training image, by its path."""
    paths = [table.paths[row] for row in table.training_rows]
    return {path: views.tobytes() for path, views in zip(paths, table.views, strict=True)}


# the store and the table


def test_precision_auto_follows_rows_that_this_machine_cannot_add_to_only_with_their_views(
    folder, cache, fake_trunk, monkeypatch
):
    from pipeline.trunks.engines import devices

    monkeypatch.setattr(devices, "cpu_has_bf16", lambda: False)
    half = replace(recipe(), precision="bf16")
    auto = {"precision": "auto", "device": "cpu"}
    (folder / "ants" / "bad.png").write_bytes(picture(7)[:100])
    extract_table(folder, half, cache)
    assert extract_table(folder, replace(half, **auto), cache).extracted == 0
    extract_table(folder, replace(half, views=2), cache)
    done = extract_table(folder, replace(half, views=2, **auto), cache)
    assert (done.extracted, done.views_computed) == (0, 0)
    done = extract_table(folder, replace(half, views=3, **auto), cache)
    assert done.table.provenance.precision == "fp32" and done.extracted == 20


def test_views_of_the_training_images_alone_are_kept_beside_the_table(folder, cache, fake_trunk):
    plain = extract_table(folder, recipe(), cache)
    done = extract_table(folder, recipe(views=3), cache)
    table = done.table
    count = table.split_counts["train"]
    assert (done.extracted, done.views, done.views_computed) == (0, 3, 3 * count)
    assert table.views.shape == (count, 3, 11) and table.path == plain.table.path
    assert table.features.tobytes() == plain.table.features.tobytes()
    own = np.asarray(table.features[table.training_rows])
    for number in range(3):
        assert (np.abs(table.views[:, number] - own).max(1) > 0).all()
    assert not list((cache.root / "runs").glob("*.h5"))


def test_more_views_compute_only_the_new_ones_and_fewer_none(folder, cache, fake_trunk):
    two = extract_table(folder, recipe(views=2), cache)
    count = two.table.split_counts["train"]
    five = extract_table(folder, recipe(views=5), cache)
    assert five.views_computed == 3 * count
    assert five.table.views[:, :2].tobytes() == two.table.views.tobytes()
    fake_trunk.batches.clear()
    assert extract_table(folder, recipe(views=4), cache).views_computed == 0
    assert fake_trunk.batches == []


def test_no_run_takes_views_away_that_another_one_added(folder, cache, fake_trunk):
    first = extract_table(folder, recipe(views=3), cache).table
    stat = first.path.stat()
    for views in (0, 2):
        again = extract_table(folder, recipe(views=views), cache)
        assert again.views == 3 and again.table.path.stat().st_mtime_ns == stat.st_mtime_ns
    assert "--views 3" in again.table.provenance.command
    first.path.unlink()
    assert extract_table(folder, recipe(), cache).views == 0


def test_views_of_another_policy_take_the_place_of_those_that_are_there(folder, cache, fake_trunk):
    crops = extract_table(folder, recipe(views=2), cache).table
    head = pipeline.fit_head(crops, views=2, folds=2, cache=cache.root)
    done = extract_table(folder, recipe(views=2, augment="shift"), cache)
    count = done.table.split_counts["train"]
    assert done.views_computed == 2 * count and done.table.views.tobytes() != crops.views.tobytes()
    assert (crops.provenance.augment, done.table.provenance.augment) == ("crop+mirror", "shift")
    other = pipeline.fit_head(done.table, views=2, folds=2, cache=cache.root)
    assert (head.info.policy, other.info.policy) == ("crop+mirror", "shift")
    assert other.id != head.id
    plain = [pipeline.fit_head(t, folds=2, cache=cache.root).id for t in (crops, done.table)]
    assert plain[0] == plain[1]
    again = extract_table(folder, recipe(views=1, augment="crop+mirror"), cache)
    assert again.views_computed == 0 and again.table.provenance.augment == "crop+mirror"
    assert extract_table(folder, recipe(), cache).table.views.shape[1] == 1


def test_the_views_that_fine_tuning_draws_are_those_of_the_same_policy(folder, cache, fake_trunk):
    table = extract_table(folder, recipe(views=1, augment="mirror"), cache).table
    with pytest.raises(UsageError, match="an image has one mirror image"):
        extract_table(folder, recipe(views=2, augment="mirror"), cache)
    rows = pipeline.extract(folder, precision="fp32", cache=cache.root, views=1, augment="shift")
    assert rows.views.tobytes() != table.views.tobytes()


def test_a_view_belongs_to_its_image_whatever_it_is_called_and_wherever_it_stands(
    folder, cache, fake_trunk
):
    before = by_path(extract_table(folder, recipe(views=2), cache).table)
    path, views = next(iter(before.items()))
    (folder / path).rename(folder / "ants" / "aaa.png")
    shutil.copy(folder / "ants" / "aaa.png", folder / "ants" / "copy.png")
    fake_trunk.batches.clear()
    after = by_path(extract_table(folder, recipe(views=2), cache).table)
    assert fake_trunk.batches == []
    assert after["ants/aaa.png"] == after["ants/copy.png"] == views


def test_new_images_and_another_split_compute_the_views_that_are_missing(folder, cache, fake_trunk):
    first = extract_table(folder, recipe(views=2), cache).table
    (folder / "bees" / "new.png").write_bytes(picture(99))
    done = extract_table(folder, recipe(views=2, seed=5, val_fraction=0.3), cache)
    old = {first.digests[row] for row in first.training_rows}
    new = [row for row in done.table.training_rows if done.table.digests[row] not in old]
    assert done.extracted == 1 and done.views_computed == 2 * len(new) > 0


def test_a_run_that_was_stopped_among_the_views_goes_on_to_the_same_bits(
    folder, cache, tmp_path, fake_trunk, monkeypatch
):
    monkeypatch.setattr(plan, "SHARD_ROWS", 8)
    whole = extract_table(folder, recipe(views=3), Cache.at(tmp_path / "whole"))
    batches = -(-20 // 4) + 5

    def stop(crops, real=type(fake_trunk).run):
        if len(fake_trunk.batches) > batches:
            raise KeyboardInterrupt
        return next(real(fake_trunk, [crops]))

    with monkeypatch.context() as patch:
        patch.setattr(type(fake_trunk), "run", lambda self, xs: map(stop, xs))
        fake_trunk.batches.clear()
        with pytest.raises(KeyboardInterrupt):
            extract_table(folder, recipe(views=3), cache)
    assert upkeep.garbage(cache) == {}
    rest = extract_table(folder, recipe(views=3), cache)
    assert rest.extracted == 0 and 0 < rest.views_computed < whole.views_computed
    assert rest.table.views.tobytes() == whole.table.views.tobytes()


def test_the_collector_spares_views_and_verify_names_one_that_is_lost(folder, cache, fake_trunk):
    table = extract_table(folder, recipe(views=2), cache).table
    assert upkeep.garbage(cache) == {}
    index = cache.rows(table.fingerprint).index()
    (lost,) = index.shards([(bytes.fromhex(table.digests[table.training_rows[0]]), 1)])
    cache.rows(table.fingerprint).path(lost).unlink()
    verdict = upkeep.verify(cache)
    assert len(verdict.problems) == 1 and "--views 2" in verdict.repairs[0]
    again = extract_table(folder, recipe(views=2), cache)
    assert again.table.views.tobytes() == table.views.tobytes() and again.extracted == 0


def test_a_bad_image_has_no_views_and_costs_none(folder, cache, fake_trunk):
    good = by_path(extract_table(folder, recipe(views=2), Cache.at(cache.root / "other")).table)
    path = folder / next(iter(good))
    path.write_bytes(path.read_bytes()[:200])
    done = extract_table(folder, recipe(views=2), cache)
    found = by_path(done.table)
    assert len(done.bad) == 1 and path.relative_to(folder).as_posix() not in found
    assert all(good[name] == views for name, views in found.items() if name in good)


def test_views_where_nothing_is_trained_on_are_refused_before_anything_is_computed(
    tmp_path, cache, fake_trunk
):
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.png").write_bytes(picture(1))
    with pytest.raises(UsageError, match="--views are of labelled training images, and"):
        extract_table(tmp_path / "flat", recipe(views=2), cache)
    assert fake_trunk.batches == []
    with pytest.raises(UsageError, match="--views -1 is below 0"):
        recipe(views=-1).check()


# heads


def viewed(path=None, *, views=3, noise=0.3, **options) -> FeatureTable:
    """Return a table of clouds whose training images have views near them."""
    table = make_table(**{"train": 60, "val": 24, "test": 24, "dim": 8, **options})
    own = np.asarray(table.features[table.training_rows])
    rng = np.random.default_rng(7)
    near = own[:, None] + noise * rng.normal(size=(len(own), views, own.shape[1])) * own.std(0)
    table = replace(table, views=near.astype(np.float32))
    return table.write(path) if path else table


@settings(max_examples=40)
@given(
    groups=st.lists(st.integers(0, 12), min_size=40, max_size=40),
    copies=st.lists(st.integers(0, 25), min_size=40, max_size=40),
    views=st.integers(1, 3),
    seed=st.integers(0, 3),
)
def test_no_view_crosses_a_fold_and_what_is_scored_has_none(groups, copies, views, seed):
    table = viewed(
        train=40, val=0, test=0, views=3,
        groups=tuple(f"g{n}" if n < 6 else "" for n in groups),
        digests=tuple(digest(str(n)) for n in copies),
    )  # fmt: skip
    task = split_rows(table, FitHeadOptions(seed=seed), [])
    both, labels, train, folds = learned(table, views, task.train, task.folds)
    image = np.concatenate([np.arange(40), np.repeat(table.training_rows, views)])  # of each row
    assert len(both) == len(labels) == 40 * (1 + views) == len(train)
    np.testing.assert_array_equal(labels, table.labels[image])
    for (fitted_on, scored), (alone, _) in zip(folds, task.folds, strict=True):
        assert scored.max() < 40, "views are never scored"
        assert set(image[fitted_on]) == set(alone), "a view is where its image is"
        for names in (table.digests, table.groups):
            inside = {names[row] for row in image[fitted_on]} - {""}
            assert not inside & ({names[row] for row in scored} - {""})


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", ["logreg", "linear", "ridge", "knn", "svm-rbf"])
def test_a_head_with_views_is_fitted_on_them_and_scored_on_images_alone(tmp_path, cache, name):
    table = viewed(tmp_path / "t.h5")
    grid = None if name in ("knn", "svm-rbf") else "0.01,1"
    plain, more = (fitted(table, cache, name, grid=grid, views=v).heads[0] for v in (0, 3))
    assert plain.id != more.id and more.info.recipe["views"] == 3
    assert more.info.train_images == 60 and more.info.metrics["val"].images == 24
    features = table.features[60:84]
    assert np.abs(plain.predict_proba(features) - more.predict_proba(features)).max() > 1e-6
    opened = Head.open(more.folder)
    np.testing.assert_allclose(opened.predict_proba(features), more.predict_proba(features))
    assert fitted(table, cache, name, grid=grid, views=3).reused == (more.id,)


@pytest.mark.usefixtures("one_thread")
def test_both_logistic_regressions_agree_with_views_too(tmp_path, cache):
    table = viewed(tmp_path / "t.h5")
    one, other = (
        fitted(table, cache, name, grid="0.001,0.01,0.1", views=2, select="log-loss").heads[0]
        for name in ("logreg", "linear")
    )
    for a, b in zip(one.info.trials, other.info.trials, strict=True):
        assert a["score"] == pytest.approx(b["score"], abs=2e-3)
    np.testing.assert_allclose(one.linear.weight, other.linear.weight, atol=5e-3)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", ["logreg", "linear"])
def test_views_that_only_repeat_their_image_change_nothing_but_the_penalty(tmp_path, cache, name):
    table = viewed(tmp_path / "t.h5", noise=0.0)
    plain = fitted(table, cache, name, grid="0.04").heads[0]
    more = fitted(table, cache, name, grid="0.01", views=3).heads[0]
    assert more.info.score == plain.info.score
    np.testing.assert_allclose(more.linear.weight, plain.linear.weight, atol=2e-3)


@pytest.mark.usefixtures("one_thread")
def test_other_values_in_val_and_test_leave_a_head_with_views_bit_identical(tmp_path, cache):
    one = viewed(tmp_path / "a.h5")
    x = one.features.copy()
    x[60:] += 1e6
    other = replace(viewed(features=x, splits=one.splits, fingerprint="0" * 64), views=one.views)
    for name in ("logreg", "linear"):
        a, b = (
            fitted(t, cache, name, grid="0.01,1", views=2).heads[0]
            for t in (one, other.write(tmp_path / "b.h5"))
        )
        files = [(h.folder / "head.safetensors").read_bytes() for h in (a, b)]
        assert a.id != b.id and files[0] == files[1]


@pytest.mark.usefixtures("one_thread")
def test_shots_take_the_views_of_the_shots_alone(tmp_path, cache):
    table = viewed(tmp_path / "t.h5")
    views = np.array(table.views)
    picked = split_rows(table, FitHeadOptions(shots=5), []).train
    views[np.setdiff1d(np.arange(60), picked)] = 1e6
    wild = replace(table, views=views).write(tmp_path / "u.h5")
    heads = [
        fitted(t, Cache.at(tmp_path / name), "logreg", grid="0.1", views=3, shots=5).heads[0]
        for t, name in ((table, "a"), (wild, "b"))
    ]
    np.testing.assert_array_equal(heads[0].linear.weight, heads[1].linear.weight)


@pytest.mark.usefixtures("one_thread")
def test_val_that_chooses_is_scored_without_views(tmp_path, cache):
    head = fitted(viewed(tmp_path / "t.h5"), cache, "linear", views=2, select_on="val").heads[0]
    assert head.info.selected_on == "val"
    assert head.info.score == pytest.approx(head.info.metrics["val"].accuracy)


def test_views_that_a_table_lacks_are_refused_with_the_command_that_adds_them(tmp_path, cache):
    plain = make_table(tmp_path / "p.h5", train=30)
    with pytest.raises(UsageError, match=r"holds no views.*`pipeline extract … --views 2` adds"):
        fitted(plain, cache, views=2)
    with pytest.raises(UsageError, match=r"--views 9: .* holds 3 views of its training images"):
        fitted(viewed(tmp_path / "t.h5"), cache, views=9)
    with pytest.raises(UsageError, match="--repeats trains on images of val and test too"):
        fitted(viewed(tmp_path / "u.h5"), cache, views=2, repeats=3)


def test_fine_tuning_starts_from_a_head_that_learned_from_views(work):
    table = pipeline.extract(work / "photos", cache=work / "cache", views=2, **OPTIONS)
    head = pipeline.fit_head(table, "logreg", cache=work / "cache", views=2)
    info = tune(work, head, epochs=1, views=1).info
    assert info.head == head.id and info.handover["logits"] < 0.005
    plain = pipeline.extract(work / "photos", cache=work / "cache", **OPTIONS)
    assert plain.views is not None, "no run takes views away"
    replace(plain, views=None).write(plain.path)
    with pytest.raises(PipelineError, match="holds no views"):
        tune(work, head, epochs=2, views=1)
