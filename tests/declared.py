"""The public functions with options, for the tests of all of them."""

from dataclasses import fields

from pipeline.analysis.options import AdviseOptions, AuditOptions, CompareOptions
from pipeline.extraction.options import ExtractOptions
from pipeline.finetuning.options import FinetuneOptions
from pipeline.heads.options import FitHeadOptions
from pipeline.inference.options import EvaluateOptions, ExportOptions, PredictOptions
from pipeline.reporting.options import ReportOptions, ShowOptions

#: Public function to its options and its command; `run` has those of the stages.
FUNCTIONS = {
    "extract": (ExtractOptions, "extract"),
    "extract_part": (ExtractOptions, "extract"),
    "fit_head": (FitHeadOptions, "fit-head"),
    "finetune": (FinetuneOptions, "finetune"),
    "predict": (PredictOptions, "predict"),
    "predict_stream": (PredictOptions, "predict"),
    "evaluate": (EvaluateOptions, "evaluate"),
    "paired_test": (EvaluateOptions, "evaluate"),
    "export": (ExportOptions, "export"),
    "audit": (AuditOptions, "audit"),
    "advise": (AdviseOptions, "advise"),
    "compare_trunks": (CompareOptions, "compare"),
    "show": (ShowOptions, "show"),
    "report": (ReportOptions, "report"),
}
KINDS = {kind.__name__: (kind, command) for kind, command in FUNCTIONS.values()}
EVERY = [(kind, f.name) for kind, _ in KINDS.values() for f in fields(kind)]


def named(value):
    return value.__name__ if isinstance(value, type) else str(value)
