"""The network before its first step: the trunk again, the head on it, its fastest form."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pipeline.finetuning.network.folding import fold, sharing, spare_depthwise
from pipeline.finetuning.network.handover import UNSEEN
from pipeline.finetuning.network.network import Network
from pipeline.finetuning.network.unfreeze import cut
from pipeline.finetuning.task import Task
from pipeline.finetuning.training.activations import Source
from pipeline.heads.linear import LinearHead, unit_length
from pipeline.images.preprocess import Preprocess
from pipeline.store.cache import Cache
from pipeline.trunks import registry
from pipeline.trunks.registry import LoadedTrunk
from pipeline.trunks.sources.random_weights import seeded

#: Logits that the class of no training image starts below the others.
BELOW = 30.0


def load_trunk(task: Task, cache: Cache) -> LoadedTrunk:
    """Return the trunk that made a table; from scratch, the same network with random weights.

    Raises:
        PipelineError: its weights are missing, or others now.
    """
    given, options = task.table.provenance, task.options
    weights = "random" if options.from_scratch else given.weights_asked
    trunk = registry.load(given.trunk, weights, keys=given.keys, state_dir=cache.weights)
    if not options.from_scratch:
        registry.check_weights(
            trunk, given.weights_digest, asked=weights, made="the table",
            otherwise="run `pipeline extract` and `pipeline fit-head` again",
        )  # fmt: skip
    return trunk


def make_network(trunk: LoadedTrunk, task: Task, start: LinearHead | None) -> Network:
    """Return the network before its first step.

    Args:
        trunk: from `load_trunk`; its parameters are used in place.
        task: what learns, and from which rows.
        start: the head to start from; None for a random last layer.
    """
    table, options, given = task.table, task.options, task.table.provenance
    if start is not None:
        head = start.to_linear()
        with torch.no_grad():  # a class without training images: as unlikely, but a number to learn
            seen = head.bias > UNSEEN
            head.bias[~seen] = head.bias[seen].mean() - BELOW
    else:
        with seeded(options.seed):
            head = nn.Linear(table.features.shape[1], len(table.classes))
    l2 = start is not None and start.l2
    centre = None  # of features that a trunk from scratch does not give
    if not options.from_scratch:
        features = np.asarray(table.features[task.train])
        mean = (unit_length(features) if l2 else features).mean(0, dtype=np.float64)
        centre = torch.from_numpy(mean.astype(np.float32))
    return Network(
        trunk.module,
        Preprocess.from_json(given.preprocess),
        layer=given.layer,
        pool=given.pool,
        cut=cut(trunk.module, options.unfreeze, layer=given.layer),
        head=head,
        l2=l2,
        centre=centre,
        train_bn=options.train_bn or options.from_scratch,
    )


def faster(
    network: Network, source: Source, digest: bytes, *, device: str, precision: str
) -> Network:
    """Return the same network, sharing every tensor, in the form that trains fastest.

    Frozen BatchNorms are folded; on a CPU depthwise convolutions stay in float32 under bf16.
    """
    if not network.body.run:
        return network
    fast = sharing(network)
    if not network.train_bn:
        example = next(iter(source.batches([(digest, 0)], 1)))
        fast = fold(fast, example.float() if example.dtype == torch.float16 else example)
    if device == "cpu" and precision == "bf16":
        spare_depthwise(fast)
    return fast
