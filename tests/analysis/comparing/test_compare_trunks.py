"""`compare`: every contender in one table, each cost paid once, failures told and left out."""

import json
import shutil
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
from photos import paint
from PIL import Image
from records import head_info
from watching import watching

import pipeline
from pipeline.analysis.comparing import feature_cost
from pipeline.analysis.comparing.compare_trunks import race
from pipeline.analysis.comparing.feature_cost import Cost
from pipeline.analysis.comparing.results import Result, draw_results, marked
from pipeline.analysis.options import CompareOptions, Contender
from pipeline.errors import PipelineError, UsageError
from pipeline.extraction import engines
from pipeline.extraction.extract import extract
from pipeline.extraction.options import ExtractOptions
from pipeline.images import digest
from pipeline.images.decoding import loader
from pipeline.images.preprocess import Preprocess
from pipeline.store.cache import Cache
from pipeline.trunks import permitted, registry
from pipeline.trunks.engines.torch_engine import TorchEngine
from pipeline.trunks.spec import FeatureKey

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = CompareOptions(
    trunks="resnet18:random,squeezenet1_1:random,resnet18:none.pth",
    layers="own,layer3,layer2+layer4,layer1",
    pools="avg,max",
    clf="ncm,knn",
    image_size=64,
    precision="fp32",
    engine="torch",
    jobs=1,
)
TITLES = {
    f"{trunk}:random {what}"
    for trunk in ("resnet18", "squeezenet1_1")
    for what in ("own", "layer3 avg", "layer3 max", "layer2+layer4 avg", "layer2+layer4 max")
} | {"resnet18:random layer1 avg", "resnet18:random layer1 max"}


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_cost, "ROUND", 0.0)
        patch.setattr(feature_cost, "ROUNDS", 1)
        yield


@pytest.fixture(scope="module")
def raced(tmp_path_factory):
    """Return photos, a cache and what came of `RECIPE` on them; not to be changed."""
    root = tmp_path_factory.mktemp("race")
    paint(root / "photos", splits=("train", "val", "test"), each=6)
    launched = []
    real = TorchEngine._launch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digest, "RACY_NS", 0)  # files that were made this moment are trusted
        patch.setattr(feature_cost, "_seconds", lambda engine, batches: 0.01 * len(batches))
        patch.setattr(
            TorchEngine, "_launch", lambda self, x: (launched.append(len(x)), real(self, x))[1]
        )
        done, _ = race(root / "photos", RECIPE, Cache.at(root / "cache"))
    return root, done, launched


# what is compared


def test_every_trunk_meets_every_layer_and_pooling_once():
    found = replace(RECIPE, trunks="a:random,b", layers="own,layer3,neck").contenders()
    assert [one.title for one in found] == [
        "a:random own", "a:random layer3 avg", "a:random layer3 max", "a:random neck",
        "b own", "b layer3 avg", "b layer3 max", "b neck",
    ]  # fmt: skip
    assert CompareOptions().contenders() == [Contender("efficientnet_lite0")]
    assert CompareOptions(pools="max").contenders()[0].title == "efficientnet_lite0 layer4 max"
    twice = CompareOptions(layers="layer3+layer2,layer2+layer3+layer2,own,own").contenders()
    assert [one.layer for one in twice] == ["layer2+layer3", None]
    assert CompareOptions(trunks="r:w.pth").contenders()[0].weights == "w.pth"


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Return the name of a module in the working folder that makes a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(permitted, "_PERMITTED", set())
    name = f"raced_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1),\n"
        "        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))\n"
        "    net.preprocess = dict(size=32, mean=(.5,) * 3, std=(.5,) * 3,\n"
        "        interpolation='bilinear')\n"
        "    return net\n"
    )
    return name


def test_a_colon_parts_weights_or_is_part_of_a_name(mine):
    words = [f"{mine}:make", f"{mine}:make:random", "own/x:w.pth", "resnet18:IMAGENET1K_V1",
             "timm/local-dir:/a:b", "timm/hf-hub:me/x", "timm/hf-hub:me/x:random", "json:random",
             "resnet81:IMAGENET1K_V1"]  # fmt: skip
    found = CompareOptions(trunks=",".join(words)).contenders()
    assert [(one.trunk, one.weights) for one in found] == [
        (f"{mine}:make", "default"), (f"{mine}:make", "random"), ("own/x", "w.pth"),
        ("resnet18", "IMAGENET1K_V1"), ("timm/local-dir:/a:b", "default"),
        ("timm/hf-hub:me/x", "default"), ("timm/hf-hub:me/x", "random"), ("json", "random"),
        ("resnet81", "IMAGENET1K_V1"),
    ]  # fmt: skip


