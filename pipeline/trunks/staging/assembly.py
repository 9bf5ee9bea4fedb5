"""From a library's model to a `StagedTrunk`: find stages, pool and neck in its chain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import fx, nn

from pipeline.errors import PipelineError
from pipeline.trunks.staging.graph import Link, assemble, is_sequential, learns, links, measure
from pipeline.trunks.staging.stages import Piece, StagedTrunk, cut


def stage_trunk(name: str, model: nn.Module, graph: fx.Graph, size: int) -> StagedTrunk:
    """Cut a model into stages, pool and neck.

    Args:
        name: what to call it in errors.
        model: the library's model, in eval mode.
        graph: traced from it; gives the feature.
        size: the input side that its weights were made for, in pixels.

    Raises:
        PipelineError: it is no chain of C×H×W activations that ends in one pooled vector.
    """
    chain = links(graph, measure(model, graph, size))
    body, pooling, neck = _parts(name, model, _whole_maps(chain))
    body = _collapsed(model, body, size)
    pieces = _pieces(model, body, size)
    slices = cut(pieces)
    if not slices:
        raise PipelineError(
            f"Trunk {name} cannot be cut into stages: more than one tensor runs through it, "
            "or its resolution never drops behind its first modules."
        )
    stages, channels, strides, native, stride = {}, {}, {}, {}, 1
    for stage, where in slices.items():
        stages[stage] = assemble(model, [n for link in body[where] for n in link.nodes], stage)
        channels[stage] = pieces[where][-1].channels
        stride *= math.prod(piece.reduction for piece in pieces[where])
        strides[stage] = stride
        native.update({module: stage for link in body[where] for module in link.modules})
    for place, part in (("pool", pooling), ("neck", neck)):
        native.update({module: place for link in part for module in link.modules})
    flat = len(pooling[-1].shape) == 2
    return StagedTrunk(
        stages=stages,
        pool=assemble(model, _nodes(pooling), "pool", flatten=not flat),
        neck=_neck(model, neck, unflatten=not flat) if neck else None,
        native=native,
        channels=channels,
        strides=strides,
        dim=math.prod([*pooling, *neck][-1].shape[1:]),
    )


def _nodes(chain: Sequence[Link]) -> list[fx.Node]:
    return [node for link in chain for node in link.nodes]


def _is_map(shape: Sequence[int]) -> bool:
    """Whether a shape is [B, C, H, H] with H over 1."""
    return len(shape) == 4 and shape[2] == shape[3] > 1


def _whole_maps(chain: Sequence[Link]) -> list[Link]:
    """Join links until each gives a C×H×W map, or comes after the last that does."""
    last = max((i for i, link in enumerate(chain) if _is_map(link.shape)), default=-1)
    joined: list[Link] = []
    run: list[Link] = []
    for i, link in enumerate(chain):
        run.append(link)
        if _is_map(link.shape) or i > last:
            joined.append(_merged(run))
            run = []
    return joined


def _merged(run: Sequence[Link], modules: tuple[str, ...] | None = None) -> Link:
    names = tuple(dict.fromkeys(name for link in run for name in link.modules))
    return Link(tuple(_nodes(run)), run[-1].shape, names if modules is None else modules)


def _parts(
    name: str, model: nn.Module, chain: list[Link]
) -> tuple[list[Link], list[Link], list[Link]]:
    """Part a chain into what runs on maps, what pools them, and the neck."""
    end = max((i + 1 for i, link in enumerate(chain) if _is_map(link.shape)), default=0)
    while end and _is_adaptive_pool(model, chain[end - 1]):
        end -= 1  # AlexNet's and VGG's average pool to 7×7
    body, tail = chain[:end], chain[end:]
    if not body or not tail or len(tail[-1].shape) not in (2, 4):
        raise PipelineError(
            f"Trunk {name} cannot be cut into stages: it has no C×H×W activations that one "
            "pooling turns into a vector."
        )
    pooled = next(i for i, link in enumerate(tail) if not _is_map(link.shape)) + 1
    while pooled < len(tail) and len(tail[pooled - 1].shape) > 2:
        if learns(model, tail[pooled].nodes):
            break
        if len(tail[pooled].shape) > 2 and learns(model, _nodes(tail[pooled:])):
            break  # an activation in front of a learned layer: the neck's
        pooled += 1
    if not tail[pooled:] or not learns(model, _nodes(tail[pooled:])):
        return body, tail, []
    return body, tail[:pooled], tail[pooled:]


def _is_adaptive_pool(model: nn.Module, link: Link) -> bool:
    adaptive = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
    return all(
        node.op == "call_module" and isinstance(model.get_submodule(str(node.target)), adaptive)
        for node in link.nodes
    )


def _pieces(model: nn.Module, body: Sequence[Link], size: int) -> list[Piece]:
    pieces, side = [], size
    for link in body:
        reduction = max(1, round(side / link.shape[2]))
        pieces.append(Piece(link.modules, reduction, learns(model, link.nodes), link.shape[1]))
        side = link.shape[2]
    return pieces


def _collapsed(model: nn.Module, body: list[Link], size: int) -> list[Link]:
    """Put Sequentials in which the resolution drops at most once together again.

    So a cut never falls inside `layer2`, or between ConvNeXt's downsampling norm and convolution.
    """
    sequentials = [n for n, m in model.named_modules() if n and is_sequential(m)]
    for name in sorted(sequentials, key=lambda n: n.count(".")):
        inside = [
            i
            for i, link in enumerate(body)
            if link.modules and all(m.startswith(name + ".") for m in link.modules)
        ]
        if not inside or inside != list(range(inside[0], inside[-1] + 1)):
            continue
        run = body[inside[0] : inside[-1] + 1]
        before = body[inside[0] - 1].shape[2] if inside[0] else size
        sides = [before, *(link.shape[2] for link in run)]
        if sum(round(a / b) > 1 for a, b in pairwise(sides)) <= 1:
            body = [*body[: inside[0]], _merged(run, (name,)), *body[inside[-1] + 1 :]]
    return body


def _neck(model: nn.Module, neck: Sequence[Link], *, unflatten: bool) -> nn.Module:
    flatten = len(neck[-1].shape) > 2
    return assemble(model, _nodes(neck), "neck", unflatten=unflatten, flatten=flatten)
