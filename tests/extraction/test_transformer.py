import numpy as np
import pytest
from conftest import make_folder, picture
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

import pipeline
from pipeline.errors import PipelineError
from pipeline.extraction.extract import extract_table
from pipeline.extraction.options import ExtractOptions


@pytest.fixture
def paths(tmp_path):
    folder = make_folder(tmp_path / "photos")
    return sorted(str(path) for path in folder.rglob("*.png"))


@pytest.fixture
def features(tmp_path, fake_trunk):
    return pipeline.TrunkFeatures(precision="fp32", cache=tmp_path / "cache")


def test_it_gives_the_rows_that_extract_gives(tmp_path, paths, features):
    from pipeline.store.cache import Cache

    recipe, cache = ExtractOptions(precision="fp32"), Cache.at(tmp_path / "cache")
    table = extract_table(tmp_path / "photos", recipe, cache).table
    np.testing.assert_array_equal(features.fit_transform(paths), table.features)
    assert features.fingerprint_ == table.fingerprint


def test_nothing_is_computed_twice(paths, features, fake_trunk):
    first = features.fit_transform(paths)
    fake_trunk.batches.clear()
    np.testing.assert_array_equal(features.transform(paths[::-1]), first[::-1])
    assert fake_trunk.batches == []


def test_paths_arrays_and_pil_images_of_one_picture_give_the_same_row(paths, features):
    image = Image.open(paths[0]).convert("RGB")
    rows = [features.fit_transform([item])[0] for item in (paths[0], image, np.asarray(image))]
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows[0], rows[2])


def test_it_works_in_a_pipeline_under_a_grid_search(paths, features):
    labels = ["ants" in path for path in paths]
    model = make_pipeline(features, LogisticRegression())
    search = GridSearchCV(model, {"logisticregression__C": [0.1, 1.0]}, cv=2)
    search.fit(paths, labels)
    assert search.predict(paths).shape == (20,)
    assert len(model[:-1].fit(paths).get_feature_names_out()) == 11


def test_it_can_be_cloned_and_its_parameters_set(features):
    other = clone(features).set_params(trunk="resnet18", layer="layer3")
    assert other.get_params()["trunk"] == "resnet18" and not hasattr(other, "n_features_out_")
    assert features.trunk == "efficientnet_lite0"


CHECKS = [
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
    "check_estimator_repr",
    "check_estimator_cloneable",
    "check_mixin_order",
    "check_valid_tag_types",
    "check_estimator_tags_renamed",
]


@pytest.mark.parametrize("name", CHECKS)
def test_it_passes_scikit_learns_checks_that_need_no_table_of_numbers(name):
    getattr(estimator_checks, name)("TrunkFeatures", pipeline.TrunkFeatures())


def test_transform_before_fit_is_refused(paths, features):
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        features.transform(paths)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("one.jpg", "a sequence of paths or pictures"),
        ([], "no images"),
        ([3.5], r"not 3\.5"),
        ([np.zeros((4, 4))], r"not float64 \[4, 4\]"),
        (["nowhere.jpg"], "Cannot take nowhere.jpg: no such file"),
    ],
)
def test_other_inputs_are_refused_in_a_sentence(features, given, text):
    with pytest.raises(PipelineError, match=text):
        features.fit(given)


def test_a_bad_image_is_named(tmp_path, features):
    (tmp_path / "half.png").write_bytes(picture(1)[:100])
    with pytest.raises(PipelineError, match=r"1 images have no features: .*half.png"):
        features.fit([str(tmp_path / "half.png")])
