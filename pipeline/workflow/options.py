"""`RunOptions`: what `run` is asked for, which is what its three stages are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UsageError
from pipeline.extraction.options import ExtractOptions
from pipeline.finetuning.options import FinetuneOptions
from pipeline.heads.options import FitHeadOptions
from pipeline.heads.registry import kind_of
from pipeline.options import Options, flag

STAGES: Mapping[str, type[Options]] = {
    "extract": ExtractOptions,
    "fit-head": FitHeadOptions,
    "finetune": FinetuneOptions,
}
#: Options that mean the same in every stage: given once, to all that have them.
SHARED = ("precision", "device", "workers", "on", "seed")
#: Options of `finetune` that `run` settles: DATA says where images are, and it always goes on.
SETTLED = ("data", "resume")


def _settings() -> dict[str, tuple[tuple[str, str], ...]]:
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    last = {name: stage for stage, kind in STAGES.items() for name in kind.__dataclass_fields__}
    for stage, kind in STAGES.items():
        for name in kind.__dataclass_fields__:
            if stage == "finetune" and name in SETTLED:
                continue
            if name in SHARED or last[name] == stage:
                found[name] = (*found.get(name, ()), (stage, name))
            else:  # it means something else in a later stage, which keeps the name
                found[f"{stage.replace('-', '_')}_{name}"] = ((stage, name),)
    return found


#: Option of `run` → the (stage, field) that it sets: several for what all stages share; one of a
#: name that a later stage has too, for something else, takes its own stage's name in front.
SETTINGS = _settings()


@dataclass(frozen=True)
class RunOptions:
    """The options of `run`, sorted into those of its stages.

    Args:
        extract: of stage one.
        fit_head: of stage two.
        finetune: of stage three.
        tunes: whether stage three is asked for.
        report: whether a page shows it all at the end.
    """

    extract: ExtractOptions
    fit_head: FitHeadOptions
    finetune: FinetuneOptions
    tunes: bool
    report: bool = True

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> RunOptions:
        """Return the options of `SETTINGS` among values; `unfreeze` asks for stage three."""
        tunes = values.get("unfreeze") is not None
        parts: dict[str, dict[str, Any]] = {stage: {} for stage in STAGES}
        for name, places in SETTINGS.items():
            if name in values and (tunes or name != "unfreeze"):
                for stage, field in places:
                    parts[stage][field] = values[name]
        return cls(
            ExtractOptions(**parts["extract"]),
            FitHeadOptions(**parts["fit-head"]),
            FinetuneOptions(**parts["finetune"], resume=None),
            tunes,
            values.get("report", True),
        )

    def check(self) -> None:
        """Refuse values that cannot be right, before the first stage begins.

        Raises:
            UsageError: what was given, what is allowed, what to do.
        """
        self.extract.check()
        self.fit_head.check()
        self.finetune.check()
        if not self.tunes:
            plain = FinetuneOptions()
            vain = [
                flag(name)
                for name in filter(only_finetune, SETTINGS)
                if getattr(self.finetune, name) != getattr(plain, name)
            ]
            if vain:
                raise UsageError(
                    f"{', '.join(vain)} {'are' if len(vain) > 1 else 'is'} of stage three, for "
                    "which only --unfreeze asks: add --unfreeze layer4."
                )
            return
        names = self.fit_head.names
        if not any(kind_of(name).linear or kind_of(name).make is None for name in names):
            raise UsageError(
                f"Fine-tuning starts from a linear head, and {', '.join(names)} "
                f"{'is none' if len(names) == 1 else 'are none'}: add logreg to --clf."
            )


def only_finetune(name: str) -> bool:
    """Tell whether an option of `run` is of stage three alone."""
    return {stage for stage, _ in SETTINGS[name]} == {"finetune"} and name != "unfreeze"
