"""`Predictor`: from images to classes, whatever was fitted: a head on its trunk, or a model.

`of_head` and `of_model` make one; `pipeline.heads.resolve` opens one by id. What predicts,
evaluates and exports works on this alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import BadImage, PipelineError
from pipeline.finetuning.network.network import Network
from pipeline.heads.head import Head
from pipeline.heads.linear import LinearHead
from pipeline.heads.metrics import softmax
from pipeline.images.decoding.decode import decode
from pipeline.images.decoding.pictures import as_source
from pipeline.images.decoding.quiet import quiet
from pipeline.images.decoding.reading import read
from pipeline.images.preprocess import Preprocess
from pipeline.images.views import least_side
from pipeline.store.records import HeadInfo, ModelInfo
from pipeline.trunks import registry
from pipeline.trunks.engines.devices import choose_device, choose_precision
from pipeline.trunks.engines.engine import Engine
from pipeline.trunks.engines.torch_engine import TorchEngine
from pipeline.trunks.feature_net import FeatureNet
from pipeline.trunks.spec import FeatureKey

#: The file of a model's tensors in its folder.
WEIGHTS = "model.safetensors"
_BATCH = 32


@dataclass(frozen=True, eq=False)
class Predictor:
    """Crops → features → logits → probabilities. Two are equal when they are the same object.

    Attributes:
        kind: `head` or `model`.
        info: its `head.json` or `model.json`.
        folder: where it is kept; None where it is not.
        classes: K names; columns of logits and probabilities are in this order.
        preprocess: from a decoded image to a crop, exactly as in training.
        precision: of the arithmetic that its stored predictions came from.
        key: what its features depend on: of a head to find them in the cache, of a model with the
            digest of its own weights.
        linear: from features to logits as one layer; None where the head is not linear.
        classify: features [N, D] → logits [N, K] float, not calibrated; −∞ for a class that was
            never seen.
        load: returns the network from crops to features; called once, when first needed.
    """

    kind: str
    info: HeadInfo | ModelInfo
    folder: Path | None
    classes: tuple[str, ...]
    preprocess: Preprocess
    precision: str
    key: FeatureKey
    linear: LinearHead | None
    classify: Callable[[np.ndarray], np.ndarray]
    load: Callable[[], FeatureNet]

    @property
    def id(self) -> str:
        """Return the id, twelve hexadecimal digits."""
        return self.info.id

    @property
    def title(self) -> str:
        """Return what it is, for people: `head 0123456789ab (logreg on resnet18)`."""
        info = self.info
        if isinstance(info, HeadInfo):
            how = f"{info.clf} on {info.trunk}"
        elif info.from_scratch:
            how = f"{info.trunk} from scratch"
        else:
            how = f"{info.trunk}, {info.unfreeze} unfrozen"
        return f"{self.kind} {self.id} ({how})"

    @property
    def temperature(self) -> float:
        """Return what logits are divided by for calibrated probabilities; 1 where none was fitted.

        See `pipeline.heads.calibration`.
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
            asked: `fp32`, `bf16`, `fp16`, or `auto` for that of the stored predictions; fp16,
                which a CPU does not have, is fp32 there then.

        Raises:
            UsageError: fp16 is asked for on a CPU.
        """
        if asked != "auto":
            return choose_precision(asked, device)
        return "fp32" if (self.precision, device) == ("fp16", "cpu") else self.precision

    def torch_engine(self, *, device: str = "auto", precision: str = "auto") -> Engine:
        """Return PyTorch as the engine; `pipeline.inference.predictors` knows others.

        Args:
            device: `auto`, `cpu`, `cuda` or `mps`.
            precision: as in `precision_on`.

        Raises:
            PipelineError: the trunk's weights are missing, or others now.
            UsageError: the device is not there.
        """
        place = choose_device(device)
        used = self.precision_on(place, precision)
        return TorchEngine(self.net, device=place, precision=used, size=self.preprocess.crop)

    def logits(self, engine: Engine, batches: Iterable[Tensor]) -> Iterator[np.ndarray]:
        """Yield the logits [B, K], not calibrated, of each batch of uint8 crops [B, 3, S, S].

        Args:
            engine: of its features; it may take a few batches ahead.
            batches: crops.

        Raises:
            PipelineError: they are not numbers.
        """
        return (self.score(features, engine) for features in engine.run(batches))

    def score(self, features: np.ndarray, engine: Engine) -> np.ndarray:
        """Return the logits [B, K], not calibrated, of features [B, D] that an engine computed.

        Raises:
            PipelineError: they are not numbers.
        """
        found = self.classify(features)
        if np.isnan(found).any():
            raise PipelineError(
                f"The {self.title} gave scores that are not numbers on {engine.name}; give "
                "--precision fp32, or another --engine or --device."
            )
        return found

    def probabilities(self, logits: np.ndarray, *, calibrated: bool = True) -> np.ndarray:
        """Return probabilities [N, K] float64 of logits [N, K]."""
        return softmax(logits, self.temperature if calibrated else 1.0)

    def crop(self, image: Any) -> Tensor:
        """Return the uint8 crop [3, S, S] of a path or picture.

        Raises:
            PipelineError: it cannot be read, named.
        """
        source = as_source(image)
        name = source if isinstance(source, str) else "a picture"
        try:
            data = source if isinstance(source, bytes) else read(source)
            with quiet():
                picture = decode(data, least=least_side(self.preprocess, 0))
        except BadImage as error:
            raise PipelineError(f"{name} could not be decoded: {error}.") from error
        return self.preprocess.apply(picture)

    def predict_proba(
        self,
        images: Sequence[Any],
        *,
        device: str = "auto",
        precision: str = "auto",
        calibrated: bool = True,
    ) -> np.ndarray:
        """Return probabilities [N, K] float64.

        Args:
            images: N paths; or N pictures, uint8 arrays [H, W, 3] or PIL images.
            device: as in `torch_engine`.
            precision: as in `torch_engine`.
            calibrated: divide logits by the temperature.

        Raises:
            PipelineError: an image that cannot be read, named.
        """
        if isinstance(images, str | bytes | Path) or not hasattr(images, "__len__"):
            raise PipelineError(
                f"A {self.kind} predicts on a sequence of paths or pictures, not on one."
            )
        engine = self.torch_engine(device=device, precision=precision)
        parts = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
        crops = (torch.stack([self.crop(image) for image in part]) for part in parts)
        found = [self.probabilities(x, calibrated=calibrated) for x in self.logits(engine, crops)]
        return np.concatenate([np.empty((0, len(self.classes))), *found])


def of_head(head: Head, *, state_dir: Path) -> Predictor:
    """Return a head on the trunk whose features it was fitted on; the trunk is loaded when needed.

    Args:
        head: opened.
        state_dir: where calibrated random weights are kept.
    """
    given = head.info.features
    key = FeatureKey.of(given)

    def load() -> FeatureNet:
        trunk = registry.load(
            given.trunk, given.weights_asked, keys=given.keys, state_dir=state_dir
        )
        registry.check_weights(
            trunk, given.weights_digest, asked=given.weights_asked,
            made=f"the features of the head {head.id}",
            otherwise="run `pipeline extract` and `pipeline fit-head` again",
        )  # fmt: skip
        return FeatureNet(trunk.module, key.preprocess, key.layer, key.pool)

    return Predictor(
        kind="head",
        info=head.info,
        folder=head.folder,
        classes=head.info.classes,
        preprocess=key.preprocess,
        precision=key.precision,
        key=key,
        linear=head.linear,
        classify=head.logits,
        load=load,
    )


def of_model(info: ModelInfo, network: Network, folder: Path | None) -> Predictor:
    """Return a fine-tuned network as a predictor.

    Args:
        info: `model.json`.
        network: from crops to logits, in eval mode.
        folder: where it is kept.
    """
    preprocess = Preprocess.from_json(info.preprocess)
    weights = info.weights_digest + info.files[WEIGHTS]
    key = FeatureKey(
        info.trunk,
        hashlib.sha256(weights.encode()).hexdigest(),
        info.layer,
        info.pool,
        preprocess,
        info.precision,
    )
    plain = {name: value.numpy(force=True) for name, value in network.plain_head().items()}
    linear = LinearHead(plain["weight"], plain["bias"], l2=network.l2)
    return Predictor(
        kind="model",
        info=info,
        folder=folder,
        classes=info.classes,
        preprocess=preprocess,
        precision=info.precision,
        key=key,
        linear=linear,
        classify=linear.scores,
        load=lambda: network.body,
    )
