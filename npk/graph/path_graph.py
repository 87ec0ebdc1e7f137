"""PathGraph: what a path through a network may pass, and nothing else.

A network whose gates are frozen is a sum over paths. The graph holds the operators that a path
meets between input and output, in order, each with the shape ``(channels, *positions)`` of what it
gives. Gating networks are not in it: only the gates that they make.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from npk.graph.independence import refuse_dependent_paths
from npk.graph.node import PathNode, module_of
from npk.shown import table

LISTED = ("node", "module", "operator", "shape", "source")  # heads of a list of nodes
MOST_LISTED = 500  # nodes that a notebook lists


@dataclass(frozen=True)
class PathGraph:
    """The operators in order; the last one is the output. ``print(graph)`` shows a table, and a
    notebook that of `npk inspect`.

    Raises:
        UnsupportedGraphError: one parameter could be met twice on a path, one path type leads
            through two branches of a sum, or an operator is none that npk knows.
    """

    nodes: tuple[PathNode, ...]
    input_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        refuse_dependent_paths(self.nodes)

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
        return tuple(node for node in self.nodes if node.entries)

    def input_of(self, node: PathNode) -> PathNode:
        """The first input of a node."""
        return self[node.inputs[0]]

    def path_count(self) -> int:
        """Number of concrete paths that reach one output unit (the most of any).

        Gates and paths from biases are left aside.
        """
        counts: dict[str, list[int]] = {}
        for node in self.nodes:
            before = [counts[name] for name in node.inputs]
            counts[node.name] = node.operator.path_counts(before, node.channels)
        return max(counts[self.output.name])

    def __str__(self) -> str:
        rows = [("node", "operator", "shape", "inputs", "source"), *map(_row, self.nodes)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        padded = ([cell.ljust(w) for cell, w in zip(row, widths, strict=True)] for row in rows)
        return "\n".join("  ".join(row).rstrip() for row in padded)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.input_shape))
        return f"<npk.PathGraph of {shape}: {len(self.nodes)} nodes, {len(self.gates)} with gates>"

    def _repr_html_(self) -> str:
        rows = map(self.listed, range(len(self.nodes)))
        return table(LISTED, rows, repr(self)[1:-1], most=MOST_LISTED)

    def listed(self, number: int) -> tuple[str, ...]:
        """What `npk inspect` says of a node, under the heads ``LISTED``.

        Args:
            number: of the node.

        Returns:
            Its number, module, operator (with its inputs by number, where these are not the node
            before alone), shape, and line of the user's code.
        """
        node = self.nodes[number]
        inputs = [self._numbers[name] for name in node.inputs]
        joins = f" of {', '.join(map(str, inputs))}" if inputs not in ([], [number - 1]) else ""
        shape = "x".join(map(str, node.shape))
        return str(number), module_of(node), node.describe() + joins, shape, node.source

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {node.name: number for number, node in enumerate(self.nodes)}


def _row(node: PathNode) -> tuple[str, ...]:
    """A node's line of the table."""
    shape = "x".join(map(str, node.shape))
    return node.name, node.describe(named=True), shape, ", ".join(node.inputs), node.source


def window_taps(graph: PathGraph, node: PathNode) -> np.ndarray:
    """Positions of a node's one input that each of its positions sees.

    Args:
        graph: of the node.
        node: with one input.

    Returns:
        ``(offsets, positions)``, -1 outside.
    """
    (taps,) = node.operator.taps(tuple(graph[name].grid for name in node.inputs), node.grid)
    return taps


def fan_in(graph: PathGraph, node: PathNode) -> int:
    """Number of weights that enter one unit of a parametric layer; 1 for batch norm and scale."""
    return node.operator.fan_in(graph.input_of(node).channels if node.inputs else 0)


def to_dict(graph: PathGraph) -> dict[str, Any]:
    """The graph as JSON values; :func:`from_dict` gives it back."""
    return {"nodes": [node.to_dict() for node in graph.nodes], "input_shape": graph.input_shape}


def from_dict(values: dict[str, Any]) -> PathGraph:
    """Rebuild a graph that :func:`to_dict` described.

    Args:
        values: JSON values, or those themselves.

    Returns:
        The graph.

    Raises:
        UnsupportedGraphError: an operator is none that this npk has.
    """
    nodes = tuple(map(PathNode.from_dict, values["nodes"]))
    return PathGraph(nodes, tuple(values["input_shape"]))
