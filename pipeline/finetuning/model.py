"""From images to classes, whatever was fitted: a head on its trunk, or a fine-tuned network.

`of_head` makes a `Predictor` of a head, and a `Model` is one, as it is kept in
`cache/models/<id>/` and read back. What predicts, evaluates and exports works on `Predictor` alone.
torch is imported when a network is loaded: a converted one in the cache runs without.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from safetensors import SafetensorError, safe_open

from pipeline.arguments import path_of
from pipeline.cores import usable_cores
from pipeline.errors import DamagedError, PipelineError
from pipeline.extraction.crashes import noted
from pipeline.heads.head import Head, is_right
from pipeline.heads.linear import LinearHead
from pipeline.heads.metrics import softmax
from pipeline.heads.resolve import Artefact
from pipeline.images.datasets.given import images_in
from pipeline.images.decoding.loader import load
from pipeline.images.decoding.pictures import as_source
from pipeline.images.preprocess import Preprocess
from pipeline.progress import Silent
from pipeline.store.cache import Cache
from pipeline.store.result_records import HeadInfo, ModelInfo
from pipeline.store.results import MODEL
from pipeline.trunks.engines.devices import choose_device, choose_precision
from pipeline.trunks.engines.engine import Engine, run_batches
from pipeline.trunks.spec import FeatureKey

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.finetuning.network import Network
    from pipeline.trunks.feature_net import FeatureNet

_BATCH = 32


@dataclass(frozen=True, eq=False)
class Predictor:
    """Crops → features → logits → probabilities. Two are equal when they are the same object.

    Attributes:
        kind: `head` or `model`.
        info: its `head.json` or `model.json`.
        key: what its features depend on: of a head to find them in the cache, of a model with the
            digest of its own weights.
        linear: from features to logits as one layer; None where the head is not linear.
        classify: features [N, D] → logits [N, K] float, not calibrated; −∞ for a class that was
            never seen.
        load: returns the network from crops to features; called once, when first needed.
        cache: where what protects a run from images that crash the decoder is noted.
    """

    kind: ClassVar[str] = "head"

    info: HeadInfo | ModelInfo
    key: FeatureKey
    linear: LinearHead | None
    classify: Callable[[np.ndarray], np.ndarray]
    load: Callable[[], FeatureNet]
    cache: Cache

    @property
    def id(self) -> str:
        """Return the id, twelve hexadecimal digits."""
        return self.info.id

    @property
    def classes(self) -> tuple[str, ...]:
        """Return K names; columns of logits and probabilities are in this order."""
        return self.info.classes

    @property
    def preprocess(self) -> Preprocess:
        """Return what makes a crop of a decoded image, exactly as in training."""
        return self.key.preprocess

    @property
    def title(self) -> str:
        """Return what it is, for people: `head 0123456789ab (logreg on resnet18)`."""
        return self.info.summary

    def __repr__(self) -> str:
        """Return its title; the network has hundreds of lines."""
        return f"<{self.title}>"

    @property
    def temperature(self) -> float:
        """Return what logits are divided by for calibrated probabilities; 1 where none was fitted.

        See `pipeline.heads.metrics.calibrate`.
        """
        return self.info.calibration_temperature

    @cached_property
    def net(self) -> FeatureNet:
        """Return the network from uint8 crops [B, 3, S, S] to features [B, D], fp32."""
        return self.load()

    def precision_on(self, device: str, asked: str = "auto") -> str:
        """Return the precision to compute in.

        Args:
            device: `cpu`, `cuda` or `mps`.
            asked: `fp32`, `tf32`, `bf16`, `fp16`, or `auto` for that of the stored
                predictions; fp16 and tf32, which a CPU does not have, are fp32 there then.

        Raises:
            UsageError: fp16 is asked for on a CPU.
        """
        if asked != "auto":
            return choose_precision(asked, device)
        stored = self.key.precision
        lacking = (stored, device) == ("fp16", "cpu") or (stored == "tf32" and device != "cuda")
        return "fp32" if lacking else stored

    def fp32_engine(self, device: str = "auto") -> Engine:
        """Return PyTorch in fp32 as the engine; `pipeline.inference.logit_stream` knows others.

        Args:
            device: `auto`, `cpu`, `cuda` or `mps`.

        Raises:
            PipelineError: the trunk's weights are missing, or others now.
            UsageError: the device is not there.
        """
        from pipeline.trunks.engines.torch_engine import TorchEngine

        place = choose_device(device)
        return TorchEngine(self.net, device=place, precision="fp32", size=self.preprocess.crop)

    def logits(self, features: np.ndarray, engine: Engine) -> np.ndarray:
        """Return the logits [B, K], not calibrated, of features [B, D] that an engine computed.

        Raises:
            PipelineError: they are not numbers.
        """
        logits = self.classify(features)
        if np.isnan(logits).any():
            raise PipelineError(
                f"The {self.title} gave scores that are not numbers on {engine.name}; give "
                "--precision fp32, or another --engine or --device."
            )
        return logits

    def probabilities(self, logits: np.ndarray, *, calibrated: bool = True) -> np.ndarray:
        """Return probabilities [N, K] float64 of logits [N, K]."""
        return softmax(logits, self.temperature if calibrated else 1.0)

    def predict_proba(
        self, images: Sequence[Any], *, device: str = "auto", calibrated: bool = True
    ) -> np.ndarray:
        """Return probabilities [N, K] float64, computed in fp32.

        Args:
            images: N paths; or N pictures as `predict` takes them, or a data frame's column.
            device: `auto`, `cpu`, `cuda` or `mps`.
            calibrated: divide logits by the temperature of `info.calibration`.

        Raises:
            PipelineError: an image that cannot be read, named.
        """
        several = images_in(images)
        if several is None:
            raise PipelineError(
                f"A {self.kind} predicts on a sequence of paths or pictures, not on one."
            )
        images = list(several)
        engine = self.fp32_engine(device)
        sources = ((as_source(image), None, 0) for image in images)
        probabilities = [np.empty((0, len(self.classes)))]
        with noted(self.cache, Silent()) as guard, ExitStack() as stack:
            batches = load(
                sources, self.preprocess, batch_size=_BATCH, workers=usable_cores(), pad=False,
                guard=guard,
            )  # fmt: skip
            stack.callback(batches.close)
            for batch, features in run_batches(engine, batches):
                for slot, reason in batch.bad.items():
                    image = images[batch.start + slot]
                    name = image if isinstance(image, str | Path) else "a picture"
                    raise PipelineError(f"{name} could not be decoded: {reason}.")
                logits = self.logits(features, engine)
                probabilities.append(self.probabilities(logits, calibrated=calibrated))
        return np.concatenate(probabilities)


def of_head(head: Head, cache: Cache) -> Predictor:
    """Return a head on the trunk whose features it was fitted on; the trunk is loaded when needed.

    Args:
        head: opened.
        cache: where calibrated random weights, and the notes on what is decoded, are.
    """
    given = head.info.features
    key = FeatureKey.of(given)

    def network() -> FeatureNet:
        from pipeline.trunks.feature_net import FeatureNet
        from pipeline.trunks.recorded import load_recorded

        trunk = load_recorded(
            given, cache, made=f"the features of the head {head.id}",
            otherwise="run `pipeline extract` and `pipeline fit-head` again",
        )  # fmt: skip
        return FeatureNet(trunk.module, key.preprocess, key.layer, key.pool)

    return Predictor(head.info, key, head.linear, head.logits, network, cache)


#: The file of a model's tensors in its folder.
WEIGHTS = "model.safetensors"


@dataclass(frozen=True, eq=False, repr=False)
class Model(Predictor):
    """From images to classes: trunk, fine-tuned part, head, preprocessing and class names.

    Attributes:
        info: `model.json`.
        network: from crops to logits, in eval mode.
    """

    kind = "model"

    info: ModelInfo
    network: Network

    @property
    def folder(self) -> Path | None:
        """Return where the model is kept."""
        return self.info.folder

    @property
    def classes_(self) -> np.ndarray:
        """Return [K] class names; columns of probabilities are in this order."""
        return np.array(self.classes, dtype=object)

    def predict(self, images: Sequence[Any], *, device: str = "auto") -> np.ndarray:
        """Return the likeliest class's name for each image, [N] of str."""
        return np.asarray(self.classes_[self.predict_proba(images, device=device).argmax(1)])

    def score(self, images: Sequence[Any], labels: Sequence[str], *, device: str = "auto") -> float:
        """Return the share of images whose likeliest class is their label.

        Args:
            images: as in `predict_proba`.
            labels: N class names.
            device: as in `predict_proba`.

        Raises:
            PipelineError: as `predict_proba`, or there is not one label for each image.
        """
        predicted = self.predict(images, device=device)
        return float(is_right(predicted, labels, self.classes, "images").mean())

    @classmethod
    def open(cls, folder: str | Path, *, cache: Cache | str | Path | None = None) -> Model:
        """Read a model; nothing is unpickled.

        Args:
            folder: `cache/models/<id>`.
            cache: the cache or its folder, for calibrated random weights and for the notes on
                what is decoded; else `$PIPELINE_CACHE`, else `./cache`.

        Raises:
            PipelineError: there is none, or the weights of its frozen part are others now.
            DamagedError: a file is damaged or missing, or of another schema.
        """
        import torch
        from safetensors.torch import load_file
        from torch import nn

        from pipeline.finetuning.network import Cut, Network
        from pipeline.trunks import registry
        from pipeline.trunks.recorded import load_recorded

        folder = path_of(folder, "A model's folder")
        store = cache if isinstance(cache, Cache) else Cache.at(cache)
        info = MODEL.read(folder)
        try:
            tensors = load_file(MODEL.check(folder, info, WEIGHTS))
        except (SafetensorError, OSError) as error:
            raise DamagedError(f"The model {folder} is damaged: {error}") from error
        if info.standalone:
            size = int(info.preprocess["crop"])
            trunk = registry.load(info.trunk, "random", size=size, state_dir=store.weights)
        else:
            made = f"the frozen part of the model {info.id}"
            trunk = load_recorded(info, store, made=made, otherwise="fine-tune again")
        own = {f"trunk.{name}": value for name, value in trunk.module.state_dict().items()}
        classes = len(info.classes)
        head = tensors.get("head.weight")
        if head is None or head.ndim != 2 or len(head) != classes:
            raise DamagedError(f"The model {folder} is damaged: it has no head for its classes.")
        layer = nn.Linear(head.shape[1], classes, device="meta").to_empty(device="cpu")
        own |= {f"head.{name}": value for name, value in layer.state_dict().items()}
        strange = [name for name, value in tensors.items()
                   if name not in own or own[name].shape != value.shape]  # fmt: skip
        lost = [f"trunk.{name}" for name in info.learns if f"trunk.{name}" not in tensors]
        if strange or lost:
            raise DamagedError(
                f"The model {folder} is damaged: {(strange + lost)[0]} does not fit its trunk."
            )
        with torch.no_grad():
            for name, value in tensors.items():
                own[name].copy_(value)
        preprocess = Preprocess.from_json(info.preprocess)
        network = Network(
            trunk.module, preprocess, layer=info.layer, pool=info.pool,
            cut=Cut("pixels", info.learns, info.places), head=layer, l2=info.l2,
        )  # fmt: skip
        network.to(memory_format=torch.channels_last).eval().requires_grad_(False)
        plain = {name: value.numpy(force=True) for name, value in network.plain_head().items()}
        linear = LinearHead(plain["weight"], plain["bias"], l2=network.l2)
        return cls(info, _key(info), linear, linear.scores, lambda: network.body, store, network)


