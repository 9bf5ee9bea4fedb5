"""Headstart: from a folder of images to a trained classifier, paying for the trunk once.

The public names load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.analysis.advising.advise import Advice as Advice
    from pipeline.analysis.advising.advise import advise as advise
    from pipeline.analysis.auditing.audit import Audit as Audit
    from pipeline.analysis.auditing.audit import audit as audit
    from pipeline.analysis.comparing.compare_trunks import compare_trunks as compare_trunks
    from pipeline.analysis.comparing.results import Race as Race
    from pipeline.errors import PipelineError as PipelineError
    from pipeline.errors import UsageError as UsageError
    from pipeline.extraction.extract import extract as extract
    from pipeline.extraction.spread.share import PartsDone as PartsDone
    from pipeline.extraction.spread.share import extract_part as extract_part
    from pipeline.extraction.transformer import TrunkFeatures as TrunkFeatures
    from pipeline.finetuning.finetune import finetune as finetune
    from pipeline.finetuning.model import Model as Model
    from pipeline.heads.fit_head import fit_head as fit_head
    from pipeline.heads.head import Head as Head
    from pipeline.heads.leaderboard import Ranked as Ranked
    from pipeline.inference.evaluate import evaluate as evaluate
    from pipeline.inference.exporting.export import export as export
    from pipeline.inference.paired_test import Comparison as Comparison
    from pipeline.inference.paired_test import paired_test as paired_test
    from pipeline.inference.predict import Prediction as Prediction
    from pipeline.inference.predict import Session as Session
    from pipeline.inference.predict import predict as predict
    from pipeline.inference.predict import predict_stream as predict_stream
    from pipeline.reporting.page.report import report as report
    from pipeline.reporting.sheets.show import show as show
    from pipeline.store.result_records import HeadInfo as HeadInfo
    from pipeline.store.result_records import ModelInfo as ModelInfo
    from pipeline.store.score_records import Metrics as Metrics
    from pipeline.store.table import FeatureTable as FeatureTable
    from pipeline.trunks.sources.own import own_trunk as own_trunk
    from pipeline.workflow.listings import TableSummary as TableSummary
    from pipeline.workflow.listings import list_heads as list_heads
    from pipeline.workflow.listings import list_models as list_models
    from pipeline.workflow.listings import list_tables as list_tables
    from pipeline.workflow.listings import list_trunks as list_trunks
    from pipeline.workflow.run import Run as Run
    from pipeline.workflow.run import run as run

#: Module to the public names that it defines.
_DEFINED_IN = {
    "pipeline.analysis.advising.advise": ("Advice", "advise"),
    "pipeline.analysis.auditing.audit": ("audit", "Audit"),
    "pipeline.analysis.comparing.compare_trunks": ("compare_trunks",),
    "pipeline.analysis.comparing.results": ("Race",),
    "pipeline.errors": ("PipelineError", "UsageError"),
    "pipeline.extraction.extract": ("extract",),
    "pipeline.extraction.spread.share": ("extract_part", "PartsDone"),
    "pipeline.extraction.transformer": ("TrunkFeatures",),
    "pipeline.finetuning.finetune": ("finetune",),
    "pipeline.finetuning.model": ("Model",),
    "pipeline.heads.fit_head": ("fit_head",),
    "pipeline.heads.head": ("Head",),
    "pipeline.heads.leaderboard": ("Ranked",),
    "pipeline.inference.evaluate": ("evaluate",),
    "pipeline.inference.exporting.export": ("export",),
    "pipeline.inference.paired_test": ("paired_test", "Comparison"),
    "pipeline.inference.predict": ("predict", "predict_stream", "Prediction", "Session"),
    "pipeline.reporting.page.report": ("report",),
    "pipeline.reporting.sheets.show": ("show",),
    "pipeline.store.result_records": ("HeadInfo", "ModelInfo"),
    "pipeline.store.score_records": ("Metrics",),
    "pipeline.store.table": ("FeatureTable",),
    "pipeline.trunks.sources.own": ("own_trunk",),
    "pipeline.workflow.listings": (
        "list_tables",
        "list_heads",
        "list_models",
        "list_trunks",
        "TableSummary",
    ),
    "pipeline.workflow.run": ("run", "Run"),
}
_PUBLIC = {name: module for module, names in _DEFINED_IN.items() for name in names}

__all__ = sorted(_PUBLIC)

try:
    __version__ = version("headstart")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0"


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
    if _PUBLIC[name] != "pipeline.errors":  # what is raised can be caught everywhere
        from pipeline.locks import check_system

        check_system()
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
