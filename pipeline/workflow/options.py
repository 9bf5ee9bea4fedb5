"""`RunRecipe`: what `run` is asked for, which is what its three stages are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UsageError, nearest
from pipeline.extraction.options import Recipe
from pipeline.finetuning.options import TuneRecipe
from pipeline.heads.options import HeadRecipe
from pipeline.heads.registry import HEADS
from pipeline.options import option

STAGES: Mapping[str, type[Any]] = {
    "extract": Recipe, "fit-head": HeadRecipe, "finetune": TuneRecipe,
}  # fmt: skip
#: Options that mean the same in every stage: given once, to all that have them.
SHARED = ("precision", "device", "workers", "seed")
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
class RunRecipe:
    """The options of `run`, sorted into those of its stages.

    Args:
        extract: of stage one.
        fit_head: of stage two.
        finetune: of stage three; None where nothing asks for it.
        report: whether a page shows it all at the end.
    """

    extract: Recipe
    fit_head: HeadRecipe
    finetune: TuneRecipe | None
    report: bool = True

    @classmethod
    def of(cls, options: Mapping[str, Any], *, report: bool = True) -> RunRecipe:
        """Return the recipe of options of `SETTINGS`, by name; `unfreeze` asks for stage three.

        Raises:
            UsageError: a name that none of the stages has.
        """
        parts: dict[str, dict[str, Any]] = {stage: {} for stage in STAGES}
        for name, value in options.items():
            if name not in SETTINGS:
                raise UsageError(f"run has no option '{name}'.{nearest(name, SETTINGS)}")
            for stage, field in SETTINGS[name]:
                parts[stage][field] = value
        tune = None
        if parts["finetune"].get("unfreeze") is not None:
            unfreeze = str(parts["finetune"].pop("unfreeze"))
            tune = TuneRecipe(**parts["finetune"], unfreeze=unfreeze, resume=None)
        return cls(Recipe(**parts["extract"]), HeadRecipe(**parts["fit-head"]), tune, report)

    def check(self, given: Collection[str] = ()) -> None:
        """Refuse values that cannot be right, before the first stage begins.

        Args:
            given: names of options that somebody gave, which must not be in vain.

        Raises:
            UsageError: what was given, what is allowed, what to do.
        """
        self.extract.check()
        names = self.fit_head.check()
        if self.finetune is None:
            vain = [name for name in given if only_finetune(name)]
            if vain:
                several = len(vain) > 1
                raise UsageError(
                    f"{', '.join(map(option, vain))} {'are' if several else 'is'} of stage three, "
                    "for which only --unfreeze asks: add --unfreeze layer4."
                )
            return
        self.finetune.check()
        if not any(HEADS[name].linear or HEADS[name].make is None for name in names):
            raise UsageError(
                f"Fine-tuning starts from a linear head, and {', '.join(names)} "
                f"{'is none' if len(names) == 1 else 'are none'}: add logreg to --clf."
            )


def only_finetune(name: str) -> bool:
    """Tell whether an option of `run` is of stage three alone."""
    return {stage for stage, _ in SETTINGS[name]} == {"finetune"} and name != "unfreeze"
