"""What the rules build: the nodes of a path graph, and what a run of the program has to record."""

import math
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NoReturn

import numpy as np
import torch
from torch import fx

from npk.errors import UnsupportedGraphError
from npk.files import digest
from npk.graph.facts import Operator
from npk.graph.node import PathNode
from npk.graph.operators import Input, Rearrange, Scale, Shift
from npk.graph.positions import AdaptiveWindow, Window
from npk.reading.exported import constant_behind, module_of, shape_of, source_of
from npk.reading.fixed import Fixed
from npk.reading.memory import is_one
from npk.reading.units import Layout, parts_of


@dataclass(frozen=True)
class Recording:
    """How one entry of the gate table is read off a run of the traced program.

    ``rule``: what its value becomes, a name in the table ``MADE`` of ``npk/gates/entries.py``, such as
    "positive" (the value is a pre-activation; on where > 0). ``bounds``: the two numbers that a
    rule may ask for. ``window``: of a "selection". ``units``: flat element of the value that each unit of the entry reads; ``None``:
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


@dataclass
class Builder:
    """Makes nodes of the path graph, one or more for a node of the exported program, and knows
    nothing of the order in which these come.
    """

    program: fx.GraphModule
    input_shape: tuple[int, ...]
    fixed: Fixed
    nodes: dict[str, PathNode] = field(default_factory=dict)
    recordings: list[Recording] = field(default_factory=list)
    settled: dict[tuple, PathNode] = field(default_factory=dict)
    values: dict[str, torch.Tensor] = field(default_factory=dict)  # that went into the graph

    def add(
        self,
        node: fx.Node,
        operator: Operator,
        inputs: list[PathNode],
        shape: tuple[int, ...],
        suffix: str = "",
    ) -> PathNode:
        """Add a node to the path graph; ``suffix`` tells several nodes of one traced node apart."""
        name, sources = node.name + suffix, tuple(source.name for source in inputs)
        self.nodes[name] = PathNode(name, operator, sources, shape, source_of(node))
        return self.nodes[name]

    def add_as_traced(self, node: fx.Node, operator: Operator, *inputs: PathNode) -> Layout:
        """Add a node whose units are the elements of the traced value, in order."""
        shape = shape_of(node)
        return Layout.of(self.add(node, operator, list(inputs), shape), shape)

    def unitwise(
        self, node: fx.Node, layout: Layout, operator: Operator, suffix: str = ""
    ) -> Layout:
        """Add an operator that goes unit by unit, wherever the units are."""
        (whole,) = self.settle_any(node, layout)
        return whole.on(self.add(node, operator, [whole.node], whole.node.shape, suffix))

    def settle(self, node: fx.Node, layout: Layout, axis: int = 0) -> Layout:
        """The layout on one path node: an axis of the tensor as channels, the others as grid."""
        moved = layout.with_axis_first(axis)
        if len(moved.sources) == 1 and moved.units is None and moved.node.shape == moved.shape:
            return Layout.of(moved.node, layout.shape) if axis == 0 else layout
        if not moved.sources or not moved.numbers.any():
            self.refuse(node, "it sees constant zeros only", "Leave them out")
        key = (tuple(s.name for s in moved.sources), moved.shape, digest(moved.numbers.tobytes()))
        if key not in self.settled:
            self.settled[key] = self._rearranged(node, moved)
        return Layout.of(self.settled[key], moved.shape).with_first_axis_at(axis)

    def settle_any(self, node: fx.Node, *layouts: Layout) -> tuple[Layout, ...]:
        """Layouts of one shape on nodes of one shape, units in the same places, in few pieces."""
        first = layouts[0]
        if all(
            layout.is_whole and layout.node.shape == first.node.shape and layout.has_units_of(first)
            for layout in layouts
        ):
            return layouts

        def pieces(axis: int) -> int:
            return sum(len(parts_of(layout.with_axis_first(axis))) for layout in layouts)

        plain = all(layout.has_channels_first() for layout in layouts)
        axis = 0 if plain else min((0, len(first.shape) - 1), key=pieces)
        return tuple(self.settle(node, layout, axis) for layout in layouts)

    def _rearranged(self, node: fx.Node, moved: Layout) -> PathNode:
        parts, suffix = parts_of(moved), f".input{len(self.settled)}"
        channels = [channel for part in parts for channel in part.into]
        chain = self._fixed_chain(moved) if len(channels) > len(set(channels)) else []
        if not chain:
            return self.add(node, Rearrange(parts), list(moved.sources), moved.shape, suffix)
        start: Any = chain[0].operator
        # ones of their own: beyond the input
        beyond = start.ones and start.units is None and chain[0].shape != self.input_shape
        first = math.prod(self.input_shape) if beyond else 0
        raw = np.array([-1, *(start.units or range(first, first + math.prod(chain[0].shape)))])
        units = tuple(raw[moved.numbers.reshape(-1)].tolist())
        last = self.add(node, Input(start.ones, units), [], moved.shape, suffix)
        for number, link in enumerate(chain[1:]):
            last = self.add(node, link.operator, [last], moved.shape, f"{suffix}.{number}")
        return last

    def _fixed_chain(self, layout: Layout) -> list[PathNode]:
        """The nodes behind a layout, from the input on, if they scale and shift; else nothing."""
        chain = [layout.sources[0]] if len(layout.sources) == 1 else []
        while chain and not isinstance(operator := chain[0].operator, Input):
            scale = isinstance(operator, Scale) and not operator.weight
            shift = isinstance(operator, Shift) and not operator.bias and layout.numbers.all()
            chain = [self.nodes[chain[0].inputs[0]], *chain] if scale or shift else []
        ones = bool(chain) and isinstance(start := chain[0].operator, Input) and start.ones
        # zeros among ones: no number of a sample tells them apart
        return [] if ones and not layout.numbers.all() else chain

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
        """Have an entry of the gate table recorded at ``seen``; gives its name, by the module."""
        name = name or module_of(node) or node.name
        taken = {r.gate for r in self.recordings}
        name = name if name not in taken else f"{name}:{node.name}"
        self.recordings.append(Recording(name, seen.name, rule, shape, units, **more))
        return name

    def argument(self, node: fx.Node) -> fx.Node:
        """The first argument of a node, which must be a value that the network computes."""
        first = node.args[0] if node.args else None
        if not isinstance(first, fx.Node):
            remedy = "Give it a value that the network computes"
            self.refuse(node, "its first argument is a constant", remedy)
        return first

    def parameter(self, node: fx.Node, argument: object) -> str:
        """Name of a parameter or buffer; a memory with two names goes by the first."""
        held = constant_behind(argument)
        if held is None:
            what = "its weight is computed from the samples, or by chance"
            self.refuse(node, what, "Compute weights from parameters and buffers alone")
        tensor = self.held(str(held.target))
        names = (str(n.target) for n in self.program.graph.nodes if n.op == "get_attr")
        return next(name for name in names if is_one(self.held(name), tensor))

    def tensor(self, target: str) -> torch.Tensor:
        """The parameter or buffer behind a get_attr node, of which values go into the graph."""
        tensor = self.held(target)
        self.values[target] = tensor.detach().clone()
        return tensor

    def numbers(self, target: str) -> np.ndarray:
        """Those of :meth:`tensor` in float64."""
        return self.tensor(target).detach().double().cpu().numpy()

    def coefficients(self, argument: object) -> torch.Tensor | None:
        """The values of a tensor that is declared fixed, in float64; ``None`` for a weight."""
        held = constant_behind(argument)
        if held is None or not self.fixed.holds(name := str(held.target)):
            return None
        self.fixed.use(name)
        return self.tensor(name).detach().double().cpu()

    def held(self, target: str) -> torch.Tensor:
        """The parameter or buffer behind a get_attr node, whatever its values are."""
        return attrgetter(target)(self.program)

    def refuse(self, node: fx.Node, what: str, remedy: str) -> NoReturn:
        """Raise the error that names the node, its module and its source line."""
        module = f" in module {module_of(node)!r}" if module_of(node) else ""
        place = f"node {node.name}{module} ({source_of(node)})"
        raise UnsupportedGraphError(f"{place}: {what}. {remedy}.")

    def leading_to(self, last: PathNode) -> list[PathNode]:
        """The nodes that lead to one, in order."""
        used, stack = set[str](), [last.name]
        while stack:
            name = stack.pop()
            if name not in used:
                used.add(name)
                stack += self.nodes[name].inputs
        return [node for node in self.nodes.values() if node.name in used]
