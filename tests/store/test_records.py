"""What is on disk comes back as it was, and whatever else lies there is refused by name."""

import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import METRICS, calibration, head_info, model_info, model_scores, split_metrics
from tables import make_table, provenance

from pipeline.errors import DamagedError
from pipeline.store import records, result_records, upkeep
from pipeline.store.cache import Cache
from pipeline.store.records import TABLE_SCHEMA, PassCost, Provenance
from pipeline.store.result_records import HeadInfo, ModelInfo
from pipeline.store.results import HEAD, MODEL
from pipeline.store.table import FeatureTable
from pipeline.store.typed_json import Record

RECORDS = [
    one
    for one in (vars(records) | vars(result_records)).values()
    if isinstance(one, type)
    and issubclass(one, Record)
    and one not in (Record, result_records.ResultInfo)
]
CLASS = {"class": "ant", "images": 25, "precision": 0.5, "recall": None, "f1": None}
TRIED = {
    "parameters": {"C": 1.0},
    "score": 0.8,
    "log_loss": 0.5,
    "spread": 0.01,
    "folds": [0.8],
    "converged": True,
}
EPOCH = {"number": 0, "train_loss": None, "loss": 0.5, "accuracy": 0.8, "seconds": 1.0, "lr": 0.1,
         "candidate": ""}  # fmt: skip
SCORED = {**METRICS, "classes": (CLASS,)}
#: Records in which nothing is empty, so that every field of every part can be damaged.
FULL = {
    HeadInfo: head_info(
        calibration=calibration(), notes=("a",), versions={"numpy": "2"}, trials=(TRIED,),
        metrics={"val": split_metrics(**SCORED)}, files={"head.skops": "0" * 64},
        repeats={"split": "val", "accuracies": [0.8, 0.9], "mean": 0.85, "spread": 0.05},
    ),
    ModelInfo: model_info(
        calibration=calibration(), learns=("a.b",), places=("layer4",), shards=("a.h5",),
        head_metrics={"val": split_metrics(**SCORED)}, moved={"head": 0.1}, history=(EPOCH,),
        metrics={"val": model_scores(model=SCORED, selected_on=True)}, recipe={"lr": 0.1},
        handover={"features": 0.1, "images": 5}, settings={"lr": 0.1},
    ),
    Provenance: provenance(cost=PassCost(10, 1.5), key={"a": 1}, versions={"numpy": "2"}),
}  # fmt: skip
WRONG = (None, True, 3, 10**400, 1.5, float("nan"), float("inf"), "x", [], ["x", []], {}, {"x": []})


def stored(kind):
    return [f for f in fields(kind) if f.metadata.get("stored", True)]


def plain(value):
    """Return a value as it is when it has been a file."""
    return json.loads(json.dumps(value))


def json_of(kind):
    """Return a strategy of JSON values of a field's type."""
    inner = get_args(kind)
    if NoneType in inner:
        return st.none() | json_of(inner[0])
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return st.fixed_dictionaries({f.name: json_of(hints[f.name]) for f in stored(kind)})
    if is_typeddict(kind):
        return st.fixed_dictionaries({n: json_of(k) for n, k in get_type_hints(kind).items()})
    if get_origin(kind) is dict:
        return st.dictionaries(st.text(max_size=3), json_of(inner[1]), max_size=2)
    if get_origin(kind) is tuple and Ellipsis not in inner:
        return st.tuples(*map(json_of, inner)).map(list)
    if get_origin(kind) in (tuple, list):
        return st.lists(json_of(inner[0]), max_size=2)
    of = {
        Any: st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=3),
        float: st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9),
        int: st.integers(),
        str: st.text(max_size=3),
        bool: st.booleans(),
    }
    return of[kind]


def consistent(kind, values):
    """Return values that contradict themselves nowhere."""
    if issubclass(kind, result_records.ResultInfo):
        values["classes"] = [*values["classes"], values["majority"]]
    if kind is ModelInfo:
        parts = ("activations", "head", "training", "evaluation")
        values["seconds"] = {**dict.fromkeys(parts, 1.0), **values["seconds"]}
        scores = plain(model_scores().to_json())
        values["metrics"] = {values["selected_on"]: scores, **values["metrics"]}
    return values


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
@settings(max_examples=30)
@given(data=st.data())
def test_what_is_written_comes_back(kind, data):
    values = consistent(kind, data.draw(json_of(kind)))
    read = kind.from_json(plain(values))
    assert plain(read.to_json()) == values
    assert kind.from_json(plain(read.to_json())) == read


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
@settings(max_examples=30)
@given(data=st.data())
def test_keys_that_are_no_fields_are_ignored(kind, data):
    values = consistent(kind, data.draw(json_of(kind)))
    more = {"of a later release": [1], "folder": "/etc"}
    assert kind.from_json({**values, **more}) == kind.from_json(values)


