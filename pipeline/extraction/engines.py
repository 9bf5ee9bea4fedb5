"""Which engine computes a key's rows here, and that it runs the weights that the key names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.extraction.options import ExtractOptions
from pipeline.store.cache import Cache
from pipeline.trunks import spec
from pipeline.trunks.engines import devices
from pipeline.trunks.engines.choice import Batches, batches_on, engine_for
from pipeline.trunks.spec import FeatureKey

if TYPE_CHECKING:
    from pipeline.trunks.engines.engine import Engine
    from pipeline.trunks.feature_net import FeatureNet
    from pipeline.trunks.registry import LoadedTrunk


def batches_of(key: FeatureKey, options: ExtractOptions) -> Batches:
    """Return the batches for a key's rows; an engine is not needed to know them.

    Raises:
        UsageError: the device is not there, or does not compute in the key's precision.
    """
    device = "cpu"
    if key.layer != "pixels":
        device = devices.choose_device(options.device)
        devices.choose_precision(key.precision, device)
    return batches_on(device, key.decoder, options.batch_size)


def make_engine(
    trunk: LoadedTrunk | None,
    key: FeatureKey,
    options: ExtractOptions,
    cache: Cache,
    also: Sequence[FeatureKey] = (),
) -> Engine:
    """Return the engine for a key's rows; loads the trunk where needed.

    `auto` means OpenVINO on a CPU where it is installed and can run the trunk, else PyTorch.

    Args:
        trunk: where it is loaded already.
        key: what the rows depend on.
        options: engine and device; trunk and weights, to load them.
        cache: where converted trunks are kept.
        also: other layers and poolings of the same trunk and precision, whose features stand
            behind the first in every row.

    Raises:
        PipelineError: the trunk has other weights than the key names.
        UsageError: the device or the engine is not there, or cannot compute this.
    """
    from pipeline.trunks.engines.engine import Pixels

    if key.layer == "pixels":
        return Pixels()
    if trunk is not None:
        _check(trunk, key, options, cache)
    device = devices.choose_device(options.device)
    joint = " ".join(f"{k.layer}/{k.pool}" for k in (key, *also))  # no rows are kept under it
    return engine_for(
        lambda: _net(trunk or _load(key, options, cache), key, also),
        replace(key, layer=joint, pool="joint") if also else key,
        compiled=cache.compiled,
        device=device,
        asked=options.engine,
        precision=devices.choose_precision(key.precision, device),
        cores=options.cores,
    )


def make_joint_engine(
    trunk: LoadedTrunk | None, keys: Sequence[FeatureKey], options: ExtractOptions, cache: Cache
) -> tuple[Engine, list[int]]:
    """Return an engine for the rows of several keys side by side, and each D.

    Args:
        trunk: where it is loaded already.
        keys: of one trunk, preprocessing and precision.
        options: as in `make_engine`.
        cache: as in `make_engine`.

    Raises:
        PipelineError, UsageError: as `make_engine`.
    """
    first, *also = keys
    trunk = trunk or _load(first, options, cache)
    widths = _net(trunk, first, also).widths(first.preprocess.crop)
    return make_engine(trunk, first, options, cache, also), widths


def _net(trunk: LoadedTrunk, key: FeatureKey, also: Sequence[FeatureKey]) -> FeatureNet:
    from pipeline.trunks.feature_net import FeatureNet

    behind = [(other.layer, other.pool) for other in also]
    return FeatureNet(trunk.module, key.preprocess, key.layer, key.pool, also=behind)


def _load(key: FeatureKey, options: ExtractOptions, cache: Cache) -> LoadedTrunk:
    from pipeline.trunks import registry

    trunk = registry.load(
        options.trunk, options.weights, keys=options.keys, size=key.preprocess.crop,
        state_dir=cache.weights,
    )  # fmt: skip
    _check(trunk, key, options, cache)
    return trunk


def _check(trunk: LoadedTrunk, key: FeatureKey, options: ExtractOptions, cache: Cache) -> None:
    """Refuse a trunk whose weights are not the key's, and let the next run know of them."""
    from pipeline.trunks.registry import check_weights

    if trunk.weights_digest != key.weights_digest:
        asked = (options.trunk, options.weights, options.keys)
        spec.remember(trunk, *asked, size=options.image_size, memo=cache.memo)
    check_weights(
        trunk, key.weights_digest, asked=options.weights, made="the rows in the cache",
        otherwise="run the same command again for rows of the new ones",
    )  # fmt: skip
