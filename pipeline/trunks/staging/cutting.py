"""From a library's model to a `StagedTrunk`: find stages, pool and neck in its chain."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from torch import fx, nn

from pipeline.errors import PipelineError
from pipeline.trunks.staging import graph
from pipeline.trunks.staging.architecture import Architecture
from pipeline.trunks.staging.graph import Axes, Segment
from pipeline.trunks.staging.layout import FROM_MAP, TO_MAP, Layout
from pipeline.trunks.staging.stages import Piece, StagedTrunk, cut, quarters


def stage_trunk(
    architecture: Architecture, model: nn.Module, size: int | None = None
) -> StagedTrunk:
    """Cut a model into stages, pool and neck.

    Args:
        architecture: that the model was built of; says how to trace it and how large its input is.
        model: the library's model, in eval mode; its own tensors are those of the result.
        size: side of the input that the model is built for; None for the architecture's.

    Returns:
        The trunk in eval mode, nothing in it trainable. Its activations are C×H×W, whatever the
        library's own order of axes, or T×C.

    Raises:
        PipelineError: it is no chain of activations that ends in one pooled vector.
    """
    name = architecture.name
    size = size or architecture.preprocess.crop
    traced = architecture.trace(model)
    chain = graph.segments(traced, graph.measure(model, traced, size))
    layout = Layout.of(model, chain)
    body, pooling, neck = _parts(name, model, _whole(layout, chain), layout)
    blocks = _blocks(model, body, layout)
    if layout.kind == "TC" and not blocks and len({layout.side(s.shape) for s in body}) == 1:
        raise PipelineError(
            f"Trunk {name} cannot be cut into stages: more than one tensor runs from block to "
            "block, or its class token joins late."
        )
    if blocks:
        slices, sides = quarters(list(blocks.values()), len(body)), [layout.side(body[-1].shape)]
        sides = sides * len(body)
    else:
        body = _collapsed(model, body, size, layout)
        sides = [layout.side(segment.shape) for segment in body]
        slices = cut(_pieces(model, body, [size, *sides]))
    if not slices:
        raise PipelineError(
            f"Trunk {name} cannot be cut into stages: more than one tensor runs through it, "
            "or its resolution never drops behind its first modules."
        )
    stages, channels, strides, native, stride = {}, {}, {}, {}, 1
    before, axes = size, Axes()
    for stage, where in slices.items():
        shape = body[where][-1].shape
        gives = TO_MAP if layout.kind_of(shape) == "HWC" else ()
        stages[stage] = graph.module_of(model, _nodes(body[where]), stage, takes=axes, gives=gives)
        axes = FROM_MAP if gives else ()
        channels[stage] = layout.channels(shape)
        for side in sides[where]:
            stride, before = stride * max(1, round(before / side)), side
        strides[stage] = stride
        for segment in body[where]:
            native.update(dict.fromkeys(segment.modules, stage))
    for place, part in (("pool", pooling), ("neck", neck)):
        native.update({module: place for segment in part for module in segment.modules})
    flat = bool(pooling) and len(pooling[-1].shape) == 2
    after_pooling = None
    if neck:
        nodes, wide = _nodes(neck), len(neck[-1].shape) > 2
        unflatten = bool(pooling) and not flat
        after_pooling = graph.module_of(model, nodes, "neck", unflatten=unflatten, flatten=wide)
    flatten = bool(pooling) and not flat
    pool = graph.module_of(model, _nodes(pooling), "pool", flatten=flatten, takes=axes)
    trunk = StagedTrunk(
        stages=stages,
        pool=pool,
        neck=after_pooling,
        native=native,
        channels=channels,
        strides=strides,
        dim=math.prod([*pooling, *neck][-1].shape[1:]),
        prefix=layout.prefix,
        class_token=layout.class_token,
        blocks=tuple(blocks),
        side=size,
    )
    return trunk.eval().requires_grad_(False)


def _nodes(chain: Sequence[Segment]) -> list[fx.Node]:
    return [node for segment in chain for node in segment.nodes]


def _whole(layout: Layout, chain: Sequence[Segment]) -> list[Segment]:
    """Join segments until each gives an activation, or comes after the last that does."""
    last = max((i for i, segment in enumerate(chain) if layout.holds(segment.shape)), default=-1)
    joined: list[Segment] = []
    run: list[Segment] = []
    for i, segment in enumerate(chain):
        run.append(segment)
        if layout.holds(segment.shape) or i > last:
            joined.append(_merged(run))
            run = []
    return joined


def _merged(run: Sequence[Segment], modules: tuple[str, ...] | None = None) -> Segment:
    names = tuple(dict.fromkeys(name for segment in run for name in segment.modules))
    return Segment(tuple(_nodes(run)), run[-1].shape, names if modules is None else modules)


def _parts(
    name: str, model: nn.Module, chain: list[Segment], layout: Layout
) -> tuple[list[Segment], list[Segment], list[Segment]]:
    """Part a chain into what runs on activations, what pools them, and the neck."""
    end = max((i + 1 for i, segment in enumerate(chain) if layout.holds(segment.shape)), default=0)
    while end and _is_adaptive_pool(model, chain[end - 1]):
        end -= 1  # AlexNet's and VGG's average pool to 7×7
    body, tail = chain[:end], chain[end:]
    if not body or not tail or len(tail[-1].shape) not in (2, 4):
        raise PipelineError(
            f"Trunk {name} cannot be cut into stages: it has no C×H×W or T×C activations that one "
            "pooling turns into a vector."
        )
    if layout.prefix is not None and graph.has_parameters(model, tail[0].nodes):
        return body, [], tail  # attention pools: it can learn
    pooled = next(i for i, segment in enumerate(tail) if not layout.holds(segment.shape)) + 1
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


def _pieces(model: nn.Module, body: Sequence[Segment], sides: Sequence[float]) -> list[Piece]:
    reductions = [max(1, round(before / after)) for before, after in pairwise(sides)]
    learned = [graph.has_parameters(model, segment.nodes) for segment in body]
    return list(map(Piece, reductions, learned))


def _blocks(model: nn.Module, body: Sequence[Segment], layout: Layout) -> dict[str, int]:
    """Return the blocks of a transformer of one resolution to their places in its body.

    Raises:
        PipelineError: several blocks lie between two places where one tensor is alive.
    """
    sides = {layout.side(segment.shape) for segment in body}
    if layout.kind == "CHW" or len(sides) > 1:
        return {}
    numbered = [name for name, _ in model.named_modules() if re.search(r"(\.|_)\d+$", name)]
    owners = Counter(
        name.rpartition(".")[0] for segment in body for name in segment.modules if name in numbered
    )
    if not owners:
        return {}
    owner = owners.most_common(1)[0][0]
    wanted = [name for name in numbered if name.rpartition(".")[0] == owner]
    found = {s.modules[-1]: i for i, s in enumerate(body) if s.modules and s.modules[-1] in wanted}
    return found if list(found) == wanted else {}


def _collapsed(model: nn.Module, body: list[Segment], size: int, layout: Layout) -> list[Segment]:
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
        before = layout.side(body[inside[0] - 1].shape) if inside[0] else size
        sides = [before, *(layout.side(segment.shape) for segment in run)]
        if sum(round(a / b) > 1 for a, b in pairwise(sides)) <= 1:
            body = [*body[: inside[0]], _merged(run, (name,)), *body[inside[-1] + 1 :]]
    return body
