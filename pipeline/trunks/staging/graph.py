"""A library's model as a chain: traced to the feature, measured, and put together again.

The chain is read off the model's own `forward` by `torch.fx`, with every module but plain
Sequentials left whole, so that what stands between the modules (a ReLU, a transpose, Inception's
`transform_input`) comes along without a line for each architecture. Shapes are measured.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn

from pipeline.compiler import import_library
from pipeline.errors import PipelineError

#: An order of axes, as `permute` takes it.
Axes = tuple[int, ...]
#: Parameters up to which shapes are measured by a forward pass: 0.05 to 0.4 s for six networks of
#: 5 to 89 million. The meta device takes 0.9 to 1.3 s whatever the network: it imports the
#: compiler.
LARGE = 100_000_000
#: The shape of what each node gives, None where that is no tensor.
Shapes = dict[fx.Node, tuple[int, ...] | None]


@dataclass(frozen=True)
class Segment:
    """A run of nodes between two places where exactly one tensor is alive.

    Args:
        nodes: the operations, in order.
        shape: of the one tensor that leaves it, for a batch of one.
        modules: native names of the modules that run in it.
    """

    nodes: tuple[fx.Node, ...]
    shape: tuple[int, ...]
    modules: tuple[str, ...]


class _Tracer(fx.Tracer):
    """Leaves modules whole, but for Sequentials and the modules named in `opened`."""

    def __init__(self, opened: set[str], wrapped: Sequence[Callable[..., Any]]) -> None:
        super().__init__(autowrap_functions=tuple(wrapped))
        self.opened = opened

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if module_qualified_name in self.opened:
            return False
        return not is_sequential(m)


class PreLogits(nn.Module):
    """A timm model up to its feature."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the feature [B, D] of normalised images [B, 3, S, S]."""
        model: Any = self.model
        feature: Tensor = model.forward_head(model.forward_features(x), pre_logits=True)
        return feature


def is_sequential(module: nn.Module) -> bool:
    """Return whether a module does nothing but run its children one after the other."""
    return type(module).forward is nn.Sequential.forward


def trace_forward(model: nn.Module, *, ends_at: str | None = None) -> fx.Graph:
    """Return the graph of `model.forward` up to what enters its last Linear.

    Args:
        model: a torchvision classifier in eval mode.
        ends_at: for a model without a last Linear: the module whose averaged output is the feature.

    Returns:
        The graph; what it gives is the feature [B, D].
    """
    encoder = {"encoder"} if hasattr(model, "class_token") else set()  # a VisionTransformer's
    graph = _traced(_Tracer(encoder, ()), model)
    nodes = [node for node in graph.nodes if node.op == "call_module"]
    if ends_at is not None:
        last = [n for n in nodes if f"{n.target}.".startswith(f"{ends_at}.")][-1]
        with graph.inserting_after(last):
            pooled = graph.call_function(torch.nn.functional.adaptive_avg_pool2d, (last, 1))
        with graph.inserting_after(pooled):
            feature = graph.call_function(torch.flatten, (pooled, 1))
        return _ended(graph, model, feature)
    linear = [node for node in nodes if runs(model, node, nn.Linear)]
    return _ended(graph, model, linear[-1].args[0])


def trace_own(model: nn.Module) -> fx.Graph:
    """Return the graph of a person's own network up to its feature.

    Where what it gives comes from a Linear, that is the classifier, and its input the feature;
    else what it gives is the feature. Modules that hold more than half of all parameters are
    opened: a network often stands in a wrapper.

    Args:
        model: in eval mode; takes [B, 3, S, S] and gives one tensor.
    """
    total = sum(p.numel() for p in model.parameters())
    opened = {
        name
        for name, module in model.named_modules()
        if name and not type(module).__module__.startswith("torch.nn.")
        and 2 * sum(p.numel() for p in module.parameters()) > total
    }  # fmt: skip
    graph = _traced(_Tracer(opened, ()), model)
    feature = graph.output_node().args[0]
    while isinstance(feature, fx.Node) and runs(model, feature, nn.Identity, nn.Dropout):
        feature = feature.all_input_nodes[0]
    if isinstance(feature, fx.Node) and runs(model, feature, nn.Linear):
        feature = feature.args[0]
    return _ended(graph, model, feature)


