"""Stage three: partial fine-tuning that starts from a fitted head."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from pipeline.errors import PipelineError
from pipeline.heads.head import Head
from pipeline.heads.linear import LinearHead
from pipeline.heads.metrics import log_loss, softmax
from pipeline.store.cache import Cache
from pipeline.store.results import MODEL
from pipeline.store.table import FeatureTable
from pipeline.trunks.devices import choose_device, choose_precision
from pipeline.tuning import handover, state
from pipeline.tuning.handover import Handover
from pipeline.tuning.model import Model
from pipeline.tuning.training import Part, Settings, Training, train
from pipeline.verbs.boundary import Wanted
from pipeline.verbs.checks import from_options
from pipeline.verbs.prepare import (
    Prepared,
    faster,
    load_trunk,
    make_network,
    make_source,
)
from pipeline.verbs.progress import Progress, Silent
from pipeline.verbs.tune_recipe import TuneRecipe
from pipeline.verbs.tune_result import Outcome, commit
from pipeline.verbs.tune_task import Task, find_head, part_rows, refit

#: Options that change where and how a model is made, but not which.
_MEANS = ("data", "device", "workers", "resume")


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

    info: dict[str, Any]
    folder: Path
    reused: bool
    notes: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            **self.info,
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
    if recipe.from_scratch:
        recipe = replace(recipe, unfreeze="all", start="random")
    notes: list[str] = []
    info, table = find_head(cache, asked, notes)
    task = part_rows(table, info, recipe.select_on, notes)
    model_id = _model_id(info, recipe)
    folder = cache.root / "models" / model_id
    if (there := _there(folder)) is not None:
        return Tuning(there, folder, True, tuple(notes), time.monotonic() - began)

    device = choose_device(recipe.device)
    trunk = load_trunk(table, recipe, cache)
    found = refit(info, table, task)
    assert found.linear is not None
    start = None if recipe.start == "random" else found.linear
    network = make_network(trunk, table, recipe, start, task.train)
    precision = choose_precision(recipe.precision, device)
    wanted = _wanted(table, task, recipe)
    prepared = make_source(
        cache, table, trunk, network, wanted, recipe=recipe, device=device, progress=progress
    )
    if prepared.views < 0 <= recipe.drawn:
        notes.append("There was no room for activations: they were computed anew in every epoch.")
    network.to(torch.device(device)).to(memory_format=torch.channels_last)
    initial = {name: value.detach().clone() for name, value in network.learned().items()}
    tuner = Training(
        network,
        faster(network, prepared.source, wanted.scored[0], device=device, precision=precision),
        prepared.source,
        _part(table, task.train),
        _part(table, task.select),
        settings_of(recipe, prepared, precision),
        notes=notes,
    )
    saved = cache.root / "training" / f"{model_id}.safetensors"
    agreed = _begin(tuner, saved, recipe, table, task, start, progress)
    outcome = Outcome(
        model_id, info, table, trunk, task, recipe, found, prepared, tuner, initial, agreed
    )
    clock = time.monotonic()

    def after_epoch(training: Training) -> None:
        if not training.ended:
            _keep(training, saved, agreed)
        _tell(training, progress, time.monotonic() - clock)

    try:
        finite = train(tuner, after_epoch=after_epoch)
    except torch.OutOfMemoryError as error:
        raise PipelineError(
            f"One image does not fit the memory of {device}; unfreeze fewer stages, or give "
            "--device cpu."
        ) from error
    except KeyboardInterrupt:
        commit(outcome, folder, finished=False)
        progress.say(
            f"Kept epoch {tuner.best_epoch}, the best so far, in {folder}. The same command with "
            "--resume goes on."
        )
        raise
    written = commit(outcome, folder, finished=finite)
    saved.unlink(missing_ok=True)
    if not prepared.live:
        cache.end_run(prepared.fingerprint, prepared.keys)  # the model names them now
    if not finite:
        raise PipelineError(
            f"The loss was no longer finite in epoch {len(tuner.history)}, at a learning rate of "
            f"{recipe.rate:g}. Kept is epoch {tuner.best_epoch}, the best until then, in {folder}. "
            f"Try --lr {recipe.rate / 10:g}."
        )
    return Tuning(written, folder, False, tuple(notes), time.monotonic() - began)


def _begin(
    tuner: Training,
    saved: Path,
    recipe: TuneRecipe,
    table: FeatureTable,
    task: Task,
    start: LinearHead | None,
    progress: Progress,
) -> Handover | None:
    """Check the hand-over at step 0, or take up an unfinished run."""
    held = state.read(saved) if recipe.resume else None
    if held is not None:
        tensors, facts = held
        tuner.restore(tensors, facts)
        progress.say(f"Going on after epoch {len(tuner.history) - 1}.")
        return None if facts["handover"] is None else Handover(**facts["handover"])
    if recipe.resume:
        progress.say("There is no unfinished run of this to resume: starting at the beginning.")
    elif saved.exists():
        progress.say(
            "Starting over. (An unfinished run of the same was there; --resume goes on with one.)"
        )
    features, logits = tuner.begin()
    first = tuner.history[0]
    line = f"epoch 0  selection {first.loss:.4f} ({first.accuracy:.3f})"
    if start is None:
        progress.say(f"{line}, from a random last layer")
        _keep(tuner, saved, None)
        return None
    agreed = handover.check(
        features,
        logits,
        table=np.asarray(table.features[task.select]),
        head=start,
        precisions=(str(table.provenance["precision"]), tuner.settings.precision),
    )
    before = softmax(start.scores(np.asarray(table.features[task.select])), start.temperature)
    labels = table.labels[task.select]
    progress.say(
        f"{line}; the head {log_loss(labels, before):.4f} "
        f"({np.mean(before.argmax(1) == labels):.3f}); logits differ by {agreed.logits:.2g} of "
        f"their length, {agreed.tolerance:g} is allowed"
    )
    _keep(tuner, saved, agreed)
    return agreed


def _keep(tuner: Training, saved: Path, agreed: Handover | None) -> None:
    """Write the state from which `--resume` goes on."""
    tensors, facts = tuner.state()
    state.keep(saved, tensors, {**facts, "handover": None if agreed is None else asdict(agreed)})


def _tell(training: Training, progress: Progress, seconds: float) -> None:
    """Tell one line of the epoch that ended."""
    last, epochs = training.history[-1], training.settings.epochs
    mean = float(np.mean([epoch.seconds for epoch in training.history[1:]]))
    left = mean * (epochs - last.number)
    mark = "  best" if training.best_epoch == last.number else ""
    progress.say(
        f"epoch {last.number}/{epochs}  train {last.train_loss:.4f}  selection {last.loss:.4f} "
        f"({last.accuracy:.3f})  lr {last.lr:.2e}, head {last.head_lr:.2e}  {last.seconds:.1f} s, "
        f"{left:.0f} s left{mark}"
    )


def _wanted(table: FeatureTable, task: Task, recipe: TuneRecipe) -> Wanted:
    root = Path(recipe.data or table.provenance["root"]).expanduser().absolute()
    if not root.is_dir() and recipe.data is not None:
        raise PipelineError(f"--data {root} is not a folder.")
    scored = np.concatenate(list(task.scored.values()))
    every = np.unique(np.concatenate([task.train, scored]))
    digests = [bytes.fromhex(digest) for digest in table.digests]
    return Wanted(
        train=tuple(digests[row] for row in task.train),
        scored=tuple(digests[row] for row in scored),
        views=max(0, recipe.drawn),
        paths={digests[row]: f"{root}/{table.paths[row]}" for row in every},
    )


def _part(table: FeatureTable, rows: np.ndarray) -> Part:
    return Part(tuple(bytes.fromhex(table.digests[row]) for row in rows), table.labels[rows])


def settings_of(recipe: TuneRecipe, prepared: Prepared, precision: str) -> Settings:
    """Return how to train: the recipe with what was left open settled."""
    return Settings(
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        lr=recipe.rate,
        head_lr_factor=recipe.head_factor,
        optimizer=recipe.optimizer,
        weight_decay=recipe.weight_decay,
        schedule=recipe.schedule,
        label_smoothing=recipe.label_smoothing,
        patience=recipe.patience,
        ema=recipe.ema,
        views=prepared.views,
        seed=recipe.seed,
        precision=precision,
    )


def _model_id(head: dict[str, Any], recipe: TuneRecipe) -> str:
    """Return what a model depends on, hashed."""
    parts = {name: value for name, value in asdict(recipe).items() if name not in _MEANS}
    parts |= {"head": head["id"], "table_id": head["table_id"], "schema": MODEL.schema}
    parts["versions"] = {name: version(name) for name in ("headstart", "torch", "torchvision")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _there(folder: Path) -> dict[str, Any] | None:
    """Return the `model.json` of a finished model; an unfinished or damaged one is made again."""
    try:
        info = MODEL.read(folder)
        with safe_open(folder / "model.safetensors", framework="pt"):
            return info if info["finished"] else None
    except (PipelineError, SafetensorError, OSError):
        return None
