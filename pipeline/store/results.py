"""`model.json`, read without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedError, PipelineError

SCHEMA = 1
#: What every `model.json` has, as far as it is read again.
FIELDS = frozenset(
    [
        "id",
        "head",
        "table_id",
        "fingerprint",
        "trunk",
        "weights",
        "weights_asked",
        "weights_digest",
        "keys",
        "layer",
        "pool",
        "preprocess",
        "boundary",
        "learns",
        "places",
        "l2",
        "standalone",
        "classes",
        "metrics",
        "selected_on",
        "activations",
        "shards",
        "created",
        "train_images",
        "beats_head",
        "finished",
    ]
)


def read_model(folder: Path) -> dict[str, Any]:
    """Return a model's `model.json`; nothing in it is run.

    Raises:
        PipelineError: there is none.
        DamagedError: it is damaged, or of another schema.
    """
    try:
        info = json.loads((folder / "model.json").read_text())
    except FileNotFoundError as error:
        raise PipelineError(
            f"There is no model {folder}. `pipeline models` lists those there are, "
            "`pipeline finetune` makes one."
        ) from error
    except (OSError, ValueError) as error:
        raise DamagedError(f"The model {folder} is damaged: {error}") from error
    if not isinstance(info, dict) or info.get("schema") != SCHEMA:
        raise DamagedError(
            f"The model {folder} is not of schema {SCHEMA}; make it again with `pipeline finetune`."
        )
    missing = sorted(FIELDS - set(info))
    if missing:
        raise DamagedError(f"The model {folder} is damaged: model.json lacks {', '.join(missing)}.")
    return info
