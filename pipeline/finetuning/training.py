"""`Training`: the steps, the epochs, the best of them, and the state from which it goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import PipelineError
from pipeline.finetuning.activations import Source
from pipeline.finetuning.network import Network, between, mixed
from pipeline.finetuning.settings import Epoch, Part, Settings, draw, factor
from pipeline.heads.metrics import log_loss, softmax, tempered
from pipeline.store.shards import Key
from pipeline.trunks.engines.torch_engine import DTYPES
from pipeline.trunks.sources.random_weights import seeded

Result = TypeVar("Result")

MOMENTUM = 0.9
#: Largest norm of a step's gradient, over all parameters.
CLIP = 1.0
#: Images at once where nothing learns.
EVALUATION_BATCH = 64


class Diverged(Exception):
    """The loss is not finite."""


@dataclass
class Training:
    """A run of fine-tuning.

    Attributes:
        network: what learns; holds the state after the last epoch.
        run: the same tensors, perhaps in a form that runs faster.
        source: gives activations.
        train: images that are learned from.
        select: images whose log-loss chooses the epoch; without any, the last one is kept.
        settings: how.
        class_weights: [K] that weigh each class in the loss and in the selection; None: all alike.
        soft: the last layer with which the first step begins; None: the network's.
        history: of every epoch so far.
        start: the learned tensors before the first step.
        average: exponential moving average of the learned tensors over the steps (Polyak and
            Juditsky 1992): what is scored and kept. It forgets by half in 0.7 `ema` epochs.
        best: the average at the end of the epoch that is kept, or what lies between it and `start`.
        best_epoch: its number.
        notes: sentences for the person.
        uses: activations that were asked for.
    """

    network: Network
    run: Network
    source: Source
    train: Part
    select: Part
    settings: Settings
    class_weights: np.ndarray | None = None
    soft: nn.Linear | None = None
    history: list[Epoch] = field(default_factory=list)
    start: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    notes: list[str] = field(default_factory=list)
    uses: int = 0

    def __post_init__(self) -> None:
        s = self.settings
        places, head = self.network.groups()
        rates = [(values, s.layer_decay**depth) for depth, values in enumerate(places)]
        groups = [
            {"params": part, "weight_decay": decay, "factor": times}
            for values, times in (*rates, (head, s.head_lr_factor))
            for part, decay in (  # none on biases and norms, as is the custom
                ([p for p in values if p.ndim > 1], s.weight_decay),
                ([p for p in values if p.ndim <= 1], 0.0),
            )
            if part
        ]
        self.optimizer: torch.optim.Optimizer
        self.device = head[0].device
        fused = self.device.type == "cuda"
        if s.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(groups, lr=s.lr, momentum=MOMENTUM, fused=fused)
        else:
            self.optimizer = torch.optim.AdamW(groups, lr=s.lr, fused=fused)
        self.parameters: list[nn.Parameter] = [*chain(*places), *head]
        self.weights: Tensor | None = None
        if self.class_weights is not None:
            self.weights = torch.tensor(self.class_weights, dtype=torch.float32).to(self.device)
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=s.precision == "fp16" and self.device.type == "cuda"
        )
        self.steps = math.ceil(len(self.train.digests) / s.batch_size)
        self.start, self.average = self.network.copy(), self.network.copy()
        self.limit: int | None = None  # images at once, once memory has run out

    @property
    def ended(self) -> bool:
        """Whether the last epoch is reached, or patience has run out."""
        done = len(self.history) - 1
        patience = self.settings.patience
        return done >= self.settings.epochs or (
            patience is not None
            and bool(self.select.digests)
            and done - self.best_epoch >= patience
        )

    def begin(self) -> tuple[np.ndarray, np.ndarray]:
        """Score the selection part before the first step; return features [n, D] and logits."""
        started = time.perf_counter()
        features = self._evaluate(self.select, self.run.body)
        with torch.no_grad():
            inputs = torch.from_numpy(features).to(self.device)
            logits = self.run.classify(inputs).cpu().numpy()
        self._enter(logits, started)
        return features, logits

    def epoch(self) -> Epoch:
        """Go once through the training images and score the selection part.

        Raises:
            Diverged: the loss is no longer finite; the best epoch is still there.
        """
        started = time.perf_counter()
        number, s = len(self.history), self.settings
        if number == 1 and self.soft is not None:
            self.network.start_from(self.soft)
            self.average = self.network.copy()
        order, views = draw(
            len(self.train.digests), views=s.views, fresh=s.fresh, epoch=number, seed=s.seed
        )
        keys: list[Key] = [
            (self.train.digests[row], int(view)) for row, view in zip(order, views, strict=True)
        ]
        labels = torch.from_numpy(self.train.labels[order]).to(self.device)
        total, lr = torch.zeros((), device=self.device), 0.0
        self.uses += len(keys)
        self.run.train()
        try:
            with seeded(hash((s.seed, number)) & 0x7FFFFFFF):
                for step, x in enumerate(self.source.batches(keys, s.batch_size)):
                    at = (number - 1) * self.steps + step
                    lr = s.lr * factor(s.schedule, at, s.epochs * self.steps)
                    first = step * s.batch_size
                    total += self._step(x, labels[first : first + len(x)], lr) * len(x)
        finally:  # what is kept after an interruption is scored without dropout
            self.run.train(False)
        mean = float(total) / len(keys)  # the only wait for a GPU
        if not math.isfinite(mean):
            raise Diverged
        if not s.ema:
            self._follow()
        now = self.network.copy()
        try:
            share, logits = self._score()
            self._enter(logits, started, train_loss=mean, share=share, lr=lr)
        finally:
            self.network.put(now)
        return self.history[-1]

    def time_a_step(self) -> tuple[float, float]:
        """Return the seconds that learning from an image and scoring one take; change nothing."""
        size = min(self.settings.batch_size, len(self.train.digests))
        keys: list[Key] = [(digest, 0) for digest in self.train.digests[: 3 * size]]
        labels = torch.from_numpy(self.train.labels).to(self.device)
        taken: list[float] = []
        self.run.train()
        with seeded(0):
            for step, x in enumerate(self.source.batches(keys, size)):
                started = time.perf_counter()
                float(self._gradients(x, labels[step * size : step * size + len(x)]))
                taken.append((time.perf_counter() - started) / len(x))
        self.run.train(False)
        self.optimizer.zero_grad(set_to_none=True)
        started = time.perf_counter()
        self.logits(Part(self.train.digests[:size], self.train.labels[:size]))
        return min(taken), (time.perf_counter() - started) / size

    def _score(self) -> tuple[float, np.ndarray]:
        """Let the network hold what scores best of this epoch; return its share and logits.

        Raises:
            Diverged: the scores are not finite.
        """
        logits: dict[float, np.ndarray] = {}
        tensors: dict[float, dict[str, Tensor]] = {}
        blends = self.settings.blend > 0 and self.select.digests
        for share in (self.settings.blend, 1.0) if blends else (1.0,):
            tensors[share] = self.blended(self.average, share)
            logits[share] = self.logits(self.select)
            if not np.isfinite(logits[share]).all():
                raise Diverged
        best = min(logits, key=lambda share: self.loss(logits[share]))
        self.network.put(tensors[best])
        return best, logits[best]

    def blended(self, end: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
        """Let the network hold what lies at a share of the way from the start; return a copy.

        BatchNorms that learned get the statistics of what is learned from: neither end's fit
        weights that lie between.
        """
        self.network.put(between(self.start, end, share))
        if share != 1 and self.settings.train_bn:
            size = self.settings.batch_size
            even = len(self.train.digests) // size * size  # a rest has other statistics
            keys: list[Key] = [(digest, 0) for digest in self.train.digests[: even or None]]
            self.uses += len(keys)
            with self.autocast():
                self.run.take_statistics(self.source.batches(keys, size))
        return self.network.copy()

    def loss(self, logits: np.ndarray) -> float:
        """Return the log-loss of the selection part, at its best temperature; nan without one."""
        if not self.select.digests:
            return math.nan
        labels = self.select.labels
        return log_loss(labels, softmax(tempered(logits, labels)), self.class_weights)

    def _step(self, x: Tensor, labels: Tensor, lr: float) -> Tensor:
        """Take one step and return the batch's mean loss, a tensor that may be waited for."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        loss = self._gradients(x, labels)
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.parameters, CLIP)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.settings.ema:
            self._follow()
        return loss

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the network, all the way where there is none."""
        weight = 1 / (1 + self.settings.ema * self.steps)
        for name, value in self.network.learned().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, weight)
            else:  # a BatchNorm's count
                self.average[name].copy_(value)

    def _gradients(self, x: Tensor, labels: Tensor) -> Tensor:
        """Fill the gradients of a batch, in parts where memory does not hold it whole."""
        images = len(x) if self.weights is None else self.weights[labels].sum()
        x, targets = mixed(x, labels, self.settings.mixup, self.network.head.out_features)

        def fill(size: int) -> Tensor:
            self.optimizer.zero_grad(set_to_none=True)
            total = torch.zeros((), device=self.device)
            for part, own in zip(torch.split(x, size), torch.split(targets, size), strict=True):
                with self.autocast():
                    logits = self.run(part)
                loss = F.cross_entropy(
                    logits, own, self.weights, reduction="sum",
                    label_smoothing=self.settings.label_smoothing,
                ) / images  # fmt: skip
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
            return total

        # halves of a batch have other statistics
        return self._in_parts(len(x), fill, may_part=not self.settings.train_bn)

    def _in_parts(
        self, images: int, compute: Callable[[int], Result], *, may_part: bool = True
    ) -> Result:
        """Return what is computed with so many images at once, or fewer where memory runs out."""
        while True:
            size = self.limit or images
            try:
                return compute(size)
            except torch.OutOfMemoryError:
                size = min(size, images)
                if size == 1 or not may_part:
                    raise
            self.limit = (size + 1) // 2
            self.notes.append(
                f"Out of memory on {self.device} with {size} images at once; going on with "
                f"{self.limit} and the same steps."
            )
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def autocast(self) -> torch.autocast:
        """Return the context of the chosen precision."""
        dtype = DTYPES[self.settings.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32)

    def logits(self, part: Part) -> np.ndarray:
        """Return the logits [n, K] of the evaluation view of a part's images."""
        return self._evaluate(part, self.run)

    @torch.no_grad()
    def _evaluate(self, part: Part, module: nn.Module) -> np.ndarray:
        def outputs(x: Tensor, size: int) -> np.ndarray:
            with self.autocast():
                return torch.cat([module(of).float().cpu() for of in torch.split(x, size)]).numpy()

        self.uses += len(part.digests)
        batches = self.source.batches([(digest, 0) for digest in part.digests], EVALUATION_BATCH)
        values = [self._in_parts(len(x), partial(outputs, x)) for x in batches]
        width = self.network.head.in_features
        return np.concatenate(values) if values else np.empty((0, width), np.float32)

    def _enter(
        self,
        logits: np.ndarray,
        since: float,
        *,
        train_loss: float = math.nan,
        share: float = 1.0,
        lr: float = 0.0,
    ) -> None:
        """Note an epoch; where none was better, what the network holds is the best so far."""
        number, head_lr = len(self.history), lr * self.settings.head_lr_factor
        loss, accuracy = self.loss(logits), math.nan
        if self.select.digests:
            accuracy = float((logits.argmax(1) == self.select.labels).mean())
        seconds = time.perf_counter() - since
        self.history.append(Epoch(number, train_loss, share, loss, accuracy, lr, head_lr, seconds))
        kept = self.settings.keep == "last" or not self.history[:-1]
        if kept or not loss >= self.history[self.best_epoch].loss:
            self.best_epoch, self.best = number, self.network.copy()

    def keep_best(self) -> None:
        """Put the best epoch's tensors into the network."""
        self.network.put(self.best)

    @property
    def _plain(self) -> bool:
        """Whether the average and the best are what the network holds."""
        return self.settings.ema == 0 and self.settings.keep == "last"

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what `restore` takes: tensors by name, and plain JSON values."""
        now = {"now": self.network.learned()}
        if not self._plain:
            now |= {"average": self.average, "best": self.best}
        tensors = {f"{kind}/{k}": v.detach() for kind, of in now.items() for k, v in of.items()}
        held = {} if self.ended else self.optimizer.state_dict()["state"]
        for number, values in held.items():
            for name, value in values.items():
                tensors[f"optimizer/{number}/{name}"] = torch.as_tensor(value)
        facts = {
            "history": [asdict(epoch) for epoch in self.history],
            "best_epoch": self.best_epoch,
            "settings": self.settings.to_json(),
            "scaler": self.scaler.state_dict(),
            "limit": self.limit,
            "uses": self.uses,
        }
        return tensors, facts

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Go on from a state; the next epoch is bit-identical to that of a run that never ended.

        Raises:
            PipelineError: it was made with other settings, such as more views while there was room.
        """
        now, then = self.settings.to_json(), facts["settings"]
        other = [f"{name} {then[name]}, not {now[name]}" for name in now if now[name] != then[name]]
        if other:
            raise PipelineError(f"The unfinished run had {'; '.join(other)}: it cannot go on so.")

        def those(kind: str) -> dict[str, Tensor]:
            return {k: tensors[f"{kind}/{k}"].to(self.device) for k in self.network.learned()}

        self.network.put(those("now"))
        others = ("now", "now") if self._plain else ("average", "best")
        self.average, self.best = (those(kind) for kind in others)
        held: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer/"):
                _, number, name = key.split("/")
                held.setdefault(int(number), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": held, "param_groups": groups})
        self.history = [Epoch(**epoch) for epoch in facts["history"]]
        self.best_epoch, self.limit = facts["best_epoch"], facts["limit"]
        self.uses = facts["uses"]
        if facts["scaler"]:
            self.scaler.load_state_dict(facts["scaler"])