def admits(kind, value):
    """Tell whether a wrong value is right for this type after all."""
    inner = get_args(kind)
    if NoneType in inner:
        return value is None or admits(inner[0], value)
    if kind is Any:
        return True
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(admits(inner[1], one) for one in value.values())
    if get_origin(kind) in (tuple, list):
        fixed = Ellipsis not in inner and get_origin(kind) is tuple
        fits = isinstance(value, list) and all(admits(inner[0], one) for one in value)
        return fits and (not fixed or len(value) == len(inner))
    if kind is float:
        return type(value) in (int, float) and abs(value) < 1e300  # NaN compares as false
    return kind in (int, str, bool) and type(value) is kind


def places(kind, value, path=()):
    """Yield the path and the type of every value inside a record's JSON."""
    inner = get_args(kind)
    if path:
        yield path, kind
    if NoneType in inner:
        kind, inner = inner[0], get_args(inner[0])
    if is_dataclass(kind) or is_typeddict(kind):
        for name, of in get_type_hints(kind).items():
            if name in value:
                yield from list(places(of, value[name], (*path, name)))
    elif get_origin(kind) is dict and value is not None:
        for key, one in value.items():
            yield from places(inner[1], one, (*path, key))
    elif get_origin(kind) in (tuple, list) and value:
        for number, one in enumerate(value):
            yield from places(inner[0], one, (*path, number))


def changed(values, path, *, to):
    """Return a copy in which one value is another; without `to` its key is gone."""
    values = plain(values)
    inner = values
    for step in path[:-1]:
        inner = inner[step]
    if to is KeyError:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return values


@pytest.mark.parametrize("kind", FULL, ids=lambda kind: kind.__name__)
def test_a_value_of_another_type_is_refused_by_the_name_of_its_field(kind):
    values, refused = plain(FULL[kind].to_json()), 0
    assert kind.from_json(values) == FULL[kind]
    for path, of in set(places(kind, values)):
        for wrong in WRONG:
            bad = changed(values, path, to=wrong)
            if admits(of, wrong):
                continue
            named = [step for step in path if isinstance(step, str)]
            with pytest.raises(ValueError, match=rf"\b{named[-1]}\b") as caught:
                kind.from_json(bad)
            assert len(str(caught.value)) < 500, path
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("kind", FULL, ids=lambda kind: kind.__name__)
def test_a_field_that_is_missing_is_named(kind):
    values = plain(FULL[kind].to_json())
    for path, _ in set(places(kind, values)):
        inside = [f.name for f in stored(kind)] if len(path) == 1 else None
        if inside is None or path[0] not in inside:
            continue
        with pytest.raises(ValueError, match=f"lacks {path[0]}$"):
            kind.from_json(changed(values, path, to=KeyError))
    if kind is HeadInfo:
        for path, name in [
            (("features", "trunk"), r"features\.trunk"),
            (("recipe", "shots"), r"recipe\.shots"),
            (("trials", 0, "parameters"), r"trials\[0\]\.parameters"),
            (("metrics", "val", "classes", 0, "class"), r"metrics\.val\.classes\[0\]\.class"),
        ]:
            with pytest.raises(ValueError, match=f"lacks {name}$"):
                kind.from_json(changed(values, path, to=KeyError))


