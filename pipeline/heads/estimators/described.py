"""scikit-learn's estimators as text, `sklearn.svm:SVC{"C": 2}`, so that a recipe can hold them."""

from __future__ import annotations

import inspect
import json
import re
import sys
from importlib import import_module
from typing import Any

from pipeline.arguments import named, plain
from pipeline.errors import UsageError

_PLACE = re.compile(r"sklearn(\.\w+)+:\w+")
#: Key of a JSON object that stands for a tuple.
_TUPLE = "()"


def is_estimator(value: Any) -> bool:
    """Tell whether something is an estimator of scikit-learn's kind, not its class."""
    return hasattr(value, "get_params") and hasattr(value, "fit") and not isinstance(value, type)


def describe(estimator: Any) -> str:
    """Return an estimator as text: its class, and the parameters that differ from the defaults.

    Raises:
        UsageError: it is not scikit-learn's own, or has parameters that are no text.
    """
    ((place, parameters),) = _encoded(estimator).items()
    return f"{place}{json.dumps(parameters) if parameters else ''}"


def build(text: str) -> Any:
    """Return the unfitted classifier that `describe` gave a text for.

    Raises:
        UsageError: it is no such text, or no classifier of scikit-learn that scores classes.
    """
    place, brace, rest = text.partition("{")
    try:
        made = _decoded({place: json.loads(brace + rest) if brace else {}})
        _check(made)
    except UsageError:
        raise
    except (ImportError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"--clf {text!r} is no estimator of scikit-learn ({error}). Such as "
            'sklearn.svm:SVC{"C": 2}; in Python give the estimator itself.'
        ) from error
    return made


def _check(made: Any) -> None:
    from sklearn.base import is_classifier

    kind = type(made).__name__
    if not is_classifier(made):
        raise UsageError(f"--clf must be a classifier, and {kind} is none.")
    if not (hasattr(made, "predict_proba") or hasattr(made, "decision_function")):
        raise UsageError(
            f"--clf must give probabilities or scores, and {kind} has neither predict_proba nor "
            "decision_function as it is set."
        )
    if any(key.endswith("decision_function_shape") and value == "ovo"
           for key, value in made.get_params().items()):  # fmt: skip
        raise UsageError(
            f"--clf: {kind} must give a score for each class: leave decision_function_shape at "
            "'ovr'. The predictions are the same."
        )


def short(name: str) -> str:
    """Return what a head is called on boards: its kind, or its estimator's class."""
    return name.partition("{")[0].rpartition(":")[2]


def settings(name: str) -> dict[str, Any]:
    """Return the numbers and texts that the text of an estimator sets."""
    _, brace, rest = name.partition("{")
    given = json.loads(brace + rest) if brace else {}
    return {key: value for key, value in given.items() if not isinstance(value, list | dict)}


def split(text: str) -> list[str]:
    """Return the parts of a text between commas, of which those in `{…}` are none.

    Raises:
        ValueError: what begins with `{` is no JSON.
    """
    parts = []
    while text:
        end = next((at for at, letter in enumerate(text) if letter in ",{"), len(text))
        if text[end : end + 1] == "{":
            end = json.JSONDecoder().raw_decode(text, end)[1]
        parts.append(text[:end].strip())
        text = text[end:].lstrip().removeprefix(",")
    return [part for part in parts if part]


def _encoded(value: Any) -> Any:
    value = plain(value, str)
    if isinstance(value, list):
        return [_encoded(one) for one in value]
    if isinstance(value, tuple):
        return {_TUPLE: [_encoded(one) for one in value]}
    if isinstance(value, bool | int | float | str | None):
        return value
    if not is_estimator(value):
        raise UsageError(
            f"--clf: {named(value)} is a parameter that cannot be kept with a head; numbers, "
            "texts, lists and estimators can."
        )
    parameters = inspect.signature(type(value)).parameters
    given = value.get_params(deep=False)
    different = {
        name: _encoded(one)
        for name, one in given.items()
        if name not in parameters or not _same(one, parameters[name].default)
    }
    return {_place(type(value)): different}


def _same(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and bool(value == default))


def _place(kind: type) -> str:
    """Return `module:class`, of the outermost module that has it: releases move inner ones."""
    parts = kind.__module__.split(".")
    for depth in range(2, len(parts) + 1):
        module = ".".join(parts[:depth])
        if parts[0] == "sklearn" and getattr(sys.modules[module], kind.__name__, None) is kind:
            return f"{module}:{kind.__name__}"
    raise UsageError(
        f"--clf: {kind.__module__}.{kind.__name__} is not scikit-learn's own, and could not be "
        "read back without running unknown code. Fit it yourself on `table.features`."
    )


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(one) for one in value]
    if not isinstance(value, dict):
        return value
    ((place, inner),) = value.items()
    if place == _TUPLE:
        return tuple(_decoded(one) for one in inner)
    if not _PLACE.fullmatch(place):
        raise ValueError(f"'{place}' is not as sklearn.svm:SVC")
    from sklearn.base import BaseEstimator

    module, name = place.split(":")
    kind = getattr(import_module(module), name)
    if not (isinstance(kind, type) and issubclass(kind, BaseEstimator)):
        raise ValueError(f"{place} is no estimator")
    return kind(**{key: _decoded(one) for key, one in inner.items()})
