"""What `advise` found on a table, kept for the report: one JSON file a table.

It holds the sha256 of its own values. What is read again is of the shape that was written, to the
last value, or it is refused: the report need not ask again.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedError
from pipeline.store.atomic import write_bytes
from pipeline.store.cache import Cache
from pipeline.store.results import checksum
from pipeline.store.trouble import cannot_read

SCHEMA = 1


def _text(value: Any) -> bool:
    # paths that are not UTF-8 have surrogates of their bytes, and no others can be printed
    return isinstance(value, str) and not re.search("[\ud800-\udc7f\udd00-\udfff]", value)


def _time(value: Any) -> bool:
    pattern = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not _flag(value) and abs(value) < 1 << 63


def _count(value: Any) -> bool:
    return _whole(value) and value >= 0


def _some(value: Any) -> bool:
    return _whole(value) and value >= 1


def _number(value: Any) -> bool:
    return _whole(value) or (isinstance(value, float) and math.isfinite(value))


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _interval(of: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, list) and len(value) == 2 and all(map(of, value)) and value[0] <= value[1]
    )


_AGREEMENT = {
    "images": _some, "accuracy": _share, "interval": _interval(_share), "chance": _share,
    "p": _share,
}  # fmt: skip
_FORECAST = {
    "images": _some, "accuracy": _share, "interval": _interval(_share), "gain": _number,
    "gain_interval": _interval(_number),
}  # fmt: skip
_POINT = {
    "images": _some, "accuracies": [_share], "accuracy": _share, "interval": _interval(_share)
}  # fmt: skip
#: Name to shape: a test of a value; a list's only entry is the shape of all; of a pair one fits.
_SHAPE = {
    "schema": _some,
    "created": _time,
    "recipe": {
        "sample": _count, "data": (None, _text), "device": _text, "workers": (None, _some),
        "seed": _whole,
    },
    "table": _text,
    "table_id": _text,
    "trunk": _text,
    "size": {
        "images": _some, "classes": _some, "smallest": _some, "median": _number, "largest": _some,
        "looked_at": _some,
    },
    "majority": _share,
    "neighbours": _AGREEMENT,
    "linear": (None, _AGREEMENT),
    "reference": (
        None,
        {
            "images": _some, "linear": _share, "random_linear": _share, "neighbours": _share,
            "random_neighbours": _share,
        },
    ),
    "similarity": {"share": _number, "interval": _interval(_number), "against": _text},
    "curve": (
        None,
        {
            "measured_on": _text, "held_images": _some, "points": [_POINT],
            "forecasts": [_FORECAST], "check": (None, _FORECAST),
        },
    ),
    "gains": [
        {
            "model": _text, "unfreeze": _text, "split": _text, "chose": _flag, "images": _some,
            "train_images": _count, "head": _share, "head_interval": _interval(_share),
            "accuracy": _share, "interval": _interval(_share), "log_loss_fell": _number,
            "log_loss_error": (None, _number), "head_alone": (None, _count),
            "model_alone": (None, _count), "kept_head": _flag, "gained": _number,
            "verdict": _text,
        }
    ],
    "recommendation": {
        "size": _text, "similarity": _text, "action": _text, "title": _text, "commands": [_text],
        "reasons": [_text], "sources": [_text],
    },
    "notes": [_text],
    "seconds": _number,
    "checksum": _text,
}  # fmt: skip


def path_of(cache: Cache, table_id: str) -> Path:
    """Return where the advice on a table is kept."""
    return cache.advice / f"{table_id}.json"


def files(cache: Cache) -> list[Path]:
    """Return every file of advice, sorted; each is named by its table's id."""
    found = sorted(cache.advice.glob("*.json"))
    return [path for path in found if re.fullmatch("[0-9a-f]{64}", path.stem) and path.is_file()]


def write(cache: Cache, values: dict[str, Any]) -> None:
    """Keep the advice on a table, in place of an earlier one.

    Args:
        cache: where it is kept.
        values: what `Advice.to_json` gives, with `created` and `recipe`.

    Raises:
        PipelineError: it cannot be written.
    """
    whole = {**values, "schema": SCHEMA}
    whole["checksum"] = checksum(whole)
    data = (json.dumps(whole, indent=1) + "\n").encode()
    write_bytes(path_of(cache, values["table_id"]), data, what="the advice")


def read(cache: Cache, table_id: str) -> dict[str, Any] | None:
    """Return the advice that is kept on a table; None where there is none.

    Raises:
        DamagedError: it is not what was written, or of another schema.
        PipelineError: the system cannot read it now.
    """
    path = path_of(cache, table_id)
    again = f"`pipeline advise {table_id[:12]}` makes it again."
    try:
        info = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise cannot_read("the advice", path, error) from error
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"The advice {path} is damaged: it is no JSON. {again}") from error
    schema = info.get("schema") if isinstance(info, dict) else None
    if isinstance(schema, int) and schema != SCHEMA:
        raise DamagedError(
            f"The advice {path} is of schema {schema}, and this release reads {SCHEMA}: "
            + ("update Headstart." if schema > SCHEMA else again)
        )
    if not _fits(info, _SHAPE) or info["checksum"] != checksum(info):
        raise DamagedError(f"The advice {path} is damaged: it is not what was written. {again}")
    if info["table_id"] != table_id:
        raise DamagedError(f"The advice {path} is on another table. {again}")
    return dict(info)


def _fits(value: Any, shape: Any) -> bool:
    if shape is None:
        return value is None
    if isinstance(shape, tuple):
        return any(_fits(value, one) for one in shape)
    if isinstance(shape, list):
        return isinstance(value, list) and all(_fits(one, shape[0]) for one in value)
    if isinstance(shape, dict):
        return (
            isinstance(value, dict)
            and value.keys() == shape.keys()
            and all(_fits(value[name], one) for name, one in shape.items())
        )
    return bool(shape(value))
