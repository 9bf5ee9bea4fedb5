"""`Cost`: what a feature takes to compute on this machine."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.extraction import engines
from pipeline.extraction.options import ExtractOptions
from pipeline.store.cache import Cache
from pipeline.trunks.spec import FeatureKey

if TYPE_CHECKING:
    from pipeline.trunks.engines.engine import Engine
    from pipeline.trunks.feature_net import FeatureNet
    from pipeline.trunks.registry import LoadedTrunk

#: The least of so many rounds counts: other work on the machine only ever adds.
ROUNDS = 5
#: Seconds that a round takes at least.
ROUND = 0.4


@dataclass(frozen=True)
class Cost:
    """What one image costs. Equal costs have the same figures.

    Attributes:
        milliseconds: of the forward pass for one image in batches, decoding apart.
        megabytes: of the weights that run, in float32: 10⁶ bytes.
        engine: that was measured.
        batch_size: images at once.
    """

    milliseconds: float
    megabytes: float
    engine: str
    batch_size: int

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def measure(trunk: LoadedTrunk, key: FeatureKey, options: ExtractOptions, cache: Cache) -> Cost:
    """Return what a feature costs on this machine, which takes a second or two.

    Args:
        trunk: that computes it.
        key: of the feature, its precision settled.
        options: engine, device and batch size.
        cache: where converted networks are.

    Raises:
        PipelineError: the engine is not there, or cannot run this.
    """
    import torch

    from pipeline.trunks.feature_net import FeatureNet

    engine = engines.make_engine(trunk, key, options, cache)
    side = key.preprocess.crop
    generator = torch.Generator().manual_seed(0)
    batch_size = engines.batches_of(key, options).size
    noise = torch.randint(0, 256, (batch_size, 3, side, side), generator=generator)
    crops = noise.to(torch.uint8).contiguous(memory_format=torch.channels_last)
    once = min(_seconds(engine, [crops]) for _ in range(2))  # the first one warms up
    batches = [crops] * max(2, round(ROUND / max(once, 1e-6)))
    least = min(_seconds(engine, batches) for _ in range(ROUNDS))
    return Cost(
        milliseconds=1000 * least / (len(batches) * batch_size),
        megabytes=_weights(FeatureNet(trunk.module, key.preprocess, key.layer, key.pool)) / 1e6,
        engine=engine.name,
        batch_size=batch_size,
    )


def _seconds(engine: Engine, batches: list[Any]) -> float:
    began = time.perf_counter()
    for _ in engine.run(batches):
        pass
    return time.perf_counter() - began


def _weights(net: FeatureNet) -> int:
    """Return the bytes in float32 of the stages that run, and of pooling and neck where they do."""
    parts: list[Any] = [net.trunk.stages[name] for name in net.run]
    if any(pool == "own" for row in net.rows for _, pool in row):
        parts += [part for part in (net.trunk.pool, net.trunk.neck) if part is not None]
    tensors = [tensor for part in parts for tensor in part.state_dict().values()]
    return sum(4 * int(tensor.numel()) for tensor in tensors if tensor.is_floating_point())
