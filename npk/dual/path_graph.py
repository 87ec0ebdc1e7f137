"""PathGraph: what a path through a network may pass, and nothing else.

A network whose gates are frozen is a sum over paths. The graph holds the operators that a path meets between input and output,
in order, each with the shape ``(channels, *positions)`` of what it gives. Gating networks are not in it: only the gates that they make.
"""

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from npk.dual.positions import Grid, Window, pad_map
from npk.errors import UnsupportedGraphError


@dataclass(frozen=True)
class Input:
    """Where paths start: the network's input, or ones in its place (``ones=True``)."""

    ones: bool = False


@dataclass(frozen=True)
class Convolution:
    """Linear layer whose weights are shared by all positions. A dense layer is the case of a window as large as the grid."""

    weight: str
    bias: str | None
    window: Window


@dataclass(frozen=True)
class BatchNorm:
    """Batch norm with fixed statistics: a diagonal weight, and a shift that is a bias."""

    weight: str | None
    bias: str | None
    mean: str
    variance: str
    epsilon: float


@dataclass(frozen=True)
class Gate:
    """Multiply by gate ``gate`` of the gate table; a hard gate that is off lets ``slope`` pass (0, or that of a leaky ReLU)."""

    gate: str
    slope: float = 0.0


@dataclass(frozen=True)
class AveragePool:
    """Mean over a window; ``count_padding``: whether zeros of the padding count in the mean."""

    window: Window
    count_padding: bool = True


@dataclass(frozen=True)
class MaxPool:
    """Selection ``gate`` of the gate table: each window lets one of its positions pass."""

    gate: str
    window: Window


@dataclass(frozen=True)
class Pad:
    """Padding of the positions: "constant" (zeros), "circular", "reflect" or "replicate"."""

    widths: tuple[tuple[int, int], ...]
    mode: str


@dataclass(frozen=True)
class Add:
    """Sum of branches; no path type may lead through two of them."""


Operator = Input | Convolution | BatchNorm | Gate | AveragePool | MaxPool | Pad | Add


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


@dataclass(frozen=True)
class PathGraph:
    """The operators in order; the last one is the output. ``print(graph)`` shows a table.

    Raises:
        UnsupportedGraphError: one parameter could be met twice on a path, or one path type leads through two branches of a sum.
    """

    nodes: tuple[PathNode, ...]
    input_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        _refuse_reuse(self)
        _refuse_twin_branches(self)

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
        """Number of concrete paths that reach one output unit, gates left aside and parameters of biases not counted."""
        counts: dict[str, int] = {}
        for node in self.nodes:
            counts[node.name] = _count_paths(self, node, counts)
        return counts[self.output.name]

    def __str__(self) -> str:
        head = ("node", "operator", "shape", "inputs", "source")
        rows = [(n.name, _describe(n.operator), "x".join(map(str, n.shape)), ", ".join(n.inputs), n.source) for n in self.nodes]
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in [head, *rows])


def window_taps(graph: PathGraph, node: PathNode) -> np.ndarray:
    """Positions of the node's input that each of its positions sees, ``(offsets, positions)``, -1 outside."""
    operator, grid = node.operator, graph.input_of(node).grid
    if isinstance(operator, Pad):
        return pad_map(grid, operator.widths, operator.mode)
    if isinstance(operator, Convolution | AveragePool | MaxPool):
        return operator.window.taps(grid)
    return np.arange(node.positions)[None]


def average_weights(operator: AveragePool, taps: np.ndarray) -> np.ndarray:
    """Coefficient of each tap of an average pool, 0 outside; same shape as ``taps``."""
    inside = taps >= 0
    count = np.full(taps.shape[1], operator.window.size) if operator.count_padding else inside.sum(0)
    return np.where(inside, 1.0 / np.maximum(count, 1), 0.0)


def fan_in(graph: PathGraph, node: PathNode) -> int:
    """Number of weights that enter one unit of a parametric layer; 1 for batch norm."""
    operator = node.operator
    return graph.input_of(node).channels * operator.window.size if isinstance(operator, Convolution) else 1


def _count_paths(graph: PathGraph, node: PathNode, counts: dict[str, int]) -> int:
    if not node.inputs:
        return 1
    before = sum(counts[name] for name in node.inputs)
    if isinstance(node.operator, AveragePool | MaxPool):
        return before * node.operator.window.size
    return before * fan_in(graph, node)


