"""Whatever a caller from Python gives is taken, or refused in a sentence."""

import inspect
import json
import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import NoneType

import numpy as np
import pandas
import pytest
import torch
from declared import EVERY, named
from PIL import Image
from tables import make_table

import pipeline
from pipeline.errors import PipelineError, UsageError


class _Odd:
    """An object that cannot even be written."""

    def __repr__(self):
        raise RuntimeError("no")


#: What callers from Python give by mistake, or as other libraries have it.
ODD = [
    None, True, np.bool_(True), 0, -1, 7, 10**30, 10**5000, np.int64(3), np.uint8(3), 0.5,
    np.float32(0.25), np.float64(7), np.longdouble(0.5), math.nan, math.inf, -math.inf, 1e300,
    Fraction(1, 2), Fraction(10**400), Decimal("0.5"), 1j, "", "64", "a\0b", "~no-such-person/x",
    "é" * 300,
    "\udce9", np.str_("auto"), b"a", b"\xff", (64, 64), [], ["a"], {}, {"a": 1}, set(), Path("a"),
    Path(), np.zeros(3), np.zeros((0, 2)), np.array(7), np.array("a"), torch.tensor(2),
    torch.zeros(2), Image.new("RGB", (2, 2)), pandas.DataFrame({"path": []}), object(), int, len,
    _Odd(), iter(()), range(3),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=named)
def test_any_value_is_refused_in_a_sentence_or_taken_as_json_holds_it(kind, name):
    for value in ODD:
        asked = kind(**{name: value})
        try:
            asked.check()
        except UsageError as error:
            assert len(str(error)) < 1000 and "\n" not in str(error)
        else:
            taken = getattr(asked, name)
            again = json.loads(json.dumps(taken))
            assert (tuple(again) if isinstance(taken, tuple) else again) == taken
            assert type(taken) in (NoneType, bool, int, float, str, tuple)


#: With these every function that takes all other values ends in a sentence, before any work.
IN_VAIN = {"trunk": "nosuch", "trunks": "nosuch", "what": "nosuch", "first": "no", "second": "no"}
EVERY_FUNCTION = [n for n in pipeline.__all__ if inspect.isfunction(getattr(pipeline, n))]


@pytest.mark.parametrize("name", EVERY_FUNCTION)
def test_a_public_function_answers_any_argument_with_a_value_or_a_sentence(
    name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    function = getattr(pipeline, name)
    parameters = inspect.signature(function).parameters
    needed = {p: "nosuch" for p in parameters if parameters[p].default is inspect.Parameter.empty}
    usual = needed | {p: value for p, value in IN_VAIN.items() if p in parameters}
    usual |= {"cache": tmp_path / "cache"} if "cache" in parameters else {}
    for parameter in parameters:
        for value in ODD:
            if hasattr(value, "__next__"):
                value = iter(())
            try:
                done = function(**{**usual, parameter: value})
                assert done is not None
            except (UsageError, PipelineError) as error:
                assert len(str(error)) < 2000, (parameter, type(value))
            except Exception as error:
                raise AssertionError(f"{name}({parameter}={type(value)}): {error!r}") from error


def test_the_public_functions_refuse_before_they_do_anything(tmp_path):
    table = make_table()
    calls = [
        lambda: pipeline.extract("digits", views="8", cache=tmp_path),
        lambda: pipeline.fit_head(table, views="8", cache=tmp_path),
        lambda: pipeline.run("digits", fit_head_views="8", cache=tmp_path),
        lambda: pipeline.compare_trunks("digits", folds="8", cache=tmp_path),
        lambda: pipeline.advise(table, sample="8", cache=tmp_path),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"must be a whole number, not '8'\.$"):
            call()
    assert list(tmp_path.iterdir()) == []