def trace_pre_logits(model: nn.Module) -> fx.Graph:
    """Return the graph of `model.forward_head(model.forward_features(x), pre_logits=True)`.

    Args:
        model: a timm model in eval mode.
    """
    layers = import_library("timm.layers")
    try:
        classifier = model.get_classifier()  # type: ignore[operator]
    except AttributeError:  # that of CLIP's ResNets looks for one that they do not have
        classifier = None
    around = {
        f"model.{name}"
        for name, module in model.named_modules()
        if module is not classifier and any(inner is classifier for inner in module.modules())
    }
    opened = {"model", *around}
    root = PreLogits(model)
    graph = _traced(_Tracer(opened, layers.get_notrace_functions()), root)
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            node.target = str(node.target).removeprefix("model.")
    _keep_constants(root, model)
    return _ended(graph, model, graph.output_node().args[0])


def _traced(tracer: fx.Tracer, model: nn.Module) -> fx.Graph:
    try:
        return tracer.trace(model)
    except fx.proxy.TraceError as error:
        raise PipelineError(
            "This network cannot be cut into stages: what it does depends on its input's shape or "
            "values in a way that cannot be followed."
        ) from error


def _keep_constants(root: nn.Module, model: nn.Module) -> None:
    """Let a model hold, beside its state, the tensors that tracing found computed already."""
    for name, value in vars(root).items():
        if isinstance(value, Tensor) and name.startswith("_tensor_constant"):
            model.register_buffer(name, value.detach(), persistent=False)


def _ended(graph: fx.Graph, model: nn.Module, feature: Any) -> fx.Graph:
    """Let the graph give `feature`, without dropouts behind the last learned layer."""
    if not isinstance(feature, fx.Node):
        raise PipelineError("This model gives several tensors instead of one feature.")
    graph.output_node().args = (feature,)
    _erase_unused(graph)
    for node in reversed(graph.nodes):
        if has_parameters(model, [node]):
            break
        is_function = node.op == "call_function" and node.target is torch.nn.functional.dropout
        if is_function or runs(model, node, nn.Dropout, nn.Dropout2d, nn.Identity):
            node.replace_all_uses_with(node.all_input_nodes[0])
    _erase_unused(graph)
    return graph


def _erase_unused(graph: fx.Graph) -> None:
    """Erase what nothing uses (aux heads, the classifier)."""
    graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))


def has_parameters(model: nn.Module, nodes: Sequence[fx.Node]) -> bool:
    """Return whether anything that the nodes run or read is a parameter."""
    targets = [str(node.target) for node in nodes if node.op in ("call_module", "get_attr")]
    values = [attrgetter(target)(model) for target in targets]
    return any(
        isinstance(value, nn.Parameter)
        or (isinstance(value, nn.Module) and next(value.parameters(), None) is not None)
        for value in values
    )


def runs(model: nn.Module, node: fx.Node, *kinds: type[nn.Module]) -> bool:
    """Return whether a node runs a module of one of these kinds."""
    return node.op == "call_module" and isinstance(model.get_submodule(str(node.target)), kinds)


