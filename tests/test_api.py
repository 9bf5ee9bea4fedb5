"""The public names: each documented, with explicit arguments, and the same through every door."""

import inspect
import re
import sys

import numpy as np
import pytest
from tables import make_table

import pipeline
from pipeline.finetuning.model import Model
from pipeline.heads.resolve import Artefact
from pipeline.inference import logit_stream

FUNCTIONS = [n for n in pipeline.__all__ if inspect.isfunction(getattr(pipeline, n))]
CLASSES = [n for n in pipeline.__all__ if inspect.isclass(getattr(pipeline, n))]
#: What says that an argument's or a result's shape, type, unit or range is documented.
MEASURES = re.compile(r"\[[NDKnBV](, ?[NDKn3HW])*\]|`|probabilit|folder|seconds|images|table|heads")


def documented(name: str, function) -> list[str]:
    """Return what the docstring of a public function lacks."""
    text = inspect.getdoc(function) or ""
    sections = dict(zip(*[iter(re.split(r"^(Args|Returns|Yields|Raises|Example):\n", text,
                                        flags=re.M)[1:])] * 2, strict=True))  # fmt: skip
    same = re.search(r"^Arguments, .*(?:as in|those of) `(\w+)`", text, re.M)
    if same is not None:
        return documented(name, getattr(pipeline, same[1]))
    faults = [] if re.match(r"[A-Z].+\.(\n\n|$)", text, re.S) else ["no sentence at the top"]
    listed = re.findall(r"^ {4}([\w, \n]+):(?: |\n)", sections.get("Args", ""), re.M)
    names = {one.strip() for line in listed for one in line.split(",")}
    given = {p for p in inspect.signature(function).parameters if p not in ("self", "cls")}
    faults += [f"no line on {one}" for one in sorted(given - names)]
    faults += [f"a line on {one}, which it does not take" for one in sorted(names - given)]
    annotation = inspect.signature(function).return_annotation
    if not (sections.keys() & {"Returns", "Yields"} or re.match(r"(Return|Yield) ", text)):
        faults += [] if annotation in (None, "None") else ["what it returns"]
    if given and not re.search(r"^ {4}\w*Error: ", sections.get("Raises", ""), re.M):
        faults.append("what it raises")
    if given and not MEASURES.search(text):
        faults.append("a shape, type or unit")
    return faults


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_says_what_it_takes_returns_and_raises(name):
    assert documented(name, getattr(pipeline, name)) == []


def test_the_check_of_docstrings_can_fail():
    def bare(rows, seed=0) -> int: ...

    def half(rows, seed=0) -> int:
        """Count.

        Args:
            rows: the rows.
            sed: of a draw.
        """

    def whole(rows, seed=0) -> int:
        """Count.

        Args:
            rows: [N, D] float32.
            seed: of a draw.

        Returns:
            How many.

        Raises:
            PipelineError: there is none.
        """

    assert "no sentence at the top" in documented("bare", bare)
    assert documented("half", half) == [
        "no line on seed", "a line on sed, which it does not take", "what it returns",
        "what it raises", "a shape, type or unit",
    ]  # fmt: skip
    assert documented("whole", whole) == []


@pytest.mark.parametrize("name", CLASSES)
def test_a_public_class_says_what_it_is_and_names_its_attributes(name):
    kind = getattr(pipeline, name)
    text = kind.__doc__ or ""
    assert re.match(r"\S.+?\.(\s|$)", text, re.S)
    stated = set(getattr(kind, "__dataclass_fields__", ()))
    for base in kind.mro()[1:]:
        stated -= set(getattr(base, "__dataclass_fields__", ()))
    listed = re.findall(r"^ {8}([\w, ]+):", text, re.M) + re.findall(r"^ {4}([\w, ]+):", text, re.M)
    names = {one.strip() for line in listed for one in line.split(",")}
    assert stated <= names, stated - names
    for attribute, value in vars(kind).items():
        if not attribute.startswith("_") and (callable(value) or isinstance(value, property)):
            assert inspect.getdoc(value), f"{name}.{attribute}"


