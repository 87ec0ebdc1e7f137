"""What a network adds to its samples before the first weight: data, and no bias.

The mean that is subtracted from pictures is part of how they are prepared. The samples of a gate
table are shifted by it, and the path graph has no node for it.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from npk.graph.facts import refuse_operator
from npk.graph.node import PathNode, units_of
from npk.graph.operators import (
    Add,
    AveragePool,
    BatchNorm,
    Convolution,
    Gate,
    Input,
    MaxPool,
    Rearrange,
    Scale,
    Shift,
)


@dataclass(frozen=True)
class _Value:
    """A node that shows ``factor * (sample[units] + added)``; unit -1 is a zero."""

    node: PathNode
    units: np.ndarray  # (channels, positions)
    added: np.ndarray  # (channels, positions)
    factor: float = 1.0


def without_shifts(
    nodes: Sequence[PathNode], tensor: Callable[[str], np.ndarray], shape: tuple[int, ...]
) -> tuple[list[PathNode], np.ndarray | None]:
    """Take the shifts of the input out of a path graph.

    Args:
        nodes: in order.
        tensor: gives the values of a tensor of the network, in float64, by its name.
        shape: of a sample.

    Returns:
        The nodes without them, and what is added to each sample. All nodes and ``None`` where
        nothing is added, or where no one sum does for all of them: a value is read both with its
        shift and without, or zeros beside the sample are shifted with it.
    """
    walk = _Walk(nodes, tensor)
    starts = (node for node in nodes if isinstance(node.operator, Input) and not node.operator.ones)
    ends = [end for start in starts for end in walk.ends(_started(start, shape))]
    if not walk.shifts:
        return list(nodes), None
    added = np.full(math.prod(shape), np.nan)
    for end in ends:
        seen = end.units >= 0
        known = added[end.units[seen]]
        if end.added[~seen].any() or not (np.isnan(known) | (known == end.added[seen])).all():
            return list(nodes), None
        added[end.units[seen]] = end.added[seen]
        if not np.array_equal(added[end.units[seen]], end.added[seen]):  # one unit, shown twice
            return list(nodes), None
    return _left(nodes, walk.shifts), np.nan_to_num(added).reshape(shape)


def _started(node: PathNode, shape: tuple[int, ...]) -> _Value:
    shown = units_of(node)
    units = np.arange(math.prod(shape)) if shown is None else np.array(shown)
    units = units.reshape(node.channels, node.positions)
    return _Value(node, units, np.zeros(units.shape))


class _Walk:
    """Follows values of the samples to where something else than a shift begins."""

    def __init__(self, nodes: Sequence[PathNode], tensor: Callable[[str], np.ndarray]) -> None:
        self.tensor, self.output, self.shifts = tensor, nodes[-1], set[str]()
        self.readers: dict[str, list[PathNode]] = {node.name: [] for node in nodes}
        for node in nodes:
            for name in node.inputs:
                self.readers[name].append(node)

    def ends(self, start: _Value) -> Iterator[_Value]:
        """What other operators, or the user, read of a value."""
        stack = [start]
        while stack:
            value = stack.pop()
            if value.node is self.output:
                yield value
            for reader in self.readers[value.node.name]:
                after = self.behind(reader, value)
                if after is None:
                    yield value
                else:
                    stack.append(after)

    def behind(self, node: PathNode, value: _Value) -> _Value | None:
        """What a node shows that scales, shifts or moves; ``None`` of another one."""
        match node.operator:
            case Scale(weight=None, factor=factor) if factor:
                return dataclasses.replace(value, node=node, factor=value.factor * factor)
            case Shift(bias=bias, factor=factor):
                self.shifts.add(node.name)
                own = np.ones(1) if bias is None else self.tensor(bias)
                added = value.added + factor * own.reshape(-1, 1) / value.factor
                return dataclasses.replace(value, node=node, added=added)
            case Rearrange() as moved if len(node.inputs) == 1:
                return _moved(node, moved, value)
            case Input() | Convolution() | BatchNorm() | Scale() | Gate() | Add():
                return None
            case AveragePool() | MaxPool() | Rearrange():
                return None
            case other:
                refuse_operator("shift of the input", other)


def _moved(node: PathNode, moved: Rearrange, value: _Value) -> _Value:
    units = np.full((node.channels, node.positions), -1)
    added = np.zeros(units.shape)
    for part in moved.parts:
        into, channels = (np.array(side)[:, None] for side in (part.into, part.channels))
        places = part.places(node.positions)[0]
        filled = np.flatnonzero(places >= 0)
        for result, shown in ((units, value.units), (added, value.added)):
            result[into, filled] = shown[channels, places[filled]]
    return dataclasses.replace(value, node=node, units=units, added=added)


def _left(nodes: Sequence[PathNode], shifts: set[str]) -> list[PathNode]:
    """The nodes without the shifts, whose readers read what they were added to."""
    behind = {node.name: node.name for node in nodes}
    for node in nodes:
        if node.name in shifts:
            behind[node.name] = behind[node.inputs[0]]
    return [
        dataclasses.replace(node, inputs=tuple(behind[name] for name in node.inputs))
        for node in nodes
        if node.name not in shifts
    ]
