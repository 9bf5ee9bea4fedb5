"""Headstart: from a folder of images to a trained classifier, paying for the trunk once.

The public names load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.analysis.advising.advice import Advice as Advice
    from pipeline.analysis.advising.advise import advise as advise
    from pipeline.analysis.auditing.audit import Audit as Audit
    from pipeline.analysis.auditing.audit import audit as audit
    from pipeline.analysis.comparing.compare_trunks import compare_trunks as compare_trunks
    from pipeline.analysis.comparing.results import Race as Race
    from pipeline.errors import PipelineError as PipelineError
    from pipeline.errors import UsageError as UsageError
    from pipeline.extraction.extract import extract as extract
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
    from pipeline.inference.predict import predict as predict
    from pipeline.inference.predict import predict_stream as predict_stream
    from pipeline.reporting.page.report import report as report
    from pipeline.reporting.sheets.show import show as show
    from pipeline.store.records import HeadInfo as HeadInfo
    from pipeline.store.records import Metrics as Metrics
    from pipeline.store.records import ModelInfo as ModelInfo
    from pipeline.store.table import FeatureTable as FeatureTable
    from pipeline.workflow.listings import TableSummary as TableSummary
    from pipeline.workflow.listings import list_heads as list_heads
    from pipeline.workflow.listings import list_models as list_models
    from pipeline.workflow.listings import list_tables as list_tables
    from pipeline.workflow.listings import list_trunks as list_trunks
    from pipeline.workflow.run import Run as Run
    from pipeline.workflow.run import run as run

#: Public name to the module that defines it.
_PUBLIC = {
    "run": "pipeline.workflow.run",
    "extract": "pipeline.extraction.extract",
    "TrunkFeatures": "pipeline.extraction.transformer",
    "fit_head": "pipeline.heads.fit_head",
    "finetune": "pipeline.finetuning.finetune",
    "predict": "pipeline.inference.predict",
    "predict_stream": "pipeline.inference.predict",
    "evaluate": "pipeline.inference.evaluate",
    "paired_test": "pipeline.inference.paired_test",
    "export": "pipeline.inference.exporting.export",
    "audit": "pipeline.analysis.auditing.audit",
    "advise": "pipeline.analysis.advising.advise",
    "compare_trunks": "pipeline.analysis.comparing.compare_trunks",
    "show": "pipeline.reporting.sheets.show",
    "report": "pipeline.reporting.page.report",
    "list_tables": "pipeline.workflow.listings",
    "list_heads": "pipeline.workflow.listings",
    "list_models": "pipeline.workflow.listings",
    "list_trunks": "pipeline.workflow.listings",
    "FeatureTable": "pipeline.store.table",
    "Head": "pipeline.heads.head",
    "Model": "pipeline.finetuning.model",
    "Prediction": "pipeline.inference.predict",
    "Metrics": "pipeline.store.records",
    "HeadInfo": "pipeline.store.records",
    "ModelInfo": "pipeline.store.records",
    "Ranked": "pipeline.heads.leaderboard",
    "TableSummary": "pipeline.workflow.listings",
    "Comparison": "pipeline.inference.paired_test",
    "Audit": "pipeline.analysis.auditing.audit",
    "Advice": "pipeline.analysis.advising.advice",
    "Race": "pipeline.analysis.comparing.results",
    "Run": "pipeline.workflow.run",
    "PipelineError": "pipeline.errors",
    "UsageError": "pipeline.errors",
}

__all__ = sorted(_PUBLIC)

try:
    __version__ = version("headstart")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0"


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
