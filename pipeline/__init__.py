"""Headstart: from a folder of images to a trained classifier, paying for the trunk once.

The public names load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.analysis.advising.advise import advise as advise
    from pipeline.analysis.auditing.audit import audit as audit
    from pipeline.analysis.comparing.compare_trunks import compare_trunks as compare_trunks
    from pipeline.errors import PipelineError as PipelineError
    from pipeline.extraction.extract import extract as extract
    from pipeline.extraction.transformer import TrunkFeatures as TrunkFeatures
    from pipeline.finetuning.finetune import finetune as finetune
    from pipeline.finetuning.model import Model as Model
    from pipeline.heads.fit_head import fit_head as fit_head
    from pipeline.inference.evaluate import evaluate as evaluate
    from pipeline.inference.exporting.export import export as export
    from pipeline.inference.predict import predict as predict
    from pipeline.reporting.page.report import report as report
    from pipeline.reporting.sheets.show import show as show
    from pipeline.store.table import FeatureTable as FeatureTable
    from pipeline.workflow.run import run as run

#: Public name to the module that defines it.
_PUBLIC = {
    "run": "pipeline.workflow.run",
    "extract": "pipeline.extraction.extract",
    "TrunkFeatures": "pipeline.extraction.transformer",
    "fit_head": "pipeline.heads.fit_head",
    "compare_trunks": "pipeline.analysis.comparing.compare_trunks",
    "advise": "pipeline.analysis.advising.advise",
    "finetune": "pipeline.finetuning.finetune",
    "predict": "pipeline.inference.predict",
    "evaluate": "pipeline.inference.evaluate",
    "audit": "pipeline.analysis.auditing.audit",
    "show": "pipeline.reporting.sheets.show",
    "export": "pipeline.inference.exporting.export",
    "report": "pipeline.reporting.page.report",
    "Model": "pipeline.finetuning.model",
    "FeatureTable": "pipeline.store.table",
    "PipelineError": "pipeline.errors",
}

__all__ = [
    "FeatureTable",
    "Model",
    "PipelineError",
    "TrunkFeatures",
    "advise",
    "audit",
    "compare_trunks",
    "evaluate",
    "export",
    "extract",
    "finetune",
    "fit_head",
    "predict",
    "report",
    "run",
    "show",
]

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
