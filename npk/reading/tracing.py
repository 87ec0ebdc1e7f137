"""A network becomes a PathGraph: traced by ``torch.export``, read operator by operator, refused
where not wholly understood.

The exported graph is functional (in-place and re-used ReLUs are plain calls) and still high-level
(a circular pad stays one node). Paths are found from the output backwards: linear operators carry
them, ``relu(q)`` is a gate on q, ``mul(h, g)`` with g out of a gate operator is an external gate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
import torch
from torch import fx
from torch.utils._pytree import tree_leaves

from npk.choices import as_patterns
from npk.graph.independence import refuse_shared_leaves
from npk.graph.input_shifts import without_shifts
from npk.graph.node import PathNode
from npk.graph.path_graph import PathGraph
from npk.networks.given import as_shape
from npk.reading.apart import apart
from npk.reading.builder import Builder, Recording
from npk.reading.exported import NUMBER, is_batched, is_led, name_of
from npk.reading.exporting import program_of
from npk.reading.fixed import Fixed
from npk.reading.memory import refuse_shared_memory
from npk.reading.plain.operators import in_plain_operators
from npk.reading.rules import Value, carriers_of, rule_of
from npk.reading.rules.moves import LED, MIXED, ONES
from npk.reading.rules.refused import refusal_of
from npk.reading.state import have_values
from npk.reading.units import Layout


@dataclass(frozen=True)
class Trace:
    """A traced network: its path graph, the program that runs it, and what to record of a run.

    ``added``: what the network adds to each sample before its first weight; the samples of a gate
    table have it, and the graph has no node for it. ``readers``: the program as it hands over the
    values of some nodes, made when a recording first asks for them. ``values``: copies of the
    tensors whose values are in the graph, or are added.
    """

    graph: PathGraph
    program: fx.GraphModule
    recordings: tuple[Recording, ...]
    added: np.ndarray | None = field(default=None, compare=False)
    readers: dict[tuple[str, ...], fx.GraphModule] = field(
        default_factory=dict, compare=False, repr=False
    )
    values: dict[str, torch.Tensor] = field(default_factory=dict, compare=False, repr=False)

    def holds(self) -> bool:
        """Whether the tensors of the program have the values that the graph has read of them."""
        return have_values(
            {name: attrgetter(name)(self.program) for name in self.values}, self.values
        )


def trace(
    net: torch.nn.Module, input_shape: tuple[int, ...], *, fixed: str | Sequence[str] = ()
) -> PathGraph:
    """Read the path graph of a network.

    Args:
        net: a network in eval mode.
        input_shape: shape of one sample, without the batch axis.
        fixed: names of parameters and buffers that are coefficients of the paths and no weights,
            such as ``["blur.*"]``: filters of depthwise convolutions, and tensors that values are
            multiplied by.

    Returns:
        The graph; ``print`` shows it as a table.

    Raises:
        UnsupportedGraphError: a node that npk does not wholly understand, by name, source line, and
            what would make it acceptable.
        ShapeError: the network does not accept samples of that shape.
        OptionError: a name in ``fixed`` that the network does not have, or of a tensor that is no
            filter.
    """
    return trace_network(net, input_shape, fixed).graph


def trace_network(
    net: torch.nn.Module, input_shape: tuple[int, ...], fixed: str | Sequence[str] = ()
) -> Trace:
    """As :func:`trace`, with the program and the recordings that a gate table needs."""
    patterns = as_patterns(fixed)
    return apart(_read_trace, program_of(net, input_shape), as_shape(input_shape), patterns)


def _read_trace(
    program: fx.GraphModule, input_shape: tuple[int, ...], patterns: tuple[str, ...]
) -> Trace:
    """The trace of an exported program, made plain first; values that this reads are watched."""
    read = set[str]()
    leaves = in_plain_operators(program, read)
    fixed = Fixed(patterns, program, leaves)
    builder = Builder(program, input_shape, fixed)
    for name in read - leaves.keys():
        builder.tensor(name)
    order = builder.leading_to(_last_node(builder))
    order, added = without_shifts(order, builder.numbers, input_shape)
    refuse_shared_memory(order, builder.held)
    refuse_shared_leaves(order, leaves)
    fixed.refuse_others(order)
    names = {name for node in order for name in node.entries}
    recordings = tuple(r for r in builder.recordings if r.gate in names)
    graph = PathGraph(tuple(order), input_shape)
    return Trace(graph, program, recordings, added, values=builder.values)


def _last_node(builder: Builder) -> PathNode:
    """The path node whose units are the network's outputs."""
    output = next(node for node in builder.program.graph.nodes if node.op == "output")
    (result,) = tree_leaves(output.args[0])
    last = _walk(builder, result)
    if not isinstance(last, Layout):
        remedy = "Choose one of its values with npk.choose_output"
        builder.refuse(result, "the network returns a list", remedy)
    is_node = last.is_whole and last.units is None
    return last.node if is_node else builder.settle(result, last).node


def _walk(builder: Builder, start: fx.Node) -> Value:
    """What ``start`` computes, as units of path nodes; iterative, for deep networks."""
    carried: dict[fx.Node, Value] = {}
    stack = [start]
    while stack:
        node = stack[-1]
        if why := refusal_of(node):
            builder.refuse(node, *why)
        carriers = carriers_of(node)
        missing = [a for a in carriers if a not in carried]
        if node not in carried and not missing:
            carried[node] = _read(builder, node, [carried[a] for a in carriers])
        stack = stack + missing if missing else stack[:-1]
    return carried[start]


def _read(builder: Builder, node: fx.Node, inputs: list[Value]) -> Value:
    name = "input" if node.op == "placeholder" else name_of(node)
    rule = rule_of(node)
    if rule is None:
        remedy = "Replace it by one of the operators that the guide to checkpoints lists"
        builder.refuse(node, f"npk knows no paths through {name}", remedy)
    if name not in ("get_attr", *ONES) and NUMBER not in node.meta and not is_batched(node):
        builder.refuse(node, *(LED if is_led(node) else MIXED))
    if not all(isinstance(value, Layout) for value in inputs) and name != "getitem":
        builder.refuse(node, f"{name} takes a list of values", "Take one of them first")
    return rule(builder, node, inputs)
