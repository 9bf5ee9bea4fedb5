"""Which model is asked for, and whether it is there. Imports no torch: a rerun starts fast."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from safetensors import SafetensorError, safe_open

from pipeline.errors import PipelineError
from pipeline.finetuning.options import FinetuneOptions
from pipeline.finetuning.task import Task, find_head, part_rows
from pipeline.heads.head import Head
from pipeline.store.cache import Cache
from pipeline.store.records import HeadInfo, ModelInfo
from pipeline.store.results import MODEL
from pipeline.store.table import FeatureTable


@dataclass(frozen=True, eq=False)
class Plan:
    """A model that is asked for.

    Attributes:
        head: `head.json` of the head to start from.
        table: its table.
        task: which rows do what.
        options: with what `--from-scratch` settles settled.
        model_id: twelve hexadecimal digits, of all that the model depends on.
        folder: where it is, or will be.
    """

    head: HeadInfo
    table: FeatureTable
    task: Task
    options: FinetuneOptions
    model_id: str
    folder: Path

    def made(self) -> ModelInfo | None:
        """Return `model.json` of a model that is finished; else it is to be made (again)."""
        try:
            info = MODEL.read(self.folder)
            with safe_open(self.folder / "model.safetensors", framework="numpy"):
                return info if info.finished else None
        except (PipelineError, SafetensorError, OSError):
            return None


def plan(
    cache: Cache, asked: Head | str | Path | None, options: FinetuneOptions, notes: list[str]
) -> Plan:
    """Return which model a head and options make.

    Args:
        cache: where heads, tables and models are.
        asked: see `tune_task.find_head`.
        options: checked.
        notes: takes sentences for the person.

    Raises:
        PipelineError: there is no such head, or too few images.
    """
    if options.from_scratch:
        options = replace(options, unfreeze="all", start="random")
    head, table = find_head(cache, asked, notes)
    task = part_rows(table, head, options.select_on, notes)
    model_id = _model_id(head, options)
    return Plan(head, table, task, options, model_id, cache.root / "models" / model_id)


def _model_id(head: HeadInfo, options: FinetuneOptions) -> str:
    """Return what a model depends on, hashed."""
    parts = options.deciding()
    parts |= {"head": head.id, "table_id": head.table_id, "schema": MODEL.schema}
    parts["versions"] = {name: version(name) for name in ("headstart", "torch", "torchvision")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
