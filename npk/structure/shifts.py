"""Which circular shifts of the input leave the kernel as it is, and which node breaks the others:
read off a path graph alone.

The question is put to a copy of the network in exact arithmetic: whole numbers modulo 2**64, odd
random weights, and in the place of a ReLU a function that scrambles bits. Two places of the copy
hold one number only if they compute the same function of the input, up to a chance of about 2**-50,
so moving the input and comparing numbers decides equivariance for every operator, whatever it is
called.
"""

import dataclasses
import math
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from npk.graph.facts import refuse_operator
from npk.graph.node import PathNode
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
from npk.graph.path_graph import PathGraph, window_taps
from npk.graph.positions import AdaptiveWindow, Grid, Window
from npk.progress import as_progress
from npk.structure.effort import module_of

if TYPE_CHECKING:
    from npk.gates.table import GateTable
    from npk.reading.tracing import Trace

_OUTPUT = " output"  # no node has this name
_FLIPS = 1e-3  # share of gates that may flip because a pre-activation is within rounding of 0


@dataclass(frozen=True)
class ShiftGroup:
    """The circular shifts r with K(rot(x, r), x') = K(x, x') for all samples; ``print`` says which
    and why.

    ``grid``: sides of a sample. ``steps``: the group is the multiples of ``steps[i]`` along axis i,
    the identity alone where the step is the side; ``None``: no shift but the identity. ``reasons``:
    what breaks the other shifts. ``outside``: gates that come from outside the path graph and are
    assumed to move with the input; ``looked_at``: on how many samples they were seen to do so.
    """

    grid: Grid
    steps: Grid | None
    reasons: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    looked_at: int = 0

    @property
    def generators(self) -> tuple[Grid, ...]:
        """Shifts that make up the group, one an axis."""
        steps = self.steps or self.grid
        return tuple(
            tuple(s if i == axis else 0 for i in range(len(steps)))
            for axis, s in enumerate(steps)
            if s < self.grid[axis]
        )

    def __str__(self) -> str:
        if self.steps is None:
            return f"no circular shift: {'; '.join(self.reasons)}"
        if all(step == 1 for step in self.steps):
            return (
                f"all circular shifts: every layer moves with its input, and the read-out does "
                f"not see where things are{self._condition}"
            )
        axes = [
            f"multiples of {s}" if s < n else "none"
            for s, n in zip(self.steps, self.grid, strict=True)
        ]
        if len(set(axes)) == 1:
            said = axes[0]
        else:
            said = ", ".join(f"{axis} along axis {i}" for i, axis in enumerate(axes, 1))
        return f"circular shifts by {said}: {'; '.join(self.reasons)}{self._condition}"

    @property
    def _condition(self) -> str:
        if not self.outside:
            return ""
        if self.looked_at:
            seen = f"as they do on {self.looked_at} samples"
        else:
            seen = "which the graph does not tell"
        return (
            f" (if the gates of {len(self.outside)} layers that come from outside move with the "
            f"input too, {seen})"
        )


def shift_group(graph: PathGraph, outside: Collection[str] = ()) -> ShiftGroup:
    r"""Which circular shifts of the input leave the kernel alone, whatever the weights.

    .. math:: K(\mathrm{rot}(x, r), x') = K(x, x')

    Ties of a max pool left aside. A network whose weights happen to be symmetric may have more
    invariances than its structure.

    Args:
        graph: what a path may pass.
        outside: names of gates that are not made of the values that they multiply (see
            :func:`outside_gates`). They are assumed to move with the input, which the graph cannot
            tell: :func:`gates_move` looks at samples.

    Returns:
        The group, as a step for each axis, with the nodes that break the other shifts.
    """
    grid = graph.input_shape[1:]
    named = tuple(node.gate for node in graph.gates if node.gate in set(outside))
    if math.prod(grid) == 1:
        return ShiftGroup(
            grid, None, (f"samples of shape {graph.input_shape} have no positions",), named
        )
    probe = _Probe(graph, frozenset(outside))
    found = [_step(probe, axis) for axis in range(len(grid))]
    steps = tuple(step for step, _ in found)
    reasons = tuple(dict.fromkeys(reason for _, why in found for reason in why))
    return ShiftGroup(grid, None if steps == grid else steps, reasons, named)


