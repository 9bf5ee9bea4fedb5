"""Fold BatchNorm into the convolution before it, for any network, by watching the data flow."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

#: Largest relative error of the folded network in fp32; beyond it the original is kept.
TOLERANCE = 1e-3


@torch.no_grad()
def fuse(net: nn.Module, example: torch.Tensor) -> nn.Module:
    """Return a copy of a network whose BatchNorms are folded into their convolutions.

    A BatchNorm is folded when its input is, as the same object, the output of a convolution and
    each of the two runs once. The folded copy is checked on `example`; where it differs (a
    convolution whose output is also used elsewhere), the network is returned as it was.

    A network without any is returned as it is.

    Args:
        net: in eval mode, fp32.
        example: an input of `net`, [B, ...].
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        return net
    folded = copy.deepcopy(net)
    for convolution, norm in pairs(folded, example):
        conv = folded.get_submodule(convolution)
        bn = folded.get_submodule(norm)
        assert isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d)
        put(folded, convolution, fuse_conv_bn_eval(conv, bn))
        put(folded, norm, rest_of(bn))
    want, got = net(example), folded(example)
    error = (got - want).norm() / want.norm().clamp_min(1e-12)
    return folded if error <= TOLERANCE else net


def pairs(net: nn.Module, example: torch.Tensor) -> list[tuple[str, str]]:
    """Return the names of convolutions and the BatchNorms that read their output alone."""
    names = {module: name for name, module in net.named_modules()}
    outputs: dict[int, tuple[nn.Module, torch.Tensor]] = {}  # keeps tensors alive: ids stay unique
    found: list[tuple[nn.Module, nn.Module]] = []
    calls: dict[nn.Module, int] = {}

    def conv_hook(module: nn.Module, _: object, output: torch.Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        outputs[id(output)] = (module, output)

    def norm_hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        calls[module] = calls.get(module, 0) + 1
        if id(inputs[0]) in outputs:
            found.append((outputs[id(inputs[0])][0], module))

    hooks = []
    for module in names:
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(conv_hook))
        elif isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            hooks.append(module.register_forward_pre_hook(norm_hook))
    try:
        net(example)
    finally:
        for hook in hooks:
            hook.remove()
    once = [pair for pair in found if calls[pair[0]] == calls[pair[1]] == 1]
    return [(names[conv], names[bn]) for conv, bn in once]


def rest_of(norm: nn.Module) -> nn.Module:
    """Return what a norm does besides: timm's BatchNormAct2d carries dropout and activation."""
    rest = [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]
    return nn.Sequential(*rest) if rest else nn.Identity()


def put(net: nn.Module, name: str, module: nn.Module) -> None:
    """Set a module of a network by its dotted name."""
    parent, _, child = name.rpartition(".")
    setattr(net.get_submodule(parent), child, module)
