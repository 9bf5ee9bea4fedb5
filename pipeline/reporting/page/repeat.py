"""What it takes to do all of it again: command lines, and versions of packages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.analysis.options import AdviseOptions
from pipeline.finetuning.options import FinetuneOptions
from pipeline.heads.options import FitHeadOptions
from pipeline.store.result_records import HeadInfo, ModelInfo
from pipeline.store.table import FeatureTable


def commands(
    table: FeatureTable,
    heads: Sequence[HeadInfo],
    models: Sequence[ModelInfo],
    advice: dict[str, Any] | None,
) -> list[str]:
    """Return the command lines that make a table, its heads, its models and its advice again.

    Args:
        table: says itself how it was made.
        heads: `head.json` of each head.
        models: `model.json` of each model.
        advice: that is kept on the table, or None.
    """
    found = [table.provenance.command]
    for info in heads:
        options = FitHeadOptions.recorded(info.recipe, f"The head {info.folder or info.id}")
        words = [table.table_id[:12], "--clf", options.clf]
        found.append(options.command_line("fit-head", words, without=("clf",)))
    for model in models:
        words = [model.head, "--unfreeze", model.unfreeze]
        tuned = FinetuneOptions.recorded(model.recipe, f"The model {model.folder or model.id}")
        found.append(tuned.command_line("finetune", words, without=("unfreeze",)))
    if advice is not None:
        asked = AdviseOptions.recorded(advice["recipe"], "The advice")
        found.append(asked.command_line("advise", [table.table_id[:12]]))
    return [*dict.fromkeys(found), f"pipeline report {table.table_id[:12]}"]


def versions(
    table: FeatureTable, heads: Sequence[HeadInfo], models: Sequence[ModelInfo]
) -> list[dict[str, Any]]:
    """Return the versions of packages that made a table, its heads and models, each once.

    Args:
        table: as in `commands`.
        heads: as in `commands`.
        models: as in `commands`.
    """
    sources = [("features", table.provenance.versions)]
    sources += [("heads", info.versions) for info in heads]
    sources += [("models", info.versions) for info in models]
    found: dict[tuple[str, str], list[str]] = {}
    for stage, numbers in sources:
        for package, number in numbers.items():
            stages = found.setdefault((package, number or "not installed"), [])
            stages += [] if stage in stages else [stage]
    return [
        {"package": package, "version": number, "of": ", ".join(stages)}
        for (package, number), stages in sorted(found.items())
    ]