class _Shapes(fx.Interpreter):
    """Runs a graph and notes the shape of what each node gives."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(model, graph=graph)
        self.shapes: Shapes = {}

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        # A module may write into the list that it is given (HRNet); fx hands over frozen ones.
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        return tuple(list(a) if isinstance(a, list) else a for a in args), kwargs

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.shapes[n] = tuple(result.shape) if isinstance(result, Tensor) else None
        return result


@torch.no_grad()
def measure(model: nn.Module, graph: fx.Graph, size: int) -> Shapes:
    """Return the shape of what each node gives for one image of size×size.

    One forward pass; of a model of more than `LARGE` parameters, or without memory, one that
    computes nothing where the model's code runs on the meta device.
    """
    tensors = [*model.parameters(), *model.buffers()]
    hollow = any(tensor.is_meta for tensor in tensors)
    if hollow or sum(tensor.numel() for tensor in tensors) > LARGE:
        # A copy whose tensors hold no numbers: deepcopy takes what its memo says for each of them.
        memo = {id(tensor): tensor.detach().to("meta") for tensor in tensors}
        found = _Shapes(copy.deepcopy(model, memo), graph)
        with suppress(NotImplementedError, RuntimeError):
            found.run(torch.empty(1, 3, size, size, device="meta"))
            return found.shapes
    found = _Shapes(model, graph)
    found.run(torch.zeros(1, 3, size, size))
    return found.shapes


def segments(graph: fx.Graph, shapes: Shapes) -> list[Segment]:
    """Part a graph wherever exactly one tensor is alive.

    What does not depend on the input (rotary positions, a relative bias) is no boundary's matter:
    every segment that reads it computes it for itself.

    Returns:
        The segments in order; what one gives is what the next takes.
    """
    found: list[Segment] = []
    run: list[fx.Node] = []
    alive: set[fx.Node] = set()
    readers: dict[fx.Node, int] = {}  # of what each node gives, those that are still to come
    constants = _constants(graph)
    named: set[fx.Node] = set()  # constants whose modules a segment has already
    for node in graph.nodes:
        if node in constants:
            continue
        if node.op != "placeholder":
            run.append(node)
        readers[node] = len(node.users)
        for read in node.all_input_nodes:
            if read not in constants:
                readers[read] -= 1
        alive = {n for n in {*alive, node} if readers[n]}
        shape = shapes.get(node)
        if run and alive == {node} and shape is not None:
            whole = _with(constants, run)
            first = [n for n in whole if n not in named]
            named.update(n for n in whole if n in constants)
            modules = dict.fromkeys(str(n.target) for n in first if n.op == "call_module")
            found.append(Segment(tuple(whole), shape, tuple(modules)))
            run = []
    return found


def _constants(graph: fx.Graph) -> dict[fx.Node, int]:
    """Return the nodes that depend on no input, with their places in the graph."""
    found: dict[fx.Node, int] = {}
    for place, node in enumerate(graph.nodes):
        if node.op not in ("placeholder", "output") and all(
            n in found for n in node.all_input_nodes
        ):
            found[node] = place
    return found


def _with(constants: Mapping[fx.Node, int], run: Sequence[fx.Node]) -> list[fx.Node]:
    """Return a run of nodes with the constants that it reads, each in front of its first reader."""
    whole: dict[fx.Node, None] = {}

    def add(node: fx.Node) -> None:
        for read in node.all_input_nodes:
            if read in constants and read not in whole:
                add(read)
        whole[node] = None

    for node in run:
        add(node)
    return list(whole)


def module_of(
    model: nn.Module,
    nodes: Sequence[fx.Node],
    name: str,
    *,
    unflatten: bool = False,
    flatten: bool = False,
    takes: Axes = (),
    gives: Axes = (),
) -> fx.GraphModule:
    """Return a module that runs `nodes`, made of the model's own modules under their names.

    Args:
        model: what the nodes were traced from.
        nodes: a run that takes one tensor and gives one.
        name: the class name, for people who print it.
        unflatten: turn [B, C] into [B, C, 1, 1] first.
        flatten: turn [B, C, H, W] into [B, C·H·W] last.
        takes: order in which to put the axes of the input first; as they are where empty.
        gives: likewise of the output, last.
    """
    graph = fx.Graph()
    inside = set(nodes)
    entry = graph.placeholder("x")
    if unflatten:
        for _ in range(2):
            entry = graph.call_function(torch.unsqueeze, (entry, -1))
    if takes:
        entry = graph.call_method("permute", (entry, *takes))
    copies = {a: entry for node in nodes for a in node.all_input_nodes if a not in inside}
    for node in nodes:
        copies[node] = graph.node_copy(node, lambda n: copies[n])
    result = copies[nodes[-1]] if nodes else entry
    if gives:
        result = graph.call_method("permute", (result, *gives))
    graph.output(graph.call_function(torch.flatten, (result, 1)) if flatten else result)
    made = fx.GraphModule(model, graph, class_name=name)
    for path, part in made.named_modules():  # a copied buffer is as lasting as the original
        theirs = model.get_submodule(path)
        passing = theirs._non_persistent_buffers_set
        part._non_persistent_buffers_set.update(passing & part._buffers.keys())
    return made
