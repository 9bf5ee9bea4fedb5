"""Which engine computes a key's rows here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.extraction.options import ExtractOptions
from pipeline.store.cache import Cache
from pipeline.trunks.engines.choice import Batches, batches_on, engine_for
from pipeline.trunks.spec import FeatureKey

if TYPE_CHECKING:
    from pipeline.trunks.engines.engine import Engine
    from pipeline.trunks.feature_net import FeatureNet
    from pipeline.trunks.registry import LoadedTrunk


def batches_of(key: FeatureKey, options: ExtractOptions) -> Batches:
    """Return the batches for a key's rows; an engine is not needed to know them.

    Raises:
        UsageError: the device is not there.
    """
    from pipeline.trunks.engines.devices import choose_device

    device = "cpu" if key.layer == "pixels" else choose_device(options.device)
    return batches_on(device, key.precision, options.batch_size)


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
        UsageError: the device or the engine is not there, or cannot compute this.
    """
    from pipeline.trunks.engines.devices import choose_device, choose_precision
    from pipeline.trunks.engines.engine import Pixels

    if key.layer == "pixels":
        return Pixels()
    device = choose_device(options.device)

    def net() -> FeatureNet:
        from pipeline.trunks.feature_net import FeatureNet
        from pipeline.trunks.registry import load

        found = trunk or load(
            options.trunk, options.weights, keys=options.keys, state_dir=cache.weights
        )
        behind = [(other.layer, other.pool) for other in also]
        return FeatureNet(found.module, key.preprocess, key.layer, key.pool, also=behind)

    named = _joint([key, *also]) if also else key
    return engine_for(
        net, named, compiled=cache.compiled, device=device, asked=options.engine,
        precision=choose_precision(key.precision, device),
    )  # fmt: skip


def make_joint_engine(
    trunk: LoadedTrunk | None, keys: Sequence[FeatureKey], options: ExtractOptions, cache: Cache
) -> tuple[Engine, list[int]]:
    """Return an engine for the rows of several keys side by side, and each D.

    Args:
        trunk: where it is loaded already.
        keys: of one trunk, preprocessing and precision.
        options: as in `make_engine`.
        cache: as in `make_engine`.
    """
    from pipeline.trunks.feature_net import FeatureNet
    from pipeline.trunks.registry import load

    first, *also = keys
    found = trunk or load(
        options.trunk, options.weights, keys=options.keys, state_dir=cache.weights
    )
    behind = [(other.layer, other.pool) for other in also]
    net = FeatureNet(found.module, first.preprocess, first.layer, first.pool, also=behind)
    widths = net.widths(first.preprocess.crop)
    return make_engine(found, first, options, cache, also), widths


def _joint(keys: Sequence[FeatureKey]) -> FeatureKey:
    """Return what names the network of several keys; no rows are kept under it."""
    return replace(keys[0], layer=" ".join(f"{k.layer}/{k.pool}" for k in keys), pool="joint")
