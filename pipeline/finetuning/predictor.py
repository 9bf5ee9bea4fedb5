"""`Predictor`: from images to classes, whatever was fitted: a head on its trunk, or a model.

`of_head` makes one of a head, and a `Model` is one. What predicts, evaluates and exports works on
this alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pipeline.cores import usable_cores
from pipeline.errors import PipelineError
from pipeline.extraction.crashes import noted_apart
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
            asked: `fp32`, `bf16`, `fp16`, or `auto` for that of the stored predictions; fp16,
                which a CPU does not have, is fp32 there then.

        Raises:
            UsageError: fp16 is asked for on a CPU.
        """
        if asked != "auto":
            return choose_precision(asked, device)
        stored = self.key.precision
        return "fp32" if (stored, device) == ("fp16", "cpu") else stored

    def fp32_engine(self, device: str = "auto") -> Engine:
        """Return PyTorch in fp32 as the engine; `pipeline.inference.logit_stream` knows others.

        Args:
            device: `auto`, `cpu`, `cuda` or `mps`.

        Raises:
            PipelineError: the trunk's weights are missing, or others now.
            UsageError: the device is not there.
        """
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
            images: N paths; or N pictures, uint8 arrays [H, W, 3] or PIL images.
            device: `auto`, `cpu`, `cuda` or `mps`.
            calibrated: divide logits by the temperature of `info.calibration`.

        Raises:
            PipelineError: an image that cannot be read, named.
        """
        if isinstance(images, str | bytes | Path) or not hasattr(images, "__len__"):
            raise PipelineError(
                f"A {self.kind} predicts on a sequence of paths or pictures, not on one."
            )
        engine = self.fp32_engine(device)
        sources = ((as_source(image), None, 0) for image in images)
        probabilities = [np.empty((0, len(self.classes)))]
        with noted_apart(self.cache, Silent()) as guard, ExitStack() as stack:
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
        trunk = registry.load(
            given.trunk, given.weights_asked, keys=given.keys, state_dir=cache.weights
        )
        registry.check_weights(
            trunk, given.weights_digest, asked=given.weights_asked,
            made=f"the features of the head {head.id}",
            otherwise="run `pipeline extract` and `pipeline fit-head` again",
        )  # fmt: skip
        return FeatureNet(trunk.module, key.preprocess, key.layer, key.pool)

    return Predictor(head.info, key, head.linear, head.logits, network, cache)
