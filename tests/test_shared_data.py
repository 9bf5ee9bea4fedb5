"""The real images beside the repository; every test here skips where they are missing."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import shared

import pipeline
from pipeline.heads.registry import HEADS
from pipeline.heads.task import entering

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def hymenoptera(cache):
    return pipeline.extract(shared("hymenoptera"), cache=cache)


def test_hymenoptera_is_read_whole(hymenoptera):
    assert hymenoptera.split_counts == {"train": 245, "val": 153}
    assert hymenoptera.classes == ("ants", "bees") and hymenoptera.features.shape[1] == 1280


@pytest.mark.slow
def test_a_logistic_regression_scores_at_least_0_94(hymenoptera):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, val = hymenoptera.rows("train"), hymenoptera.rows("val")
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    head.fit(hymenoptera.features[train], hymenoptera.labels[train])
    assert head.score(hymenoptera.features[val], hymenoptera.labels[val]) >= 0.94


def _says_no_colours(path):
    from PIL import ExifTags, Image

    with Image.open(path) as image:
        space = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace, 1)
        return "icc_profile" not in image.info and space == 1


@pytest.mark.slow
def test_features_agree_with_pil_transforms_and_fp32(hymenoptera, tmp_path):
    from bench_fidelity import cosines, reference

    root = Path(hymenoptera.provenance.root)
    # the reference knows no colour profiles
    rows = [
        row
        for row in range(0, len(hymenoptera.paths), 8)
        if _says_no_colours(root / hymenoptera.paths[row])
    ]
    paths = [root / hymenoptera.paths[row] for row in rows]
    assert len(rows) > 20
    want = reference(paths, "efficientnet_lite0", "default", tmp_path)
    assert cosines(want, hymenoptera.features[rows]).mean() >= 0.999


@pytest.mark.slow
def test_the_eight_exif_orientations_of_one_picture_give_the_same_feature(tmp_path, cache):
    from PIL import Image, ImageOps

    photos = sorted((shared("hymenoptera") / "val" / "ants").glob("*.jpg"))[:2]
    for n, photo in enumerate(photos):
        (tmp_path / str(n)).mkdir()
        picture = Image.open(photo).convert("RGB")
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[0x0112] = orientation
            path = tmp_path / str(n) / f"{orientation}.png"
            turned = next(
                turned
                for way in (None, *Image.Transpose)
                for turned in [picture if way is None else picture.transpose(way)]
                if upright(turned, exif, ImageOps).tobytes() == picture.tobytes()
            )
            turned.save(path, exif=exif)
    table = pipeline.extract(tmp_path, cache=cache)
    unit = table.features / np.linalg.norm(table.features, axis=1, keepdims=True)
    one, other = unit[table.labels == 0], unit[table.labels == 1]
    assert len(one) == len(other) == 8
    assert min((one @ one.T).min(), (other @ other.T).min()) >= 0.99
    assert (one @ other.T).max() < 0.9


def upright(picture, exif, ops):
    copy = picture.copy()
    copy.getexif()[0x0112] = exif[0x0112]
    return ops.exif_transpose(copy)


@pytest.fixture(scope="session")
def flowers(cache):
    return pipeline.extract(shared("flowers"), cache=cache)


@pytest.fixture(scope="session")
def flowers_advice(flowers, cache):
    return pipeline.advise(flowers, cache=cache)


def test_hymenoptera_is_small_and_similar_and_the_head_is_enough(hymenoptera, cache):
    advice = pipeline.advise(hymenoptera, cache=cache)
    found = advice.recommendation
    assert (found.size, found.similarity, found.action) == ("small", "similar", "head")
    assert advice.reference.images == 245 and advice.similarity.against == "random weights"
    assert advice.linear.accuracy > 0.94 > 0.8 > advice.reference.random_linear


@pytest.mark.slow
def test_the_advice_on_flowers_is_what_fine_tuning_was_measured_to_gain(flowers_advice):
    found = flowers_advice.recommendation
    assert found.size == "large" and found.action in ("layer4", "more stages")
    assert flowers_advice.linear.p == flowers_advice.neighbours.p == 0.001
    assert flowers_advice.size.images == 3018 and len(found.reasons) == 3
    (twice,) = flowers_advice.curve.forecasts
    assert twice.images == 6036 and twice.interval[1] - twice.interval[0] < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_flowers_with_permuted_labels_carry_nothing(flowers, cache, seed):
    labels = np.random.default_rng(seed).permutation(flowers.labels)
    advice = pipeline.advise(replace(flowers, labels=labels), cache=cache, sample=0)
    assert advice.recommendation.similarity == "nothing"
    assert "carry nothing" in advice.recommendation.title


@pytest.mark.slow
def test_half_of_flowers_foretells_the_accuracy_of_all(flowers, flowers_advice, cache):
    measured = 1 - flowers_advice.curve.points[-1].error
    train = flowers.rows("train")
    covered, widths = 0, []
    for seed in range(5):
        joins = entering(flowers.labels[train], np.arange(len(train)), 100 + seed)
        splits = np.array(flowers.splits, dtype=object)
        splits[train[joins >= 0.5]] = ""
        half = replace(flowers, splits=tuple(splits))
        advice = pipeline.advise(half, cache=cache, sample=0, seed=seed)
        (found,) = advice.curve.forecasts
        assert abs(found.images - len(train)) < 10
        covered += found.interval[0] <= measured <= found.interval[1]
        widths.append(found.interval[1] - found.interval[0])
    assert covered >= 4 and max(widths) < 0.1


@pytest.mark.slow
def test_digits_are_unlike_photos_and_that_is_told_by_figures(cache):
    table = pipeline.extract("digits", cache=cache)
    advice = pipeline.advise(table, cache=cache)
    assert advice.linear.accuracy > 0.9 and advice.similarity.against == "random weights"
    assert advice.recommendation.size == "large" and len(advice.recommendation.reasons) == 3
    assert f"{100 * advice.similarity.share:.0f}%" in advice.recommendation.reasons[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "sign_digits"])
def test_noise_of_a_hundredth_of_the_features_spread_changes_few_predictions(cache, name):
    table = pipeline.extract(name if name == "digits" else shared(name), cache=cache)
    standardising = [clf for clf, kind in HEADS.items() if kind.normalize == "standard"]
    train, held = table.rows("train"), np.flatnonzero(np.array(table.splits) != "train")
    rms = np.sqrt(np.asarray(table.features[train]).var(0, dtype=float).mean())
    x = np.asarray(table.features[held])
    noisy = x + np.random.default_rng(0).normal(0, 0.01 * rms, x.shape).astype(np.float32)
    changed = {}
    for clf in standardising:
        head = pipeline.fit_head(table, clf=clf, folds=2, cache=cache, jobs=1)
        one, other = (head.predict_proba(values).argmax(1) for values in (x, noisy))
        changed[clf] = float((one != other).mean())
    print(name, changed)
    assert len(changed) == 8 and max(changed.values()) <= 0.01, changed