def _describe(operator: Operator) -> str:
    match operator:
        case Convolution(weight=weight, window=window):
            if window.size == 1 and all(s == 1 for s in window.stride) and not any(map(any, window.padding)):
                return f"linear {weight}"
            return f"convolution {weight} kernel {window.kernel} stride {window.stride} padding {window.padding}"
        case Gate(gate=gate, slope=slope):
            return f"gate {gate}" + (f" slope {slope:g}" if slope else "")
        case MaxPool(window=window) | AveragePool(window=window):
            return f"{type(operator).__name__} {window.kernel} stride {window.stride}"
        case Pad(widths=widths, mode=mode):
            return f"pad {mode} {widths}"
        case Input(ones=ones):
            return "ones" if ones else "input"
        case _:
            return type(operator).__name__


def parameters_of(operator: Operator) -> tuple[str, ...]:
    """Names of the parameters that a path multiplies at this operator (biases, where other paths start, left aside)."""
    match operator:
        case Convolution(weight=weight):
            return (weight,)
        case BatchNorm(weight=weight, variance=variance):
            return (weight or variance,)
    return ()


def _refuse_reuse(graph: PathGraph) -> None:
    """A parameter met twice on a path makes a square, two that swap places make one monomial of two paths: the moment identity fails."""
    above: dict[str, frozenset[str]] = {}
    before: dict[str, frozenset[str]] = {}  # what paths met up to a parameter, itself included
    for node in graph.nodes:
        met: frozenset[str] = frozenset().union(*(above[name] for name in node.inputs))
        for parameter in parameters_of(node.operator):
            if parameter in met:
                raise UnsupportedGraphError(
                    f"node {node.name} ({node.source}): parameter {parameter} is used twice along a path, so paths hold its square. "
                    "Give the two layers weights of their own."
                )
            met |= {parameter}
            before[parameter] = before.get(parameter, frozenset()) | met
        above[node.name] = met
    for parameter, met in before.items():
        swapped = next((other for other in met if other != parameter and parameter in before[other]), None)
        if swapped:
            raise UnsupportedGraphError(
                f"parameters {parameter} and {swapped} are met in one order on some paths and in the other order on others, "
                "so different paths may have one product of weights. Give the layers weights of their own."
            )


def _refuse_twin_branches(graph: PathGraph) -> None:
    """Two branches of a sum must differ by a parametric layer on every path, else their cross terms do not vanish."""
    for node in graph.nodes:
        if not isinstance(node.operator, Add):
            continue
        for i, first in enumerate(node.inputs):
            if any(_share_a_path_type(graph, first, second) for second in node.inputs[i + 1 :]):
                raise UnsupportedGraphError(
                    f"node {node.name} ({node.source}): it adds branches that some path reaches through the same weights, "
                    "so their cross terms do not vanish. Put a parametric layer with weights of its own on one of the branches."
                )


def _share_a_path_type(graph: PathGraph, first: str, second: str) -> bool:
    """Walk both branches backwards together: do two different ways meet the same parameters in the same order?"""
    seen, stack = set(), [(first, second)]
    while stack:
        pair = stack.pop()
        if pair in seen:
            continue
        seen.add(pair)
        a, b = (graph[name] for name in pair)
        if a.name == b.name or (isinstance(a.operator, Input) and isinstance(b.operator, Input)):
            return True
        pa, pb = parameters_of(a.operator), parameters_of(b.operator)
        if not pa and a.inputs:
            stack += [(name, b.name) for name in a.inputs]
        elif not pb and b.inputs:
            stack += [(a.name, name) for name in b.inputs]
        elif pa and pa == pb:
            stack += [(x, y) for x in a.inputs for y in b.inputs]
    return False


def to_dict(graph: PathGraph) -> dict[str, Any]:
    """The graph as JSON values; :func:`from_dict` gives it back."""
    nodes = []
    for node in graph.nodes:
        operator = {"type": type(node.operator).__name__, **dataclasses.asdict(node.operator)}
        nodes.append({"name": node.name, "operator": operator, "inputs": node.inputs, "shape": node.shape, "source": node.source})
    return {"nodes": nodes, "input_shape": graph.input_shape}


_OPERATORS: dict[str, Any] = {cls.__name__: cls for cls in (Input, Convolution, BatchNorm, Gate, AveragePool, MaxPool, Pad, Add)}


def from_dict(values: dict[str, Any]) -> PathGraph:
    """Rebuild a graph that :func:`to_dict` described."""
    nodes = tuple(
        PathNode(v["name"], _operator(dict(v["operator"])), tuple(v["inputs"]), tuple(v["shape"]), v["source"]) for v in values["nodes"]
    )
    return PathGraph(nodes, tuple(values["input_shape"]))


def _operator(values: dict[str, Any]) -> Operator:
    cls = _OPERATORS[values.pop("type")]
    if "window" in values:
        values["window"] = Window(**{key: _tuples(value) for key, value in values["window"].items()})
    return cls(**{key: _tuples(value) for key, value in values.items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value