def test_ones_own_networks_are_compared_with_the_libraries(mine, tmp_path, monkeypatch):
    paint(tmp_path / "photos", splits=("train", "val"), each=4)
    monkeypatch.syspath_prepend(tmp_path)
    net = import_module(mine).make()
    given = pipeline.own_trunk(net, name="tiny")
    with pytest.raises(UsageError, match=r"not .*Sequential.* pipeline\.own_trunk\(network, name="):
        pipeline.compare_trunks(tmp_path / "photos", trunks=net)
    done = pipeline.compare_trunks(
        tmp_path / "photos", trunks=[f"{mine}:make", given, "timm/test_resnet:random"],
        clf="ncm", folds=2, image_size=64, engine="torch", jobs=1, cache=tmp_path / "cache",
    )  # fmt: skip
    assert not done.failed
    assert {one.contender.title: one.table.features.shape[1] for one in done.results} == {
        f"{mine}:make own": 16, "own/tiny own": 16, "timm/test_resnet:random own": 96,
    }  # fmt: skip
    assert {one.table.path.name.split("--")[0] for one in done.results} == {"photos"}


def test_all_faults_of_the_options_come_in_one_message():
    recipe = CompareOptions(
        trunks=":random", layers="layr3,layer2+x", pools="mx", clf="linera", workers=0
    )
    with pytest.raises(UsageError) as error:
        recipe.check()
    for part in (
        "--workers 0 is below 1", "--layers 'layr3' is not one of own, stem", "'x' is not one of",
        "--pools 'mx' is not one of avg, max, gem, flat, cls, cls+avg. Did you mean max?",
        "--trunks ':random': give names with commas", "'linera' is not a head",
    ):  # fmt: skip
        assert part in str(error.value)


def test_each_contender_has_a_table_a_head_an_interval_and_a_cost(raced):
    _, done, _ = raced
    assert {one.contender.title for one in done.results} == TITLES
    for one in done.results:
        values = one.to_json()
        low, high = values["interval"]
        assert low <= values["accuracy"] <= high
        assert values["clf"] in ("ncm", "knn") and set(values["metrics"]) == {"val", "test"}
        assert values["milliseconds"] > 0 and values["engine"] == "torch-cpu"
    dims = {one.contender.title: one.to_json()["dim"] for one in done.results}
    assert dims["resnet18:random layer2+layer4 max"] == 640
    json.dumps(done.to_json())


def test_megabytes_are_those_of_the_stages_that_run(raced):
    _, done, _ = raced
    size = {one.contender.title: one.cost.megabytes for one in done.results}
    assert size["resnet18:random own"] == pytest.approx(4 * 11.186e6 / 1e6, rel=1e-2)
    assert size["resnet18:random layer1 avg"] < size["resnet18:random layer3 avg"] / 5
    assert size["resnet18:random layer2+layer4 avg"] == size["resnet18:random own"]


def test_layers_of_one_trunk_come_from_one_pass(raced):
    _, done, launched = raced
    assert done.extracted == 2 * 36
    assert sum(launched) == 2 * (2 + 64), "a canary, and 36 images in two batches of 32"


def test_a_failure_stops_nothing_and_is_told(raced):
    _, done, _ = raced
    unknown = [title for title in done.failed if title.startswith("resnet18:none.pth")]
    lacking = [title for title in done.failed if title.startswith("squeezenet1_1:random layer1")]
    assert len(unknown) == 7 and len(lacking) == 2 and len(done.failed) == 9
    assert "none.pth" in done.failed[unknown[0]]
    assert "no layer 'layer1'; it has stem" in done.failed[lacking[0]]


def test_a_second_run_touches_no_image_and_only_measures(raced, monkeypatch):
    root, first, _ = raced

    def never(*args, **kwargs):
        raise AssertionError("this was done already")

    monkeypatch.setattr(loader, "load", never)
    monkeypatch.setattr(engines, "make_joint_engine", never)
    monkeypatch.setattr(feature_cost, "_seconds", lambda engine, batches: 0.01 * len(batches))
    with watching(root / "photos" / "train" / "red") as opened:
        second, _ = race(root / "photos", RECIPE, Cache.at(root / "cache"))
    assert opened == [] and second.extracted == 0
    assert [one.to_json() for one in second.results] == [one.to_json() for one in first.results]
    assert second.failed == first.failed


def test_it_leaves_the_current_table_and_its_views_alone(raced, tmp_path):
    root, _, _ = raced
    shutil.copytree(root, tmp_path / "w")
    options = {"image_size": 64, "precision": "fp32", "engine": "torch", "weights": "random"}
    table = extract(
        tmp_path / "w" / "photos", cache=tmp_path / "w" / "cache", trunk="resnet18", views=2,
        **options,
    )  # fmt: skip
    cache = Cache.at(tmp_path / "w" / "cache")
    race(tmp_path / "w" / "photos", replace(RECIPE, trunks="resnet18:random"), cache)
    assert cache.current() == table.path and cache.open_table().views.shape == (12, 2, 512)