def outside_gates(trace: "Trace") -> tuple[str, ...]:
    """Names of the gates from elsewhere: gating networks, squeeze-and-excitation, x * (y > 0)."""
    from npk.reading.exported import name_of

    node_of = {}
    for node in trace.graph.gates:
        match node.operator:
            case Gate(gate=gate):
                node_of[gate] = node.name.split(".")[0]
            case MaxPool():
                pass  # it selects by the values that it lets pass
            case other:
                refuse_operator("place where its gates are made", other)
    target_of = {node.name: name_of(node) for node in trace.program.graph.nodes}
    return tuple(
        gate for gate, name in node_of.items() if target_of.get(name, "") in ("mul", "mul_", "glu")
    )


def gates_move(table: "GateTable", moved: "GateTable", shift: Grid, names: Collection[str]) -> bool:
    """Whether gates of shifted samples are the shifted gates, but for one in a thousand where a
    pre-activation may be within rounding of 0.

    Args:
        table: gates of some samples.
        moved: gates of the same samples, shifted.
        shift: by how much, one number an axis.
        names: the gates to look at.

    Returns:
        False too where a gate layer cannot be shifted by whole positions.
    """
    grid = table.inputs.shape[2:]
    for name in names:
        before, after = table[name], moved[name]
        local = _local(shift, grid, before.shape[2:])
        if local is None:
            return False
        before = np.roll(before, local, tuple(range(2, before.ndim)))
        differ = before != after if before.dtype == bool else np.abs(before - after) > 1e-3
        if differ.mean() > _FLIPS:
            return False
    return True


def confirmed(group: ShiftGroup, trace: "Trace", X: np.ndarray) -> ShiftGroup:
    """Look whether gates from outside move with the input, one axis after the other.

    Args:
        group: of the trace's graph.
        trace: a traced network.
        X: a few samples.

    Returns:
        The group with ``looked_at``, or the identity alone if they do not.
    """
    from npk.gates.recording import record_trace

    if not group.outside or group.steps is None:
        return group
    record = lambda samples: record_trace(trace, samples, gates="auto", progress=as_progress(False))  # noqa: E731
    table, axes = record(X), tuple(range(2, X.ndim))
    for shift in group.generators:
        moved = record(np.roll(X, shift, axes))
        still = [name for name in group.outside if not gates_move(table, moved, shift, [name])]
        if still:
            return ShiftGroup(
                group.grid,
                None,
                (f"gates from outside that do not move with the input at {still[0]}",),
                group.outside,
            )
    return dataclasses.replace(group, looked_at=len(X))


