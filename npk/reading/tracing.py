"""A network becomes a PathGraph: traced by ``torch.export``, read operator by operator, refused
where not wholly understood.

The exported graph is functional (in-place and re-used ReLUs are plain calls) and still high-level
(a circular pad stays one node). Paths are found from the output backwards: linear operators carry
them, ``relu(q)`` is a gate on q, ``mul(h, g)`` with g out of a gate operator is an external gate.
"""

import math
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NoReturn

import numpy as np
import torch
from torch import fx
from torch.utils._pytree import tree_leaves

from npk.errors import UnsupportedGraphError
from npk.files import digest
from npk.graph.facts import Operator
from npk.graph.independence import refuse_shared_leaves
from npk.graph.node import PathNode
from npk.graph.operators import Input, Rearrange, Scale, Shift
from npk.graph.path_graph import PathGraph
from npk.graph.positions import AdaptiveWindow, Window
from npk.networks.given import as_shape
from npk.reading.apart import apart
from npk.reading.exported import is_batched, is_led, module_of, name_of, source_of
from npk.reading.exporting import program_of as _export
from npk.reading.memory import is_one, refuse_shared_memory
from npk.reading.plain.constants import Leaves
from npk.reading.plain.operators import in_plain_operators
from npk.reading.rules.layers import Value, carriers_of, constant_behind, rule_of
from npk.reading.rules.moves import LED, MIXED, NUMBER, ONES
from npk.reading.rules.refused import refusal_of
from npk.reading.state import have_values
from npk.reading.units import Layout, parts_of


@dataclass(frozen=True)
class Recording:
    """How one entry of the gate table is read off a run of the traced program.

    ``rule``: "positive" (the node's value is a pre-activation; on where > 0), "between", "above"
    and "below" (on within or beyond ``bounds``), "value" (the value is a real gate), "sigmoid",
    "hardsigmoid" and "normal" (a real gate is that function of it), "selection" (arg-max of
    ``window``). ``units``: flat element of the value that each unit of the entry reads; ``None``:
    its own number. ``hard``: node and units where "positive" gives the hard form of a soft gate.
    """

    gate: str
    node: str
    rule: str
    shape: tuple[int, ...]
    units: np.ndarray | None = None
    window: Window | AdaptiveWindow | None = None
    bounds: tuple[float, float] = (-math.inf, math.inf)
    hard: tuple[str, np.ndarray | None] | None = None


@dataclass(frozen=True)
class Trace:
    """A traced network: its path graph, the program that runs it, and what to record of a run.

    ``readers``: the program as it hands over the values of some nodes, made when a recording first
    asks for them. ``values``: copies of the tensors whose values are in the graph.
    """

    graph: PathGraph
    program: fx.GraphModule
    recordings: tuple[Recording, ...]
    readers: dict[tuple[str, ...], fx.GraphModule] = field(
        default_factory=dict, compare=False, repr=False
    )
    values: dict[str, torch.Tensor] = field(default_factory=dict, compare=False, repr=False)

    def holds(self) -> bool:
        """Whether the tensors of the program have the values that the graph has read of them, such
        as slopes.
        """
        return have_values(
            {name: attrgetter(name)(self.program) for name in self.values}, self.values
        )


def trace(net: torch.nn.Module, input_shape: tuple[int, ...]) -> PathGraph:
    """Read the path graph of a network.

    Args:
        net: a network in eval mode.
        input_shape: shape of one sample, without the batch axis.

    Returns:
        The graph; ``print`` shows it as a table.

    Raises:
        UnsupportedGraphError: a node that npk does not wholly understand, by name, source line, and
            what would make it acceptable.
        ShapeError: the network does not accept samples of that shape.
    """
    return trace_network(net, input_shape).graph


def trace_network(net: torch.nn.Module, input_shape: tuple[int, ...]) -> Trace:
    """As :func:`trace`, with the program and the recordings that a gate table needs."""
    program = _export(net, input_shape)
    return apart(_read_trace, program, as_shape(input_shape))


def _read_trace(program: fx.GraphModule, input_shape: tuple[int, ...]) -> Trace:
    """The trace of an exported program, which is made plain first; the values that this takes from
    tensors are watched.
    """
    read = set[str]()
    reader = Reader(program, input_shape, in_plain_operators(program, read))
    for name in read - reader.leaves.keys():
        reader.tensor(name)
    return reader.read()