@pytest.mark.parametrize("name", [*FUNCTIONS, "TrunkFeatures"])
def test_every_argument_is_named_typed_and_has_its_default(name):
    for parameter in inspect.signature(getattr(pipeline, name)).parameters.values():
        assert parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        assert parameter.annotation not in (parameter.empty, "Any", "dict[str, Any]")


TABLE = "FeatureTable | str | Path | None"
PREDICTOR = "Head | Model | str | Path | None"


def test_tables_heads_and_models_are_taken_in_the_same_ways_everywhere():
    for name in FUNCTIONS:
        for parameter in inspect.signature(getattr(pipeline, name)).parameters.values():
            of = {"table": TABLE, "model": PREDICTOR, "cache": "str | Path | None"}
            if parameter.name in of:
                assert parameter.annotation == of[parameter.name], name
    images, model = list(inspect.signature(pipeline.evaluate).parameters.values())[:2]
    assert (images.annotation, model.annotation) == ("FeatureTable | AnyData", PREDICTOR)


def photos(work):
    return sorted(str(path) for path in (work / "photos" / "val").rglob("*.png"))


def head_of(work):
    return pipeline.Head.open(next((work / "cache" / "heads").iterdir()))


def test_a_stream_of_predictions_is_lazy_and_the_same_as_the_list(prepared, monkeypatch):
    decoded = []
    real = logit_stream.Through.__call__

    def counted(self, paths):
        return real(self, (decoded.append(path) or path for path in paths))

    monkeypatch.setattr(logit_stream.Through, "__call__", counted)
    given = {"cache": prepared / "cache", "batch_size": 2, "workers": 1}
    stream = pipeline.predict_stream(photos(prepared), head_of(prepared), **given)
    assert iter(stream) is stream and decoded == []
    first = next(stream)
    assert 0 < len(decoded) < 24
    assert [first, *stream] == pipeline.predict(photos(prepared), head_of(prepared), **given)


def test_a_stream_refuses_its_arguments_at_once(prepared):
    with pytest.raises(pipeline.UsageError, match="--top 0 is below 1"):
        pipeline.predict_stream(photos(prepared), cache=prepared / "cache", top=0)
    with pytest.raises(pipeline.PipelineError, match="no head or model 'nosuch'"):
        pipeline.predict_stream(photos(prepared), "nosuch", cache=prepared / "cache")


def test_probabilities_are_calibrated_through_every_door(modelled):
    cache, files = modelled / "cache", photos(modelled)
    model = Model.open(next((cache / "models").iterdir()), cache=cache)
    head = head_of(modelled)
    table = pipeline.FeatureTable.open(next((cache / "tables").glob("*.h5")))
    rows = [row for row, split in enumerate(table.splits) if split == "val"]
    for predictor, own in (
        (model, model.predict_proba(files, device="cpu")),
        (head, head.predict_proba(table)[rows]),
    ):
        assert predictor.info.calibration is not None
        given = {"cache": cache, "top": 2, "precision": "fp32", "engine": "torch"}
        said = [dict(one.top) for one in pipeline.predict(files, predictor, **given)]
        through = np.array([[one[name] for name in predictor.classes_] for one in said])
        assert np.allclose(own, through, atol=1e-5)
        bare = [dict(one.top) for one in pipeline.predict(files, predictor, calibration=False,
                                                          **given)]  # fmt: skip
        stored = np.array([[one[name] for name in predictor.classes_] for one in bare])
        temperature = predictor.info.calibration_temperature
        again = stored ** (1 / temperature)
        assert np.allclose(own, again / again.sum(1, keepdims=True), atol=1e-4)
    plain = head.predict_proba(table, calibrated=False)
    assert np.allclose(plain ** (1 / head.info.calibration_temperature)
                       / (plain ** (1 / head.info.calibration_temperature)).sum(1, keepdims=True),
                       head.predict_proba(table), atol=1e-6)  # fmt: skip


