"""`Model`: a fine-tuned network as it is kept in `cache/models/<id>/`, and read back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.errors import DamagedError, PipelineError
from pipeline.finetuning.network.network import Cut, Network
from pipeline.finetuning.predictor import Predictor, of_head
from pipeline.heads.head import Head
from pipeline.heads.linear import LinearHead
from pipeline.heads.resolve import Artefact
from pipeline.images.preprocess import Preprocess
from pipeline.store.cache import Cache
from pipeline.store.records import ModelInfo
from pipeline.store.results import MODEL
from pipeline.trunks import registry
from pipeline.trunks.spec import FeatureKey

#: The file of a model's tensors in its folder.
WEIGHTS = "model.safetensors"


@dataclass(frozen=True, eq=False)
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
        if len(labels) != len(images):
            raise PipelineError(f"{len(images)} images have {len(labels)} labels.")
        return float((self.predict(images, device=device) == np.array(labels, object)).mean())

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
        folder = Path(folder)
        store = cache if isinstance(cache, Cache) else Cache.at(cache)
        info = MODEL.read(folder)
        try:
            tensors = load_file(MODEL.check(folder, info, WEIGHTS))
        except (SafetensorError, OSError) as error:
            raise DamagedError(f"The model {folder} is damaged: {error}") from error
        frozen = "random" if info.standalone else info.weights_asked
        trunk = registry.load(info.trunk, frozen, keys=info.keys, state_dir=store.weights)
        if not info.standalone:
            registry.check_weights(
                trunk, info.weights_digest, asked=info.weights_asked,
                made=f"the frozen part of the model {info.id}", otherwise="fine-tune again",
            )  # fmt: skip
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
        weights = info.weights_digest + info.files[WEIGHTS]
        digest = hashlib.sha256(weights.encode()).hexdigest()
        key = FeatureKey(info.trunk, digest, info.layer, info.pool, preprocess, info.precision)
        return cls(info, key, linear, linear.scores, lambda: network.body, store, network)


def open_predictor(artefact: Artefact, cache: Cache) -> Predictor:
    """Return what predicts with a head or a model.

    Raises:
        PipelineError: it is damaged or of another schema, or its trunk's weights are not there.
    """
    if artefact.kind is MODEL:
        return Model.open(artefact.folder, cache=cache)
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
    save_file(tensors, folder / WEIGHTS)
    return MODEL.write(folder, info)
