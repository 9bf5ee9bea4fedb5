"""The network before its first step: the trunk again, the head on it, its fastest form.

Its logits are the head's, or a check says which part differs. The form that trains faster on a CPU
shares every tensor with the network.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TypeVar, cast

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from pipeline.errors import PipelineError
from pipeline.finetuning.activations import Source
from pipeline.finetuning.network import Network, cut
from pipeline.finetuning.task import Task, class_weights
from pipeline.heads.linear import LinearHead, unit_length
from pipeline.heads.metrics import log_loss, softmax
from pipeline.images.preprocess import Preprocess
from pipeline.store.cache import Cache
from pipeline.trunks import registry
from pipeline.trunks.engines.fuse import TOLERANCE, pairs, put, rest_of
from pipeline.trunks.recorded import load_recorded
from pipeline.trunks.registry import LoadedTrunk
from pipeline.trunks.sources.random_weights import seeded

#: Share of the log-loss of guessing that a head's training images leave before the first step, and
#: the most that its temperature is raised to get there, as a logarithm.
LEFT, MOST = 0.5, 15.0
#: Logits that the class of no training image starts below the others.
BELOW = 30.0


def load_trunk(task: Task, cache: Cache) -> LoadedTrunk:
    """Return the trunk that made a table; from scratch, the same network with random weights.

    Raises:
        PipelineError: its weights are missing, or others now.
    """
    given, options = task.table.provenance, task.options
    if options.from_scratch:
        size = int(given.preprocess["crop"])
        return registry.load(given.trunk, "random", size=size, state_dir=cache.weights)
    return load_recorded(
        given, cache, made="the table",
        otherwise="run `pipeline extract` and `pipeline fit-head` again",
    )  # fmt: skip


def make_network(
    trunk: LoadedTrunk, task: Task, start: LinearHead | None, *, unfreeze: str
) -> Network:
    """Return the network before its first step.

    Args:
        trunk: from `load_trunk`; its parameters are used in place.
        task: which rows are learned from.
        unfreeze: what learns.
        start: the head to start from; None for a random last layer.
    """
    table, options, given = task.table, task.options, task.table.provenance
    like = nn.Linear(table.dim, len(table.classes), device="meta")
    head = last_layer(like, head=start, seed=options.seed)
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
        cut=cut(trunk.module, unfreeze, layer=given.layer),
        head=head,
        l2=l2,
        centre=centre,
    )


def last_layer(like: nn.Linear, *, head: LinearHead | None = None, seed: int = 0) -> nn.Linear:
    """Return a last layer, on the CPU.

    Args:
        like: a layer of its shape.
        head: that it starts from; None for random weights.
        seed: of these.
    """
    if head is None:
        with seeded(seed):
            return nn.Linear(like.in_features, like.out_features)
    layer = head.to_linear()
    with torch.no_grad():  # a class without training images: as unlikely, but a number to learn
        seen = torch.from_numpy(head.bias > UNSEEN)
        layer.bias[~seen] = layer.bias[seen].mean() - BELOW
    return layer


def softened(head: LinearHead, task: Task, rows: np.ndarray) -> LinearHead:
    """Return a head that is sure of none of the images that it was fitted on.

    One that interpolates them leaves gradients that are noise, and AdamW takes full-sized steps
    along them: with every layer unfrozen the first epoch destroys what the trunk knows. So its
    logits are divided until its log-loss is a share of what guessing costs, `LEFT`. Which classes
    it finds likelier stays, and so does a head that is not as sure.

    Args:
        head: fitted on the rows.
        task: whose table they are of.
        rows: to learn from.
    """
    table, weights = task.table, class_weights(task, rows)
    labels, scores = table.labels[rows], head.scores(np.asarray(table.features[rows]))
    counts = np.bincount(labels, minlength=scores.shape[1]) * (1.0 if weights is None else weights)
    guess = np.broadcast_to(counts / counts.sum(), scores.shape)
    goal = LEFT * log_loss(labels, guess, weights)

    def missed(by: float) -> float:
        return log_loss(labels, softmax(scores, head.temperature * np.exp(by)), weights) - goal

    if missed(0) >= 0 or missed(MOST) <= 0:
        return head
    by = brentq(missed, 0, MOST, xtol=0.01)
    return replace(head, temperature=float(head.temperature * np.exp(by)))


def faster(
    network: Network,
    source: Source,
    digest: bytes,
    *,
    device: str,
    precision: str,
    train_bn: bool = False,
) -> Network:
    """Return the same network, sharing every tensor, in the form that trains fastest.

    Frozen BatchNorms are folded; on a CPU depthwise convolutions stay in float32 under bf16.

    Args:
        network: what learns.
        source: gives activations.
        digest: of an image that it has.
        device: where to train.
        precision: of the arithmetic.
        train_bn: BatchNorms that learn follow their batches.
    """
    if not network.body.run:
        return network
    fast = sharing(network)
    fast.train_bn = train_bn
    if not train_bn:
        example = next(iter(source.batches([(digest, 0)], 1)))
        fast = fold(fast, example.float() if example.dtype == torch.float16 else example)
    if device == "cpu" and precision == "bf16":
        spare_depthwise(fast)
    return fast


#: Largest relative difference (L2 over all images) by the least precise arithmetic on either
#: side. float16 activations cost 5e-4; bfloat16 keeps 8 bits, and 0.04 was seen with trunks of 50
#: layers.
HANDOVER_TOLERANCE = {"fp32": 0.005, "fp16": 0.02, "bf16": 0.1}
#: A head's bias below this is that of a class without training images.
UNSEEN = -1e6


@dataclass(frozen=True)
class Handover:
    """How far the network before step 0 is from table and head.

    Attributes:
        features: ‖network's − table's‖ / ‖table's‖ over the features of all compared images.
        logits: the same of logits, their mean over the classes removed.
        tolerance: what both must stay within.
        images: compared.
    """

    features: float
    logits: float
    tolerance: float
    images: int


def check_handover(
    features: np.ndarray,
    logits: np.ndarray,
    *,
    table: np.ndarray,
    head: LinearHead,
    precisions: tuple[str, ...],
) -> Handover:
    """Compare the network before step 0 with the table's features and the head's logits.

    Args:
        features: the network's, [n, D].
        logits: the network's, [n, K].
        table: the table's features of the same images, [n, D].
        head: the refitted head.
        precisions: of the table, and of the network.

    Raises:
        PipelineError: they differ; it says whether features or head do.
    """
    tolerance = max(HANDOVER_TOLERANCE[precision] for precision in precisions)
    seen = head.bias / head.temperature > UNSEEN
    want = head.scores(table)[:, seen] / np.float32(head.temperature)
    own = head.scores(features)[:, seen] / np.float32(head.temperature)
    logits = logits[:, seen]
    apart = Handover(
        _distance(features, table), _distance(_even(logits), _even(want)), tolerance, len(table)
    )
    if not apart.features <= tolerance:
        raise PipelineError(
            f"Before the first step the network's features differ from the table's by "
            f"{apart.features:.3g} of their length, and {tolerance:g} is allowed: the trunk, its "
            "weights or the preprocessing are not those that made the table. Run `pipeline "
            "extract` and `pipeline fit-head` again with what is installed now."
        )
    if not _distance(_even(logits), _even(own)) <= tolerance:
        raise PipelineError(
            "Before the first step the network's logits are not those of the head on the same "
            f"features (they differ by {_distance(_even(logits), _even(own)):.3g} of their "
            f"length, {tolerance:g} is allowed): the head was not carried over. Fit it again."
        )
    return apart


def _even(logits: np.ndarray) -> np.ndarray:
    return np.asarray(logits - logits.mean(1, keepdims=True))


def _distance(given: np.ndarray, wanted: np.ndarray) -> float:
    length = float(np.linalg.norm(wanted))
    return float(np.linalg.norm(given - wanted)) / max(length, 1e-12)


N = TypeVar("N", bound=nn.Module)


class FoldedConv(nn.Module):
    """A convolution with the BatchNorm behind it, whose statistics are frozen, as one operation.

    The weight is multiplied anew in each step, so that both go on learning exactly as they would
    apart; what is saved is a pass over the activations forward and one backward.

    Args:
        conv: without own padding modes.
        norm: in eval mode, with running statistics.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d):
        super().__init__()
        self.conv, self.norm = conv, norm

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised convolution [B, C', H', W'] of x [B, C, H, W]."""
        conv, norm = self.conv, self.norm
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None and variance is not None
        scale = torch.rsqrt(variance + norm.eps)
        if norm.affine:
            scale = scale * norm.weight
        bias = -mean * scale if conv.bias is None else (conv.bias - mean) * scale
        if norm.affine:
            bias = bias + norm.bias
        weight = conv.weight * scale[:, None, None, None]
        return cast(Tensor, conv._conv_forward(x, weight, bias))


class Float32(nn.Module):
    """A module that computes in float32 whatever autocast says.

    Args:
        inner: takes and gives one tensor.
    """

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Return what the inner module gives of x, in float32."""
        with torch.autocast(x.device.type, enabled=False):
            return cast(Tensor, self.inner(x.float()))


def spare_depthwise(net: nn.Module) -> None:
    """Let depthwise convolutions compute in float32, in place.

    On a CPU their backward pass is slower in bfloat16: a step of EfficientNet-Lite0's `layer4`
    took 12 ms an image in float32, 26 in bfloat16, 10 so.
    """
    for name, child in list(net.named_children()):
        conv = child.conv if isinstance(child, FoldedConv) else child
        if isinstance(conv, nn.Conv2d) and conv.groups == conv.in_channels > 1:
            setattr(net, name, Float32(child))
        else:
            spare_depthwise(child)


def sharing(net: N) -> N:
    """Return a copy of a network's modules with the very same parameters and buffers."""
    tensors = [*net.parameters(), *net.buffers()]
    return copy.deepcopy(net, {id(tensor): tensor for tensor in tensors})


def fold(net: N, example: Tensor) -> N:
    """Return a network with the same parameters and buffers, convolutions and norms joined.

    Where the result differs on the example, the network is returned as it is.

    Args:
        net: in eval mode, fp32.
        example: an input of `net`.
    """
    folded = sharing(net)
    with torch.no_grad():
        names = pairs(folded, example)
    for convolution, normalization in names:
        conv, norm = folded.get_submodule(convolution), folded.get_submodule(normalization)
        # a subclass may do more than convolve: TensorFlow's padding, standardised weights
        if type(conv) is nn.Conv2d and isinstance(norm, nn.BatchNorm2d):
            put(folded, convolution, FoldedConv(conv, norm))
            put(folded, normalization, rest_of(norm))
    with torch.no_grad():
        want, got = net(example), folded(example)
    error = (got - want).norm() / want.norm().clamp_min(1e-12)
    return folded if error <= TOLERANCE else net
