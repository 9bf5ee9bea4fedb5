"""`Predictor`: from images to classes, whatever was fitted: a head on its trunk, or a model.

`of_head` and `of_model` make one; `pipeline.heads.resolve` opens one by id. What predicts,
evaluates and exports works on this alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cores import usable_cores
from pipeline.errors import PipelineError
from pipeline.extraction.crashes import noted_apart
from pipeline.finetuning.network.network import Network
from pipeline.heads.head import Head
from pipeline.heads.linear import LinearHead
from pipeline.heads.metrics import softmax
from pipeline.images.decoding.loader import load
from pipeline.images.decoding.pictures import as_source
from pipeline.images.preprocess import Preprocess
from pipeline.progress import Silent
from pipeline.store.cache import Cache
from pipeline.store.records import HeadInfo, ModelInfo
from pipeline.trunks import registry
from pipeline.trunks.engines.devices import choose_device, choose_precision
from pipeline.trunks.engines.engine import Engine, run_batches
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
        classes: K names; columns of logits and probabilities are in this order.
        preprocess: from a decoded image to a crop, exactly as in training.
        key: what its features depend on: of a head to find them in the cache, of a model with the
            digest of its own weights.
        linear: from features to logits as one layer; None where the head is not linear.
        classify: features [N, D] → logits [N, K] float, not calibrated; −∞ for a class that was
            never seen.
        load: returns the network from crops to features; called once, when first needed.
        cache: where what protects a run from images that crash the decoder is noted.
    """

    kind: str
    info: HeadInfo | ModelInfo
    classes: tuple[str, ...]
    preprocess: Preprocess
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
        stored = self.key.precision
        return "fp32" if (stored, device) == ("fp16", "cpu") else stored

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

    def logits(self, features: np.ndarray, engine: Engine) -> np.ndarray:
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
        sources = ((as_source(image), None, 0) for image in images)
        probabilities = [np.empty((0, len(self.classes)))]
        with (
            noted_apart(self.cache, Silent()) as guard,
            closing(
                load(
                    sources,
                    self.preprocess,
                    batch_size=_BATCH,
                    workers=usable_cores(),
                    pad=False,
                    guard=guard,
                )
            ) as batches,
        ):
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
        trunk = registry.load(
            given.trunk, given.weights_asked, keys=given.keys, state_dir=cache.weights
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
        classes=head.info.classes,
        preprocess=key.preprocess,
        key=key,
        linear=head.linear,
        classify=head.logits,
        load=network,
        cache=cache,
    )


def of_model(info: ModelInfo, network: Network, cache: Cache) -> Predictor:
    """Return a fine-tuned network as a predictor.

    Args:
        info: `model.json`.
        network: from crops to logits, in eval mode.
        cache: where the notes on what is decoded are.
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
        classes=info.classes,
        preprocess=preprocess,
        key=key,
        linear=linear,
        classify=linear.scores,
        load=lambda: network.body,
        cache=cache,
    )