def test_where_one_pass_for_all_fails_each_has_its_own(tmp_path, monkeypatch):
    from pipeline.extraction import writer

    photos = paint(tmp_path / "photos", each=3)
    real = writer.stored

    def stored(rows, key):
        if key.layer == "layer3":
            raise PipelineError("layer3 is not finite.")
        return real(rows, key)

    monkeypatch.setattr(writer, "stored", stored)
    recipe = replace(RECIPE, trunks="resnet18:random", layers="own,layer3", pools="avg")
    done, _ = race(photos, recipe, Cache.at(tmp_path / "c"))
    assert [one.contender.title for one in done.results] == ["resnet18:random own"]
    assert done.failed == {"resnet18:random layer3 avg": "layer3 is not finite."}


def test_a_head_that_cannot_be_fitted_is_told_beside_those_that_can(tmp_path, monkeypatch):
    from pipeline.heads import fit_head

    real = fit_head._fit

    def fit(name, *args):
        if name == "knn":
            raise PipelineError("no neighbours.")
        return real(name, *args)

    monkeypatch.setattr(fit_head, "_fit", fit)
    recipe = replace(RECIPE, trunks="resnet18:random", layers="own", pools=None)
    done, _ = race(paint(tmp_path / "photos", each=3), recipe, Cache.at(tmp_path / "c"))
    assert [one.head.clf for one in done.results] == ["ncm"]
    assert done.failed == {"resnet18:random own knn": "knn could not be fitted: no neighbours."}


def test_where_nothing_is_left_the_reasons_are_the_error(tmp_path):
    photos = paint(tmp_path / "photos", each=3)
    with pytest.raises(PipelineError, match=r"There is no trunk 'resnet19'\. Did you mean resnet1"):
        race(photos, replace(RECIPE, trunks="resnet19"), Cache.at(tmp_path / "c"))


# the front


def result(milliseconds, accuracy, title="a") -> Result:
    head = head_info(score=accuracy, train_images=100, clf="ncm", id="0" * 12)
    return Result(Contender(title), None, head, Cost(milliseconds, 1.0, "fake", 1))


def test_the_front_is_what_nothing_beats_in_both():
    found = marked([result(1, 0.5), result(2, 0.6), result(3, 0.6), result(4, 0.9), result(5, 0.8)])
    assert [one.front for one in found] == [True, True, False, True, False]


def test_equals_are_both_on_the_front_and_what_was_not_tried_is_not():
    found = marked([result(1, 0.5), result(1, 0.5), result(0.5, None)])
    assert [one.front for one in found] == [True, True, False]
    assert found[2].interval is None


def test_the_picture_shows_any_name_and_any_number(tmp_path):
    names = ["$x_1^", "a\udcffb\n[c]", "timm/x", *(f"t{n}" for n in range(20))]
    results = [result(1 + n, 0.5 + n / 60, name) for n, name in enumerate(names)]
    for count in (1, 2, len(results)):
        draw_results(tmp_path / "out" / "p.png", marked([*results[:count], result(9, None)]))
        with Image.open(tmp_path / "out" / "p.png") as picture:
            assert picture.size[0] > 1000 and len(np.unique(np.asarray(picture))) > 50


# the cost


def test_a_cost_is_measured_anew_and_kept_nowhere(tmp_path):
    cache = Cache.at(tmp_path / "c")
    recipe = ExtractOptions(trunk="squeezenet1_1", weights="random", engine="torch", batch_size=2)
    trunk = registry.load("squeezenet1_1", "random", state_dir=tmp_path)
    key = FeatureKey(
        "squeezenet1_1", trunk.weights_digest, "layer3", "avg", Preprocess(40, 32), "fp32"
    )
    found = feature_cost.measure(trunk, key, recipe, cache)
    assert found.milliseconds > 0 and found.batch_size == 2
    assert not cache.root.exists()


def test_it_is_a_function_too(raced):
    root, first, _ = raced
    options = {**vars(RECIPE), "trunks": "resnet18:random", "layers": "own", "pools": None}
    race = pipeline.compare_trunks(root / "photos", cache=root / "cache", **options)
    own = next(one for one in first.results if one.contender.title == "resnet18:random own")
    (again,) = race.results
    assert again.cost.megabytes == own.cost.megabytes  # and milliseconds are measured anew
    assert replace(again, cost=own.cost).to_json() == {**own.to_json(), "front": True}
    with pytest.raises(TypeError, match="trunk"):
        pipeline.compare_trunks(root / "photos", trunk="resnet18")
