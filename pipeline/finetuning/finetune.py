"""Stage three: partial fine-tuning that starts from a fitted head."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.finetuning.options import TuneRecipe
from pipeline.finetuning.plan import plan
from pipeline.heads.head import Head
from pipeline.options import from_options
from pipeline.progress import Progress, Silent
from pipeline.store.cache import Cache
from pipeline.store.records import ModelInfo

if TYPE_CHECKING:
    from pipeline.finetuning.model import Model


@dataclass(frozen=True)
class Tuning:
    """What `finetune` did.

    Attributes:
        info: `model.json`.
        folder: where the model is kept.
        reused: whether it was there already.
        notes: sentences for the person.
        seconds: of the whole run.
    """

    info: ModelInfo
    folder: Path
    reused: bool
    notes: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            **self.info.to_json(),
            "path": str(self.folder),
            "reused": self.reused,
            "notes": list(self.notes),
            "run_seconds": round(self.seconds, 3),
        }


def finetune(
    head: Head | str | Path | None = None,
    unfreeze: str | int = "layer4",
    *,
    cache: str | Path | None = None,
    **options: Any,
) -> Model:
    """Fine-tune the last stages of a trunk, starting from a fitted head, and keep the model.

    Args:
        head: a head, its id, folder or kind; the best of the current table that was fitted by
            log-loss without it.
        unfreeze: stages, native modules, a number of last stages, `all` or `none`.
        cache: the cache's folder; else `$PIPELINE_CACHE`, else `./cache`.
        **options: any other field of `TuneRecipe`.

    Raises:
        PipelineError: with a sentence that says what to do.

    Example:
        >>> import pipeline
        >>> head = pipeline.fit_head(pipeline.extract("digits"), clf="logreg")
        >>> model = pipeline.finetune(head, unfreeze="layer4", epochs=1)  # doctest: +SKIP
    """
    from pipeline.finetuning.model import Model

    recipe = from_options(TuneRecipe, {"unfreeze": str(unfreeze), **options}, verb="finetune")
    store = Cache.at(cache)
    done = run(head, recipe, store)
    return Model.open(done.folder, state_dir=store.weights)


def run(
    asked: Head | str | Path | None,
    recipe: TuneRecipe,
    cache: Cache,
    progress: Progress | None = None,
) -> Tuning:
    """Do what `finetune` does and report on it."""
    began = time.monotonic()
    progress = progress or Silent()
    recipe.check()
    notes: list[str] = []
    planned = plan(cache, asked, recipe, notes)
    info = planned.made()
    reused = info is not None
    if info is None:
        from pipeline.finetuning.training_run import make

        info = make(planned, cache, notes, progress)
    return Tuning(info, planned.folder, reused, tuple(notes), time.monotonic() - began)