@pytest.mark.parametrize(
    ("kind", "path", "to", "message"),
    [
        (HeadInfo, ("dim",), True, "has True for dim, not a whole number"),
        (HeadInfo, ("spread",), "0.1", "has '0.1' for spread, not a number"),
        (HeadInfo, ("spread",), float("nan"), "has nan for spread, not a number"),
        (HeadInfo, ("parameters",), [1], "has [1] for parameters, not an object"),
        (HeadInfo, ("linear",), 1, "has 1 for linear, not true or false"),
        (HeadInfo, ("classes",), "ant", "has 'ant' for classes, not a list"),
        (HeadInfo, ("majority",), "cat", "has 'cat' for majority, which is no class of it"),
        (ModelInfo, ("selected_on",), "test", "lacks metrics.test"),
        (ModelInfo, ("seconds", "head"), KeyError, "lacks seconds.head"),
        (ModelInfo, ("metrics", "val", "model", "interval"), [0.5],
         "has [0.5] for metrics.val.model.interval, not a list of 2"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_the_rest_of_a_sentence(kind, path, to, message):
    with pytest.raises(ValueError) as caught:
        kind.from_json(changed(FULL[kind].to_json(), path, to=to))
    assert str(caught.value) == message


def deep(levels):
    return "[" * levels + "]" * levels


HEAD_JSON = json.dumps(FULL[HeadInfo].to_json())
HOSTILE = {
    "no object": "7",
    "a list": "[]",
    "nested without end": "[" * 200_000,
    "nested": deep(2000),
    "nested parameters": HEAD_JSON.replace('{"C": 1.0}', f'{{"C": {deep(900)}}}', 1),
    "nested beside the fields": HEAD_JSON[:-1] + f', "more": {deep(900)}}}',
    "a nested schema": f'{{"schema": {deep(900)}}}',
    "a number of many digits": HEAD_JSON.replace('"spread": 0.01', f'"spread": {"9" * 5000}', 1),
    "no text": "\ud800",
    "wide": '{"schema": 4, "id": [' + "0," * 200_000 + "0]}",
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_file_ends_in_a_sentence(tmp_path, how):
    folder = tmp_path / "heads" / "0123456789ab"
    folder.mkdir(parents=True)
    (folder / "head.json").write_bytes(HOSTILE[how].encode(errors="surrogatepass"))
    with pytest.raises(DamagedError, match=r"^The head .* is (damaged|of schema)") as caught:
        HEAD.read(folder)
    assert len(str(caught.value)) < 400 + len(str(folder))
    assert HEAD.every(tmp_path) == ([], [str(caught.value)])
    assert upkeep.verify(Cache.at(tmp_path)).problems == {str(folder): str(caught.value)}


@pytest.mark.parametrize("kind", [HEAD, MODEL], ids=lambda kind: kind.name)
def test_a_key_that_was_added_is_no_damage_until_the_file_is_verified(tmp_path, kind):
    folder = tmp_path / f"{kind.name}s" / "0123456789ab"
    folder.mkdir(parents=True)
    written = kind.write(folder, replace(FULL[kind.record], files={}))
    path = folder / f"{kind.name}.json"
    assert upkeep.verify(Cache.at(tmp_path)).problems == {}
    path.write_text(json.dumps({**json.loads(path.read_text()), "more": 1}))
    assert kind.read(folder) == written
    assert "is not what was written" in upkeep.verify(Cache.at(tmp_path)).problems[str(path)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": "0"}, r"is damaged: its provenance has '0' for seed, not a whole number\."),
        ({"cost": {"computed": 1}}, r"is damaged: its provenance lacks cost\.seconds\."),
        ({"key": json.loads(deep(500))}, r"is damaged: its provenance is nested deeper than 32"),
        ({"root": None}, r"is damaged: its provenance has None for root, not a text\."),
        ({"schema": 1}, f"is not a table of schema {TABLE_SCHEMA}: make it again"),
    ],
)
def test_a_table_whose_provenance_is_damaged_says_what_is(tmp_path, changes, message, monkeypatch):
    values = {**provenance().to_json(), **changes}
    monkeypatch.setattr(Provenance, "to_json", lambda self: values)
    with pytest.raises(DamagedError, match=message):
        make_table(tmp_path / "t.h5", train=4)
    monkeypatch.undo()
    with pytest.raises(DamagedError, match=message):
        FeatureTable.open(tmp_path / "t.h5")


def test_values_of_other_libraries_are_written_as_plain_ones():
    odd = {
        "lr": np.float32(0.25),
        "at": Path("a/b"),
        "steps": (np.int64(2), object),
        3: np.bool_(1),
    }
    kept = model_info(recipe=odd).to_json()["recipe"]
    assert json.loads(json.dumps(kept)) == {
        "lr": 0.25, "at": "a/b", "steps": [2, "<class 'object'>"], "3": True
    }  # fmt: skip


def test_a_confusion_of_a_thousand_classes_is_read_whole():
    rows = tuple(tuple(range(k, k + 1000)) for k in range(1000))
    values = plain(split_metrics(confusion=rows).to_json())
    assert result_records.SplitMetrics.from_json(values).confusion == rows
    values["confusion"][7][9] = True
    with pytest.raises(ValueError, match=r"has True for confusion\[7\]\[9\], not a whole number"):
        result_records.SplitMetrics.from_json(values)
