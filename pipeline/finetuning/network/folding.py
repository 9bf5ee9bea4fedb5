"""The same network in a form that trains faster on a CPU, sharing every tensor with it."""

from __future__ import annotations

import copy
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from pipeline.trunks.engines.fuse import TOLERANCE, pairs, put, rest_of

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