@dataclass(frozen=True, eq=False, repr=False)
class _Unopened(Predictor):
    """A model whose network is read when it has to run, and not where a converted one is kept."""

    kind = "model"


def _of_model(folder: Path, cache: Cache) -> Predictor:
    """Return what predicts as a model does; its network is read when it is needed.

    Raises:
        DamagedError: a file is damaged or missing, or of another schema.
    """
    info = MODEL.read(folder)
    try:
        with safe_open(MODEL.check(folder, info, WEIGHTS), framework="numpy") as file:
            weight, bias = (file.get_tensor(f"head.{name}") for name in ("weight", "bias"))
    except (SafetensorError, OSError) as error:
        raise DamagedError(f"The model {folder} is damaged: {error}") from error
    if weight.ndim != 2 or bias.shape != weight.shape[:1] or len(weight) != len(info.classes):
        raise DamagedError(f"The model {folder} is damaged: it has no head for its classes.")
    linear = LinearHead(weight, bias, l2=info.l2)
    return _Unopened(
        info, _key(info), linear, linear.scores,
        lambda: Model.open(folder, cache=cache).network.body, cache,
    )  # fmt: skip


def _key(info: ModelInfo) -> FeatureKey:
    """Return what a model's features depend on, with the digest of its own weights."""
    weights = info.weights_digest + info.files[WEIGHTS]
    return FeatureKey(
        info.trunk, hashlib.sha256(weights.encode()).hexdigest(), info.layer, info.pool,
        Preprocess.from_json(info.preprocess), info.precision,
    )  # fmt: skip


def open_predictor(artefact: Artefact, cache: Cache) -> Predictor:
    """Return what predicts with a head or a model.

    Raises:
        PipelineError: it is damaged or of another schema, or its trunk's weights are not there.
    """
    if artefact.kind is MODEL:
        return _of_model(artefact.folder, cache)
    return of_head(Head.open(artefact.folder), cache)


def tensors_of(network: Network, *, standalone: bool) -> dict[str, Tensor]:
    """Return what `model.safetensors` holds: the part behind the boundary, or all; and the head."""
    own = network.body.trunk.state_dict() if standalone else network.suffix()
    tensors = {f"trunk.{name}": value for name, value in own.items()}
    tensors |= {f"head.{name}": value for name, value in network.plain_head().items()}
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def write(folder: Path, info: ModelInfo, tensors: dict[str, Tensor]) -> ModelInfo:
    """Write `model.safetensors`, then `model.json` with the digests of the folder's files.

    Returns:
        `model.json` as it was written.
    """
    from safetensors.torch import save

    (folder / WEIGHTS).write_bytes(save(tensors))  # by itself it tells no system error as such
    return MODEL.write(folder, info)
