"""From a library's model to a `StagedTrunk`: find stages, pool and neck in its chain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import fx, nn

from pipeline.errors import PipelineError
from pipeline.trunks.staging import graph
from pipeline.trunks.staging.architecture import Architecture
from pipeline.trunks.staging.graph import Segment
from pipeline.trunks.staging.stages import Piece, StagedTrunk, cut


def stage_trunk(architecture: Architecture, model: nn.Module) -> StagedTrunk:
    """Cut a model into stages, pool and neck.

    Args:
        architecture: that the model was built of; says how to trace it and how large its input is.
        model: the library's model, in eval mode; its own tensors are those of the result.

    Returns:
        The trunk in eval mode, nothing in it trainable.

    Raises:
        PipelineError: it is no chain of C×H×W activations that ends in one pooled vector.
    """
    name, size = architecture.name, architecture.preprocess.crop
    traced = architecture.trace(model)
    chain = graph.segments(traced, graph.measure(model, traced, size))
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
        stages[stage] = graph.module_of(model, _nodes(body[where]), stage)
        channels[stage] = body[where][-1].shape[1]
        stride *= math.prod(piece.reduction for piece in pieces[where])
        strides[stage] = stride
        native.update({module: stage for segment in body[where] for module in segment.modules})
    for place, part in (("pool", pooling), ("neck", neck)):
        native.update({module: place for segment in part for module in segment.modules})
    flat = len(pooling[-1].shape) == 2
    after_pooling = None
    if neck:
        nodes, wide = _nodes(neck), len(neck[-1].shape) > 2
        after_pooling = graph.module_of(model, nodes, "neck", unflatten=not flat, flatten=wide)
    trunk = StagedTrunk(
        stages=stages,
        pool=graph.module_of(model, _nodes(pooling), "pool", flatten=not flat),
        neck=after_pooling,
        native=native,
        channels=channels,
        strides=strides,
        dim=math.prod([*pooling, *neck][-1].shape[1:]),
    )
    return trunk.eval().requires_grad_(False)


def _nodes(chain: Sequence[Segment]) -> list[fx.Node]:
    return [node for segment in chain for node in segment.nodes]


def _is_map(shape: Sequence[int]) -> bool:
    """Whether a shape is [B, C, H, H] with H over 1."""
    return len(shape) == 4 and shape[2] == shape[3] > 1


def _whole_maps(chain: Sequence[Segment]) -> list[Segment]:
    """Join segments until each gives a C×H×W map, or comes after the last that does."""
    last = max((i for i, segment in enumerate(chain) if _is_map(segment.shape)), default=-1)
    joined: list[Segment] = []
    run: list[Segment] = []
    for i, segment in enumerate(chain):
        run.append(segment)
        if _is_map(segment.shape) or i > last:
            joined.append(_merged(run))
            run = []
    return joined


def _merged(run: Sequence[Segment], modules: tuple[str, ...] | None = None) -> Segment:
    names = tuple(dict.fromkeys(name for segment in run for name in segment.modules))
    return Segment(tuple(_nodes(run)), run[-1].shape, names if modules is None else modules)


def _parts(
    name: str, model: nn.Module, chain: list[Segment]
) -> tuple[list[Segment], list[Segment], list[Segment]]:
    """Part a chain into what runs on maps, what pools them, and the neck."""
    end = max((i + 1 for i, segment in enumerate(chain) if _is_map(segment.shape)), default=0)
    while end and _is_adaptive_pool(model, chain[end - 1]):
        end -= 1  # AlexNet's and VGG's average pool to 7×7
    body, tail = chain[:end], chain[end:]
    if not body or not tail or len(tail[-1].shape) not in (2, 4):
        raise PipelineError(
            f"Trunk {name} cannot be cut into stages: it has no C×H×W activations that one "
            "pooling turns into a vector."
        )
    pooled = next(i for i, segment in enumerate(tail) if not _is_map(segment.shape)) + 1
    while pooled < len(tail) and len(tail[pooled - 1].shape) > 2:
        if graph.has_parameters(model, tail[pooled].nodes):
            break
        if len(tail[pooled].shape) > 2 and graph.has_parameters(model, _nodes(tail[pooled:])):
            break  # an activation in front of a learned layer: the neck's
        pooled += 1
    if not tail[pooled:] or not graph.has_parameters(model, _nodes(tail[pooled:])):
        return body, tail, []
    return body, tail[:pooled], tail[pooled:]


def _is_adaptive_pool(model: nn.Module, segment: Segment) -> bool:
    pools = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
    return all(graph.runs(model, node, *pools) for node in segment.nodes)


def _pieces(model: nn.Module, body: Sequence[Segment], size: int) -> list[Piece]:
    sides = [size, *(segment.shape[2] for segment in body)]
    reductions = [max(1, round(before / after)) for before, after in pairwise(sides)]
    learned = [graph.has_parameters(model, segment.nodes) for segment in body]
    return list(map(Piece, reductions, learned))


def _collapsed(model: nn.Module, body: list[Segment], size: int) -> list[Segment]:
    """Put Sequentials in which the resolution drops at most once together again.

    So a cut never falls inside `layer2`, or between ConvNeXt's downsampling norm and convolution.
    """
    sequentials = [n for n, m in model.named_modules() if n and graph.is_sequential(m)]
    for name in sorted(sequentials, key=lambda n: n.count(".")):
        inside = [
            i
            for i, segment in enumerate(body)
            if segment.modules and all(m.startswith(name + ".") for m in segment.modules)
        ]
        if not inside or inside != list(range(inside[0], inside[-1] + 1)):
            continue
        run = body[inside[0] : inside[-1] + 1]
        before = body[inside[0] - 1].shape[2] if inside[0] else size
        sides = [before, *(segment.shape[2] for segment in run)]
        if sum(round(a / b) > 1 for a, b in pairwise(sides)) <= 1:
            body = [*body[: inside[0]], _merged(run, (name,)), *body[inside[-1] + 1 :]]
    return body
