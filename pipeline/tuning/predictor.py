"""`Predictor`: from images to classes, whatever was fitted: a head on its trunk, or a model.

`of_head` and `of_model` make one; `pipeline.verbs.artefacts` opens one by id. What predicts,
evaluates and exports works on this alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import BadImage, PipelineError
from pipeline.heads.head import Head
from pipeline.heads.linear import LinearHead
from pipeline.heads.metrics import softmax
from pipeline.images.loader import evaluation_crop, read
from pipeline.images.pictures import as_source
from pipeline.images.preprocess import Preprocess
from pipeline.trunks import registry
from pipeline.trunks.devices import choose_device
from pipeline.trunks.feature_net import FeatureNet
from pipeline.trunks.spec import FeatureKey
from pipeline.trunks.torch_engine import TorchEngine
from pipeline.tuning.network import Network

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
        key: what the features of a head depend on, to find them in the cache; None for a model,
            whose features are its own.
        linear: from features to logits as one layer; None where the head is not linear.
        classify: features [N, D] → logits [N, K] float, not calibrated; −∞ for a class that was
            never seen.
        load: returns the network from crops to features; called once, when first needed.
    """

    kind: str
    info: dict[str, Any]
    folder: Path | None
    classes: tuple[str, ...]
    preprocess: Preprocess
    precision: str
    key: FeatureKey | None
    linear: LinearHead | None
    classify: Callable[[np.ndarray], np.ndarray]
    load: Callable[[], FeatureNet]

    @property
    def id(self) -> str:
        """Return the id, twelve hexadecimal digits."""
        return str(self.info["id"])

    @property
    def title(self) -> str:
        """Return what it is, for people: `head 0123456789ab (logreg on resnet18)`."""
        if self.kind == "head":
            how = f"{self.info['clf']} on {self.info['trunk']}"
        elif self.info["from_scratch"]:
            how = f"{self.info['trunk']} from scratch"
        else:
            how = f"{self.info['trunk']}, {self.info['unfreeze']} unfrozen"
        return f"{self.kind} {self.id} ({how})"

    @property
    def temperature(self) -> float:
        """Return what logits are divided by for calibrated probabilities; 1 where none was fitted.

        See `pipeline.heads.calibration`.
        """
        fitted = self.info["calibration"]
        return 1.0 if fitted is None else float(fitted["temperature"])

    @cached_property
    def net(self) -> FeatureNet:
        """Return the network from uint8 crops [B, 3, S, S] to features [B, D], fp32."""
        return self.load()

    def runner(
        self, *, device: str = "auto", precision: str = "auto"
    ) -> Callable[[Tensor], np.ndarray]:
        """Return a function from uint8 crops [B, 3, S, S] to logits [B, K], not calibrated.

        Args:
            device: `auto`, `cpu`, `cuda` or `mps`.
            precision: `fp32`, `bf16`, `fp16`, or `auto` for that of the stored predictions.

        Raises:
            PipelineError: the trunk's weights are missing, or others now.
            UsageError: the device is not there.
        """
        place = choose_device(device)
        used = self.precision if precision == "auto" else precision
        if place == "cpu" and used == "fp16":
            used = "fp32"
        size = self.preprocess.crop
        engine = TorchEngine(self.net, device=place, precision=used, size=size)

        def logits(crops: Tensor) -> np.ndarray:
            (features,) = engine.run([crops])
            found = self.classify(features)
            if np.isnan(found).any():
                raise PipelineError(
                    f"The {self.title} gave scores that are not numbers in {used}; give "
                    f"--precision fp32{'' if used != 'fp32' else ' on another device'}."
                )
            return found

        return logits

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
            return evaluation_crop(data, self.preprocess)
        except BadImage as error:
            raise PipelineError(f"{name} could not be decoded: {error}.") from error

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
            device: as in `runner`.
            precision: as in `runner`.
            calibrated: divide logits by the temperature.

        Raises:
            PipelineError: an image that cannot be read, named.
        """
        if isinstance(images, str | bytes | Path) or not hasattr(images, "__len__"):
            raise PipelineError(
                f"A {self.kind} predicts on a sequence of paths or pictures, not on one."
            )
        run = self.runner(device=device, precision=precision)
        found = [np.empty((0, len(self.classes)))]
        for start in range(0, len(images), _BATCH):
            crops = torch.stack([self.crop(image) for image in images[start : start + _BATCH]])
            found.append(self.probabilities(run(crops), calibrated=calibrated))
        return np.concatenate(found)


def of_head(head: Head, *, state_dir: Path) -> Predictor:
    """Return a head on the trunk whose features it was fitted on; the trunk is loaded when needed.

    Args:
        head: opened.
        state_dir: where calibrated random weights are kept.
    """
    given = head.info["features"]
    preprocess = Preprocess.from_json(given["preprocess"])
    names = ("trunk", "weights_digest", "layer", "pool")
    key = FeatureKey(
        **{name: given[name] for name in names}, preprocess=preprocess, precision=given["precision"]
    )

    def load() -> FeatureNet:
        trunk = registry.load(
            given["trunk"], given["weights_asked"], keys=given["keys"], state_dir=state_dir
        )
        if trunk.weights_digest != given["weights_digest"]:
            raise PipelineError(
                f"The head {head.id} was fitted on features of {given['trunk']} with the weights "
                f"{given['weights_digest'][:12]}, and {given['weights_asked']} now holds "
                f"{trunk.weights_digest[:12]}. Put them back, or run `pipeline extract` and "
                "`pipeline fit-head` again."
            )
        return FeatureNet(trunk.module, preprocess, given["layer"], given["pool"])

    return Predictor(
        kind="head",
        info=head.info,
        folder=head.folder,
        classes=head.classes_,
        preprocess=preprocess,
        precision=given["precision"],
        key=key,
        linear=head.linear,
        classify=head.logits,
        load=load,
    )


def of_model(info: dict[str, Any], network: Network, folder: Path | None) -> Predictor:
    """Return a fine-tuned network as a predictor.

    Args:
        info: `model.json`.
        network: from crops to logits, in eval mode.
        folder: where it is kept.
    """
    plain = {name: value.numpy(force=True) for name, value in network.plain_head().items()}
    linear = LinearHead(plain["weight"], plain["bias"], l2=network.l2)
    return Predictor(
        kind="model",
        info=info,
        folder=folder,
        classes=tuple(info["classes"]),
        preprocess=Preprocess.from_json(info["preprocess"]),
        precision=info["precision"],
        key=None,
        linear=linear,
        classify=linear.scores,
        load=lambda: network.body,
    )
