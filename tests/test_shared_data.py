"""The real images beside the repository; every test here skips where they are missing."""

import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import shared

import pipeline

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


@pytest.mark.slow
def test_features_agree_with_pil_transforms_and_fp32(hymenoptera, tmp_path):
    from bench_fidelity import cosines, reference

    rows = np.arange(0, len(hymenoptera.paths), 8)
    root = Path(hymenoptera.provenance["root"])
    paths = [root / hymenoptera.paths[row] for row in rows]
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
