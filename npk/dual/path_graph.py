"""PathGraph: what a path through a network may pass, and nothing else.

A network whose gates are frozen is a sum over paths. The graph holds the operators that a path meets between input and output,
in order, each with the shape ``(channels, *positions)`` of what it gives. Gating networks are not in it: only the gates that they make.
"""

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np

from npk.dual.independence import refuse_dependent_paths
from npk.dual.path_operators import AveragePool, Convolution, Gate, Input, MaxPool, Operator, Part, Rearrange, describe
from npk.dual.positions import AdaptiveWindow, Grid, Window
from npk.errors import OptionError


@dataclass(frozen=True)
class PathNode:
    """One operator: its inputs by name, the shape it gives, and where in the user's code it stands."""

    name: str
    operator: Operator
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    source: str = ""

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.shape[0]

    @property
    def grid(self) -> Grid:
        """Sides of the grid of positions; empty where there is none."""
        return self.shape[1:]

    @property
    def positions(self) -> int:
        """Number of positions, 1 where there is no grid."""
        return math.prod(self.grid)

    @property
    def gate(self) -> str:
        """Entry of the gate table that the node reads; empty where it reads none."""
        return self.operator.gate if isinstance(self.operator, Gate | MaxPool) else ""

    @property
    def entries(self) -> tuple[str, ...]:
        """All entries of the gate table that the node reads: its gate, and where it saturates."""
        levels = self.operator.levels if isinstance(self.operator, Gate) else ()
        return (*((self.gate,) if self.gate else ()), *(name for name, _ in levels))


@dataclass(frozen=True)
class PathGraph:
    """The operators in order; the last one is the output. ``print(graph)`` shows a table.

    Raises:
        UnsupportedGraphError: one parameter could be met twice on a path, or one path type leads through two branches of a sum.
    """

    nodes: tuple[PathNode, ...]
    input_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        refuse_dependent_paths(self)

    @cached_property
    def _by_name(self) -> dict[str, PathNode]:
        return {node.name: node for node in self.nodes}

    def __getitem__(self, name: str) -> PathNode:
        return self._by_name[name]

    @property
    def output(self) -> PathNode:
        """The node that the network returns."""
        return self.nodes[-1]

    @property
    def gates(self) -> tuple[PathNode, ...]:
        """The nodes that read the gate table: gates and max pools."""
        return tuple(node for node in self.nodes if isinstance(node.operator, Gate | MaxPool))

    def input_of(self, node: PathNode) -> PathNode:
        """The first input of a node."""
        return self[node.inputs[0]]

    def path_count(self) -> int:
        """Number of concrete paths that reach one output unit (the most of any), gates and paths from biases left aside."""
        counts: dict[str, list[int]] = {}
        for node in self.nodes:
            counts[node.name] = _count_paths(self, node, [counts[name] for name in node.inputs])
        return max(counts[self.output.name])

    def __str__(self) -> str:
        head = ("node", "operator", "shape", "inputs", "source")
        rows = [(n.name, describe(n.operator), "x".join(map(str, n.shape)), ", ".join(n.inputs), n.source) for n in self.nodes]
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in [head, *rows])


def refuse_other_ones(node: PathNode, shape: tuple[int, ...]) -> None:
    """Samples can stand in the place of ones only where these are as many.

    Raises:
        OptionError: the node shows ones of another shape.
    """
    match node.operator:
        case Input(ones=True, units=None) if node.shape != shape:
            other = True
        case Input(ones=True, units=tuple(units)):
            other = max(units) >= math.prod(shape)
        case _:
            other = False
    if other:
        raise OptionError(
            f'value_input="x" puts samples of shape {shape} in the place of the ones that paths start from, node {node.name} of shape '
            f'{node.shape}. Use value_input="ones" or "auto".'
        )


def window_taps(graph: PathGraph, node: PathNode) -> np.ndarray:
    """Positions of the node's input that each of its positions sees, ``(offsets, positions)``, -1 outside."""
    operator = node.operator
    if isinstance(operator, Convolution | AveragePool | MaxPool):
        return operator.window.taps(graph.input_of(node).grid)
    return np.arange(node.positions)[None]