def _step(probe: "_Probe", axis: int) -> tuple[int, tuple[str, ...]]:
    """The smallest step along an axis that changes nothing; and why smaller ones do."""
    side = step = probe.graph.input_shape[1 + axis]
    primes = [p for p in range(2, side + 1) if side % p == 0 and all(p % q for q in range(2, p))]
    reasons: list[str] = []
    for p in primes:
        while step % p == 0:
            broken = probe.broken_by(axis, step // p)
            if broken:
                reasons.append(broken)
                break
            step //= p
    chain = [step // d for d in range(2, step + 1) if step % d == 0] if step < side else []
    return step, tuple(
        dict.fromkeys([*(probe.broken_by(axis, smaller) for smaller in reversed(chain)), *reasons])
    )


class _Probe:
    """The copy of a network in whole numbers modulo 2**64."""

    def __init__(self, graph: PathGraph, outside: frozenset[str]) -> None:
        self.graph, self.outside = graph, outside
        self.windows: dict[str, np.ndarray] = {}
        self.last = {name: node.name for node in graph.nodes for name in node.inputs}

    @cached_property
    def base(self) -> dict[str, int]:
        """Digest of every node where nothing was shifted."""
        return dict(self.digests(tuple(0 for _ in self.graph.input_shape[1:])))

    def taps(self, node: PathNode) -> np.ndarray:
        """Of a node with a window, found once."""
        if node.name not in self.windows:
            self.windows[node.name] = window_taps(self.graph, node)
        return self.windows[node.name]

    def broken_by(self, axis: int, step: int) -> str:
        """Why a shift along an axis changes the output; empty if it does not."""
        shift = tuple(step if i == axis else 0 for i in range(len(self.graph.input_shape) - 1))
        moved = dict(self.digests(shift))
        if moved[_OUTPUT] == self.base[_OUTPUT]:
            return ""
        node = next(
            (node for node in self.graph.nodes if moved[node.name] != self.base[node.name]), None
        )
        if node is None:
            return "the output keeps its positions"
        return _reason(self.graph, node, shift)

    def digests(self, shift: Grid) -> Iterator[tuple[str, int]]:
        """For each node a number that tells its set of values at positions; at last one for the
        output's values in their places.
        """
        held: dict[str, np.ndarray] = {}
        for node in self.graph.nodes:
            value = self.value(node, [held[name] for name in node.inputs], shift)
            held[node.name] = value
            weights = _draw(f"digest {node.channels}", (node.channels, 1))
            yield node.name, int(_scramble(np.unique((value * weights).sum(0))).sum())
            for name in set(node.inputs):
                if self.last[name] == node.name:
                    del held[name]
        value = held[self.graph.output.name]
        yield _OUTPUT, int(_scramble(value * _draw("output", value.shape)).sum())

    def value(self, node: PathNode, inputs: list[np.ndarray], shift: Grid) -> np.ndarray:
        """``(channels, positions)``: each operator on whole numbers."""
        match node.operator:
            case Input():
                return self.input(node.operator, node, shift)
            case Convolution(groups=groups):
                return self.convolution(node, inputs[0], groups)
            case Gate(gate=gate):
                return _scramble(inputs[0]) * (
                    self.field(node, shift) if gate in self.outside else np.uint64(1)
                )
            case AveragePool() as operator:
                weights = operator.coefficients(self.graph.input_of(node).grid)
                distinct, number = np.unique(weights, return_inverse=True)
                odd = np.where(
                    distinct == 0,
                    np.uint64(0),
                    _draw("averages", distinct.shape) if len(distinct) > 2 else np.uint64(1),
                )
                return _gather(inputs[0], self.taps(node), odd[number.reshape(weights.shape)])
            case MaxPool():
                # outside is no zero here
                seen = np.pad(_scramble(inputs[0]), ((0, 0), (0, 1)), constant_values=1)
                return _scramble(_gather(seen, self.taps(node) % seen.shape[1]))
            case Rearrange() as operator:
                return _rearranged(node, operator, inputs)
            case Add():
                return np.stack(inputs).sum(0)
            case BatchNorm() | Scale() | Shift():
                return inputs[0]  # the same at every position
            case other:
                refuse_operator("copy in whole numbers", other)

    def input(self, operator: Input, node: PathNode, shift: Grid) -> np.ndarray:
        """The sample, shifted; or ones."""
        sample = _draw("input", self.graph.input_shape)
        sample = np.roll(sample, shift, tuple(range(1, sample.ndim))).reshape(-1)
        # unit -1 is a zero
        sample = np.append(np.ones_like(sample) if operator.ones else sample, np.uint64(0))
        return sample[list(operator.units or range(len(sample) - 1))].reshape(node.channels, -1)

    def convolution(self, node: PathNode, value: np.ndarray, groups: int) -> np.ndarray:
        """Weights: a number a channel times one an offset, generic enough to tell values apart."""
        taps, weighted = self.taps(node), value * _draw(f"{node.name} in", (len(value), 1))
        summed = weighted.reshape(groups, -1, value.shape[1]).sum(1)
        seen = _gather(summed, taps, _draw(f"{node.name} offsets", (len(taps), 1)))
        return np.repeat(seen, node.channels // groups, axis=0) * _draw(
            f"{node.name} out", (node.channels, 1)
        )

    def field(self, node: PathNode, shift: Grid) -> np.ndarray:
        """Gates from outside: they move with the input by whole positions, or are unrelated."""
        local = _local(shift, self.graph.input_shape[1:], node.grid)
        gates = _draw(f"{node.name} gates" + (f" {shift}" if local is None else ""), node.shape)
        return np.roll(gates, local or (), tuple(range(1, len(local or ()) + 1))).reshape(
            node.channels, -1
        )


def _local(shift: Grid, grid: Grid, sides: Grid) -> Grid | None:
    """The shift on another grid; ``None`` if it is not by whole positions."""
    if math.prod(sides) == 1:
        return (0,) * len(sides)
    if len(sides) != len(grid) or any(
        r * side % n for r, side, n in zip(shift, sides, grid, strict=True)
    ):
        return None
    return tuple(r * side // n for r, side, n in zip(shift, sides, grid, strict=True))


def _draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Odd random numbers, always the same for a name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.integers(0, 2**64, shape, np.uint64, endpoint=False) | np.uint64(1)


def _scramble(value: np.ndarray) -> np.ndarray:
    """A function of 64 bits that no sum of others equals by chance (the finalizer of splitmix64)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _gather(value: np.ndarray, taps: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Sum over offsets of what each position sees, 0 outside, over the shorter of the two."""
    seen = np.pad(value, ((0, 0), (0, 1)))
    weights = np.ones((1, 1), np.uint64) if weights is None else weights
    weights = np.broadcast_to(weights, taps.shape)
    result = np.zeros((len(value), taps.shape[1]), np.uint64)
    if taps.shape[0] <= taps.shape[1]:
        for tap, weight in zip(taps, weights, strict=True):
            result += seen[:, tap] * weight
    else:
        for position in range(taps.shape[1]):
            result[:, position] = (seen[:, taps[:, position]] * weights[:, position]).sum(1)
    return result


def _rearranged(node: PathNode, operator: Rearrange, inputs: list[np.ndarray]) -> np.ndarray:
    result = np.zeros((node.channels, node.positions), np.uint64)
    for part in operator.parts:
        shown = inputs[part.input][list(part.channels)]
        result[list(part.into)] += _gather(shown, part.places(node.positions))
    return result


def _reason(graph: PathGraph, node: PathNode, shift: Grid) -> str:
    """What about a node breaks a shift."""
    operator, label = node.operator, module_of(node)
    match operator:
        case Convolution(window=window) | AveragePool(window=window) | MaxPool(window=window):
            return f"{_window_reason(graph, node, window, shift)} at {label}"
        # what they multiply does not move, or not by whole positions
        case Gate() | BatchNorm() | Scale() | Shift():
            return _reason(graph, graph.input_of(node), shift)
        case Input():
            return "flatten at the input"
        case Rearrange() if node.positions == 1:
            return f"flatten at {label}"
        case Rearrange() | Add():
            return f"{node.describe()} at {label}"
        case other:
            refuse_operator("reason why a shift breaks", other)


def _window_reason(
    graph: PathGraph, node: PathNode, window: Window | AdaptiveWindow, shift: Grid
) -> str:
    before = graph.input_of(node)
    if isinstance(window, AdaptiveWindow):
        return "uneven adaptive pool"
    if window.transposed:
        return "the border of a transposed convolution"
    if (
        node.positions == 1
        and isinstance(node.operator, Convolution)
        and window.kernel == before.grid
    ):
        return "flatten"
    while isinstance(before.operator, BatchNorm | Gate | Scale | Shift):
        before = graph.input_of(before)
    strides = _strides_across(graph, before, window, shift)
    reasons = [f"stride {max(strides)}"] if strides else []
    if any(map(any, window.padding)) or _shows_zeros(before):
        reasons.append("zero padding")
    elif isinstance(before.operator, Rearrange) and not reasons:
        reasons.append("padding that does not wrap around")
    return " and ".join(reasons) or "a window that does not wrap around"


def _strides_across(graph: PathGraph, before: PathNode, window: Window, shift: Grid) -> list[int]:
    """Strides that do not divide a shift on the grid that they cross, or that grid."""
    while isinstance(before.operator, Rearrange):  # a padding
        before = graph.input_of(before)
    grid = graph.input_shape[1:]
    if len(before.grid) == len(grid):
        sides = zip(window.stride, shift, grid, before.grid, strict=True)
    else:
        sides = ()
    return [
        stride
        for stride, r, n, side in sides
        if r and stride > 1 and (r * side % (n * stride) or side % stride)
    ]


def _shows_zeros(node: PathNode) -> bool:
    """Whether a rearrangement leaves places empty."""
    if not isinstance(node.operator, Rearrange):
        return False
    filled = np.zeros((node.channels, node.positions), bool)
    for part in node.operator.parts:
        filled[list(part.into)] |= part.places(node.positions) >= 0
    return not filled.all()
