"""Which engine computes a key's rows, or what a head or model predicts from, here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pipeline.errors import UsageError
from pipeline.store.cache import Cache
from pipeline.trunks.spec import FeatureKey
from pipeline.verbs.cores import usable_cores
from pipeline.verbs.means import Means
from pipeline.verbs.recipe import Recipe

if TYPE_CHECKING:
    from pipeline.images.crops import Crops
    from pipeline.trunks.engine import Engine
    from pipeline.trunks.feature_net import FeatureNet
    from pipeline.trunks.registry import LoadedTrunk
    from pipeline.tuning.predictor import Predictor

BATCH_SIZE = {"cpu": 32, "cuda": 128, "mps": 64}
#: Images from which on a network is converted where nothing but answers is wanted: as many as the
#: loader takes at once, so that no list is read further for it. Converting takes about as long as
#: it saves on a few hundred images, but is kept, and then every later run is the faster one.
MANY = 64


class Batches(NamedTuple):
    """How crops are put together.

    Attributes:
        size: images in one.
        pinned: whether they lie in page-locked memory, from which a GPU copies while it computes.
        cut: decodes and crops the images.
    """

    size: int
    pinned: bool
    cut: Crops

    def names(self, engine: Engine) -> str:
        """Return what to record of an engine that computes from these batches."""
        from pipeline.images.crops import crops

        return engine.name if self.cut is crops else f"{engine.name} with nvJPEG"


def batches_of(key: FeatureKey, recipe: Recipe) -> Batches:
    """Return the batches for a key's rows; an engine is not needed to know them.

    Raises:
        UsageError: the device is not there.
    """
    from pipeline.trunks.devices import choose_device

    device = "cpu" if key.layer == "pixels" else choose_device(recipe.device)
    return batches_on(device, key.precision, recipe.batch_size)


def batches_on(device: str, precision: str, size: int | None) -> Batches:
    """Return the batches for a device.

    Args:
        device: `cpu`, `cuda` or `mps`.
        precision: of the trunk: `fp32`, `bf16` or `fp16`.
        size: images in one; None for the device's default.
    """
    from pipeline.images.crops import crops

    cut: Crops = crops
    if device == "cuda":  # what a CPU never needs is not imported there
        from pipeline.images.nvjpeg import crops_for

        cut = crops_for(precision)
    return Batches(size or BATCH_SIZE[device], device == "cuda", cut)


def make_engine(
    trunk: LoadedTrunk | None,
    key: FeatureKey,
    recipe: Recipe,
    cache: Cache,
    also: Sequence[FeatureKey] = (),
) -> Engine:
    """Return the engine for a key's rows; loads the trunk where needed.

    `auto` means OpenVINO on a CPU where it is installed and can run the trunk, else PyTorch.

    Args:
        trunk: where it is loaded already.
        key: what the rows depend on.
        recipe: engine and device; trunk and weights, to load them.
        cache: where converted trunks are kept.
        also: other layers and poolings of the same trunk and precision, whose features stand
            behind the first in every row.

    Raises:
        UsageError: the device or the engine is not there, or cannot compute this.
    """
    from pipeline.trunks.devices import choose_device, choose_precision
    from pipeline.trunks.engine import Pixels

    if key.layer == "pixels":
        return Pixels()
    device = choose_device(recipe.device)

    def net() -> FeatureNet:
        from pipeline.trunks.feature_net import FeatureNet
        from pipeline.trunks.registry import load

        found = trunk or load(
            recipe.trunk, recipe.weights, keys=recipe.keys, state_dir=cache.weights
        )
        behind = [(other.layer, other.pool) for other in also]
        return FeatureNet(found.module, key.preprocess, key.layer, key.pool, also=behind)

    named = _joint([key, *also]) if also else key
    return _made(
        net, named, cache, device=device, asked=recipe.engine,
        precision=choose_precision(key.precision, device),
    )  # fmt: skip


def engine_of(predictor: Predictor, means: Means, cache: Cache, *, many: bool) -> Engine:
    """Return the engine for a head's trunk, or for a model's, converted as a whole.

    `auto` means what it means in `make_engine`, so that a head sees features of the engine that its
    table came from; but few images do not wait for a conversion that is not in the cache.

    Args:
        predictor: whose features are wanted.
        means: how to compute.
        cache: where converted networks are kept, for all commands.
        many: whether there are `MANY` images or more.

    Raises:
        UsageError: the device or the engine is not there, or cannot compute this.
    """
    from pipeline.trunks.devices import choose_device
    from pipeline.trunks.openvino_engine import place

    device = choose_device(means.device)
    convert = many or means.engine == "openvino" or place(predictor.key, cache.compiled).exists()
    return _made(
        lambda: predictor.net, predictor.key, cache, device=device,
        asked=means.engine if convert else "torch",
        precision=predictor.precision_on(device, means.precision),
    )  # fmt: skip


def _made(
    net: Callable[[], FeatureNet],
    key: FeatureKey,
    cache: Cache,
    *,
    device: str,
    asked: str,
    precision: str,
) -> Engine:
    notes: list[str] = []
    if _openvino(asked, device):
        from pipeline.trunks.openvino_engine import ConversionError, OpenVINOEngine, converted

        try:
            model = converted(net, key, folder=cache.compiled)
            return OpenVINOEngine(model, precision=precision, cores=usable_cores())
        except ConversionError as error:
            if asked == "openvino":
                raise UsageError(f"{error} Give --engine torch, or leave --engine out.") from error
            notes.append(f"{error} Going on with PyTorch.")
    from pipeline.trunks.torch_engine import TorchEngine

    engine = TorchEngine(net(), device=device, precision=precision, size=key.preprocess.crop)
    engine.notes += notes
    return engine


def make_joint_engine(
    trunk: LoadedTrunk | None, keys: Sequence[FeatureKey], recipe: Recipe, cache: Cache
) -> tuple[Engine, list[int]]:
    """Return an engine for the rows of several keys side by side, and each D.

    Args:
        trunk: where it is loaded already.
        keys: of one trunk, preprocessing and precision.
        recipe: as in `make_engine`.
        cache: as in `make_engine`.
    """
    from pipeline.trunks.feature_net import FeatureNet
    from pipeline.trunks.registry import load

    first, *also = keys
    found = trunk or load(recipe.trunk, recipe.weights, keys=recipe.keys, state_dir=cache.weights)
    behind = [(other.layer, other.pool) for other in also]
    net = FeatureNet(found.module, first.preprocess, first.layer, first.pool, also=behind)
    widths = net.widths(first.preprocess.crop)
    return make_engine(found, first, recipe, cache, also), widths


def _joint(keys: Sequence[FeatureKey]) -> FeatureKey:
    """Return what names the network of several keys; no rows are kept under it."""
    return replace(keys[0], layer=" ".join(f"{k.layer}/{k.pool}" for k in keys), pool="joint")


def _openvino(asked: str, device: str) -> bool:
    """Say whether OpenVINO is to be used; refuse it where it cannot be."""
    from pipeline.trunks import openvino_engine

    if asked == "torch":
        return False
    there = openvino_engine.available()
    if asked == "openvino" and not there:
        raise UsageError(
            "OpenVINO is not installed: `pip install 'headstart[openvino]'`, or give "
            "--engine torch."
        )
    if asked == "openvino" and device != "cpu":
        raise UsageError(f"OpenVINO runs on a CPU here, not on {device}; give --engine torch.")
    return there and device == "cpu"