@dataclass
class Reader:
    """Walks the value part of the exported graph from the output backwards, then reads it forwards."""

    program: fx.GraphModule
    input_shape: tuple[int, ...]
    leaves: Leaves = field(default_factory=dict)
    nodes: dict[str, PathNode] = field(default_factory=dict)
    recordings: list[Recording] = field(default_factory=list)
    settled: dict[tuple, PathNode] = field(default_factory=dict)
    values: dict[str, torch.Tensor] = field(default_factory=dict)  # that were read

    def read(self) -> Trace:
        """The trace of the whole program."""
        output = next(node for node in self.program.graph.nodes if node.op == "output")
        (result,) = tree_leaves(output.args[0])
        last = self.value(result)
        if not isinstance(last, Layout):
            self.refuse(
                result,
                "the network returns a list",
                "Choose one of its values with npk.choose_output",
            )
        ends = last.node if last.is_whole and last.units is None else self.settle(result, last).node
        order = _reachable(self.nodes, ends)
        refuse_shared_memory(order, self.held)
        refuse_shared_leaves(order, self.leaves)
        names = {name for node in order for name in node.entries}
        recordings = tuple(r for r in self.recordings if r.gate in names)
        return Trace(
            PathGraph(tuple(order), self.input_shape), self.program, recordings, values=self.values
        )

    def value(self, start: fx.Node) -> Value:
        """What ``start`` computes, as units of path nodes; iterative, for deep networks."""
        carried: dict[fx.Node, Value] = {}
        stack = [start]
        while stack:
            node = stack[-1]
            if why := refusal_of(node):
                self.refuse(node, *why)
            carriers = carriers_of(node)
            missing = [a for a in carriers if a not in carried]
            if node not in carried and not missing:
                carried[node] = self._read(node, [carried[a] for a in carriers])
            stack = stack + missing if missing else stack[:-1]
        return carried[start]

    def _read(self, node: fx.Node, inputs: list[Value]) -> Value:
        name = "input" if node.op == "placeholder" else name_of(node)
        rule = rule_of(node)
        if rule is None:
            remedy = "Replace it by one of the operators that the guide to checkpoints lists"
            self.refuse(node, f"npk knows no paths through {name}", remedy)
        if name not in ("get_attr", *ONES) and NUMBER not in node.meta and not is_batched(node):
            self.refuse(node, *(LED if is_led(node) else MIXED))
        if not all(isinstance(value, Layout) for value in inputs) and name != "getitem":
            self.refuse(node, f"{name} takes a list of values", "Take one of them first")
        return rule(self, node, inputs)

    def add(
        self,
        node: fx.Node,
        operator: Operator,
        inputs: list[PathNode],
        shape: tuple[int, ...],
        suffix: str = "",
    ) -> PathNode:
        """Add a node to the path graph; ``suffix`` tells several nodes of one traced node apart."""
        made = PathNode(
            node.name + suffix, operator, tuple(i.name for i in inputs), shape, source_of(node)
        )
        self.nodes[made.name] = made
        return made

    def settle(self, node: fx.Node, layout: Layout, axis: int = 0) -> Layout:
        """The layout on one path node whose channels are an axis of the tensor and whose grid are
        the others, in order.
        """
        moved = layout.with_axis_first(axis)
        if len(moved.sources) == 1 and moved.units is None and moved.node.shape == moved.shape:
            return Layout.of(moved.node, layout.shape) if axis == 0 else layout
        if not moved.sources or not moved.numbers.any():
            self.refuse(node, "it sees constant zeros only", "Leave them out")
        key = (tuple(s.name for s in moved.sources), moved.shape, digest(moved.numbers.tobytes()))
        if key not in self.settled:
            self.settled[key] = self._rearranged(node, moved)
        result = Layout.of(self.settled[key], moved.shape)
        return result.with_units(np.moveaxis(result.numbers, 0, axis)) if axis else result

    def _rearranged(self, node: fx.Node, moved: Layout) -> PathNode:
        parts = parts_of(moved)
        suffix = f".input{len(self.settled)}"
        mixed = sum(len(part.into) for part in parts) > len(
            {c for part in parts for c in part.into}
        )
        if mixed and (chain := self._fixed_chain(moved)):
            first: Any = chain[0].operator
            other = math.prod(self.input_shape) * (
                first.ones and first.units is None and chain[0].shape != self.input_shape
            )
            # ones of their own: beyond the input
            raw = np.array([-1, *(first.units or range(other, other + math.prod(chain[0].shape)))])
            made = self.add(
                node,
                Input(first.ones, tuple(raw[moved.numbers.reshape(-1)].tolist())),
                [],
                moved.shape,
                suffix,
            )
            for number, link in enumerate(chain[1:]):
                made = self.add(node, link.operator, [made], moved.shape, f"{suffix}.{number}")
            return made
        return self.add(node, Rearrange(parts), list(moved.sources), moved.shape, suffix)

    def _fixed_chain(self, layout: Layout) -> list[PathNode]:
        """From the input on: the nodes behind a layout, if it is the input times and plus numbers;
        else nothing.
        """
        chain = [layout.sources[0]] if len(layout.sources) == 1 else []
        while chain and not isinstance(chain[0].operator, Input):
            operator = chain[0].operator
            scale, shift = (
                isinstance(operator, Scale) and not operator.weight,
                isinstance(operator, Shift) and not operator.bias,
            )
            chain = (
                [self.nodes[chain[0].inputs[0]], *chain]
                if scale or (shift and layout.numbers.all())
                else []
            )
        ones = bool(chain) and isinstance(start := chain[0].operator, Input) and start.ones
        # zeros among ones: no number of a sample tells them apart
        return [] if ones and not layout.numbers.all() else chain

    def settle_any(self, node: fx.Node, *layouts: Layout) -> tuple[Layout, ...]:
        """Layouts of one shape on path nodes of one shape, with their units in the same places, in
        the fewest pieces.
        """
        first = layouts[0]
        if all(
            layout.is_whole and layout.node.shape == first.node.shape and layout.has_units_of(first)
            for layout in layouts
        ):
            return layouts
        axes = (0, len(first.shape) - 1)
        plain = all(layout.has_channels_first() for layout in layouts)
        axis = (
            0
            if plain
            else min(
                axes,
                key=lambda axis: sum(
                    len(parts_of(layout.with_axis_first(axis))) for layout in layouts
                ),
            )
        )
        return tuple(self.settle(node, layout, axis) for layout in layouts)

    def unitwise(
        self, node: fx.Node, layout: Layout, operator: Operator, suffix: str = ""
    ) -> Layout:
        """Add an operator that goes unit by unit, wherever the units are."""
        (whole,) = self.settle_any(node, layout)
        return whole.on(self.add(node, operator, [whole.node], whole.node.shape, suffix))

    def record(
        self,
        node: fx.Node,
        seen: fx.Node,
        rule: str,
        shape: tuple[int, ...],
        units: np.ndarray | None = None,
        *,
        name: str = "",
        **more: Any,
    ) -> str:
        """Have an entry of the gate table recorded at ``seen``, and give its name: that of the
        module, where it is not taken.
        """
        name = name or module_of(node) or node.name
        taken = {r.gate for r in self.recordings}
        name = name if name not in taken else f"{name}:{node.name}"
        self.recordings.append(Recording(name, seen.name, rule, shape, units, **more))
        return name

    def argument(self, node: fx.Node) -> fx.Node:
        """The first argument of a node, which must be a value that the network computes."""
        first = node.args[0] if node.args else None
        if not isinstance(first, fx.Node):
            self.refuse(
                node,
                "its first argument is a constant",
                "Give it a value that the network computes",
            )
        return first

    def refuse(self, node: fx.Node, what: str, remedy: str) -> NoReturn:
        """Raise the error that names the node, its module and its source line."""
        module = f" in module {module_of(node)!r}" if module_of(node) else ""
        raise UnsupportedGraphError(
            f"node {node.name}{module} ({source_of(node)}): {what}. {remedy}."
        )

    def parameter(self, node: fx.Node, argument: object) -> str:
        """Name of a parameter or buffer; a memory with two names goes by the first, so that sharing
        is seen.
        """
        held = constant_behind(argument)
        if held is None:
            self.refuse(
                node,
                "its weight is computed from the samples, or by chance",
                "Compute weights from parameters and buffers alone",
            )
        tensor = self.held(str(held.target))
        names = (str(n.target) for n in self.program.graph.nodes if n.op == "get_attr")
        return next(name for name in names if is_one(self.held(name), tensor))

    def tensor(self, target: str) -> torch.Tensor:
        """The parameter or buffer behind a get_attr node, of which values go into the graph."""
        tensor = self.held(target)
        self.values[target] = tensor.detach().clone()
        return tensor

    def held(self, target: str) -> torch.Tensor:
        """The parameter or buffer behind a get_attr node, whatever its values are."""
        return attrgetter(target)(self.program)


def _reachable(nodes: dict[str, PathNode], last: PathNode) -> list[PathNode]:
    """The nodes that lead to the output, in order."""
    used, stack = set(), [last.name]
    while stack:
        name = stack.pop()
        if name not in used:
            used.add(name)
            stack += nodes[name].inputs
    return [node for node in nodes.values() if node.name in used]