def part_taps(node: PathNode, part: Part) -> np.ndarray:
    """Positions of its input that a part of a rearrangement shows, ``(1, positions)``, -1 for a zero."""
    return np.arange(node.positions)[None] if part.taps is None else np.array(part.taps, np.int64).reshape(1, -1)


def average_weights(graph: PathGraph, node: PathNode, operator: AveragePool) -> np.ndarray:
    """Coefficient of each tap of an average pool, ``(offsets, positions)``, 0 outside."""
    window, grid = operator.window, graph.input_of(node).grid
    inside = window.taps(grid) >= 0
    count = inside.sum(0)
    if operator.counted is not None and isinstance(window, Window):
        left = tuple((p[0] - c[0], p[1] - c[1]) for p, c in zip(window.padding, operator.counted, strict=True))
        padded = tuple(n + sum(c) for n, c in zip(grid, operator.counted, strict=True))
        count = (dataclasses.replace(window, padding=left).taps(padded) >= 0).sum(0)
    return np.where(inside, 1.0 / (operator.divisor or np.maximum(count, 1)), 0.0)


def fan_in(graph: PathGraph, node: PathNode) -> int:
    """Number of weights that enter one unit of a parametric layer; 1 for batch norm and scale."""
    operator = node.operator
    if not isinstance(operator, Convolution):
        return 1
    return graph.input_of(node).channels // operator.groups * operator.window.size


def _count_paths(graph: PathGraph, node: PathNode, inputs: list[list[int]]) -> list[int]:
    """Paths to a unit of each channel; where windows differ in size, those of the largest."""
    match node.operator:
        case Input():
            return [1] * node.channels
        case Convolution(window=window, groups=groups):
            wide = len(inputs[0]) // groups
            sums = [sum(inputs[0][g * wide : (g + 1) * wide]) * window.size for g in range(groups)]
            return [sums[c * groups // node.channels] for c in range(node.channels)]
        case AveragePool(window=window) | MaxPool(window=window):
            return [count * window.size for count in inputs[0]]
        case Rearrange(parts=parts):
            found = [0] * node.channels
            for part in parts:
                for into, channel in zip(part.into, part.channels, strict=True):
                    found[into] = max(found[into], inputs[part.input][channel])
            return found
    return [sum(counts) for counts in zip(*inputs, strict=True)]


def to_dict(graph: PathGraph) -> dict[str, Any]:
    """The graph as JSON values; :func:`from_dict` gives it back."""
    nodes = []
    for node in graph.nodes:
        operator = {"type": type(node.operator).__name__, **dataclasses.asdict(node.operator)}
        nodes.append({"name": node.name, "operator": operator, "inputs": node.inputs, "shape": node.shape, "source": node.source})
    return {"nodes": nodes, "input_shape": graph.input_shape}


def from_dict(values: dict[str, Any]) -> PathGraph:
    """Rebuild a graph that :func:`to_dict` described."""
    nodes = tuple(
        PathNode(v["name"], _operator(dict(v["operator"])), tuple(v["inputs"]), tuple(v["shape"]), v["source"]) for v in values["nodes"]
    )
    return PathGraph(nodes, tuple(values["input_shape"]))


_OPERATORS: dict[str, Any] = {cls.__name__: cls for cls in get_args(Operator)}


def _operator(values: dict[str, Any]) -> Operator:
    cls = _OPERATORS[values.pop("type")]
    if "window" in values:
        window = {key: _tuples(value) for key, value in values["window"].items()}
        values["window"] = AdaptiveWindow(**window) if "sides" in window else Window(**window)
    if "parts" in values:
        values["parts"] = tuple(Part(**{key: _tuples(value) for key, value in part.items()}) for part in values["parts"])
    return cls(**{key: _tuples(value) for key, value in values.items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) and not (value and isinstance(value[0], Part)) else value
