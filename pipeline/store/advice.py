"""What `advise` found on a table, kept for the report: one JSON file a table.

It holds the sha256 of its own values; what is read again is what was written, or it is refused.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedError
from pipeline.store.atomic import cannot_read, write_bytes
from pipeline.store.cache import Cache
from pipeline.store.results import checksum

SCHEMA = 1


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
    if schema != SCHEMA or info.get("checksum") != checksum(info):
        raise DamagedError(f"The advice {path} is damaged: it is not what was written. {again}")
    if info["table_id"] != table_id:
        raise DamagedError(f"The advice {path} is on another table. {again}")
    return dict(info)
