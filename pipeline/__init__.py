"""Headstart: from a folder of images to a trained classifier, paying for the trunk once.

The public names load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.errors import PipelineError as PipelineError
    from pipeline.store.table import FeatureTable as FeatureTable
    from pipeline.tuning.model import Model as Model
    from pipeline.verbs.advise import advise as advise
    from pipeline.verbs.audit import audit as audit
    from pipeline.verbs.compare_trunks import compare_trunks as compare_trunks
    from pipeline.verbs.evaluate import evaluate as evaluate
    from pipeline.verbs.export import export as export
    from pipeline.verbs.extract import extract as extract
    from pipeline.verbs.finetune import finetune as finetune
    from pipeline.verbs.fit_head import fit_head as fit_head
    from pipeline.verbs.predict import predict as predict
    from pipeline.verbs.report import report as report
    from pipeline.verbs.run import run as run
    from pipeline.verbs.show import show as show
    from pipeline.verbs.transformer import TrunkFeatures as TrunkFeatures

#: Public name to the module that defines it.
_PUBLIC = {
    "run": "pipeline.verbs.run",
    "extract": "pipeline.verbs.extract",
    "TrunkFeatures": "pipeline.verbs.transformer",
    "fit_head": "pipeline.verbs.fit_head",
    "compare_trunks": "pipeline.verbs.compare_trunks",
    "advise": "pipeline.verbs.advise",
    "finetune": "pipeline.verbs.finetune",
    "predict": "pipeline.verbs.predict",
    "evaluate": "pipeline.verbs.evaluate",
    "audit": "pipeline.verbs.audit",
    "show": "pipeline.verbs.show",
    "export": "pipeline.verbs.export",
    "report": "pipeline.verbs.report",
    "Model": "pipeline.tuning.model",
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