def test_heads_and_models_have_classes_as_an_array_and_a_score(modelled):
    cache, files = modelled / "cache", photos(modelled)
    model = Model.open(next((cache / "models").iterdir()), cache=cache)
    labels = ["blue" if "/blue/" in file else "red" for file in files]
    right = model.predict(files, device="cpu") == np.array(labels)
    assert model.score(files, labels, device="cpu") == right.mean()
    head = head_of(modelled)
    table = pipeline.FeatureTable.open(next((cache / "tables").glob("*.h5")))
    names = np.array(table.classes)[table.labels]
    assert head.score(table) == (head.predict(table) == names).mean()
    assert head.score(np.asarray(table.features), names) == head.score(table)
    for predictor in (head, model):
        assert isinstance(predictor.classes_, np.ndarray)
        assert predictor.classes_.tolist() == ["blue", "red"]
        assert predictor.classes_[np.array([1, 0])].tolist() == ["red", "blue"]
    with pytest.raises(pipeline.PipelineError, match="rows have 1 labels"):
        head.score(table, ["blue"])
    with pytest.raises(pipeline.PipelineError, match="24 images have 1 labels"):
        model.score(files, ["blue"])
    with pytest.raises(pipeline.PipelineError, match="There are no labels to score on"):
        head.score(np.asarray(table.features))


def test_what_there_is_is_listed(modelled):
    (table,) = pipeline.list_tables(cache=modelled / "cache")
    assert table.current and table.table.classes == ("blue", "red") and not table.damaged
    for given in (None, table.table, table.path, table.table.table_id[:12]):
        (head,) = pipeline.list_heads(given, cache=modelled / "cache")
        (model,) = pipeline.list_models(given, cache=modelled / "cache")
        assert isinstance(head.info, pipeline.HeadInfo) and head.best
        assert isinstance(model.info, pipeline.ModelInfo)
        assert model.info.head == head.info.id == table.heads[0].info.id
    assert pipeline.list_tables(cache=modelled / "nowhere") == []
    assert not (modelled / "nowhere").exists()


def test_trunks_are_listed_with_what_each_is_made_of():
    found = pipeline.list_trunks("resnet18")
    assert found["resnet18"].dim == 512 and "IMAGENET1K_V1" in found["resnet18"].weights
    assert set(pipeline.list_trunks().values()) == {None} and len(pipeline.list_trunks()) > 24
    with pytest.raises(ValueError, match="No trunk's name holds 'nosuch'"):
        pipeline.list_trunks("nosuch")


def test_two_heads_are_compared_by_a_paired_test(tmp_path):
    table = make_table(tmp_path / "t.h5", train=60, val=30)
    heads = [pipeline.fit_head(table, clf=clf, cache=tmp_path, folds=2, jobs=1)
             for clf in ("lda", "ncm")]  # fmt: skip
    both = pipeline.paired_test(*heads, table, cache=tmp_path)
    (one,) = both.splits
    scores = tuple(head.info.metrics["val"].accuracy for head in heads)
    assert (one.split, one.images, one.accuracies) == ("val", 30, scores) and 0 <= one.test.p <= 1
    by_id = pipeline.paired_test(heads[0].id, heads[1].folder, cache=tmp_path)
    assert by_id.splits == both.splits


def test_a_table_is_a_data_frame_where_pandas_is(tmp_path):
    pytest.importorskip("pandas")
    table = make_table(tmp_path / "t.h5", train=6, val=3, dim=4)
    frame = table.to_pandas()
    assert frame["path"].tolist() == list(table.paths)
    assert frame["label"].tolist() == [table.classes[k] for k in table.labels]
    assert frame["split"].tolist() == list(table.splits)
    numbers = frame.select_dtypes("float32").to_numpy()
    assert numbers.shape == (9, 4) and (numbers == np.asarray(table.features)).all()


def test_without_pandas_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(pipeline.PipelineError, match="pandas"):
        make_table(train=6).to_pandas()


def test_artefacts_are_taken_as_they_are_and_by_what_names_them(prepared):
    head = head_of(prepared)
    files, given = photos(prepared)[:2], {"cache": prepared / "cache", "engine": "torch"}
    whole = pipeline.predict(files, head, **given)
    for word in (head.id, head.id[:5], head.folder, str(head.folder), "logreg", None):
        assert pipeline.predict(files, word, **given) == whole
    assert Artefact.__name__ not in pipeline.__all__
