"""Which circular shifts of the input leave the kernel as it is, and which node breaks the others:
read off a path graph alone, by :class:`~npk.structure.probe.Probe`.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from npk.graph.facts import refuse_operator
from npk.graph.node import PathNode, module_of
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
from npk.graph.path_graph import PathGraph
from npk.graph.positions import AdaptiveWindow, Grid, Window
from npk.progress import as_progress
from npk.shown import Shown
from npk.structure import motions
from npk.structure.probe import Probe

if TYPE_CHECKING:
    from npk.gates.table import GateTable
    from npk.reading.tracing import Trace

STILL = "gates from outside that do not move with the input"
_FLIPS = 1e-3  # share of gates that may flip because a pre-activation is within rounding of 0


@dataclass(frozen=True)
class ShiftGroup(Shown):
    """The circular shifts r with K(rot(x, r), x') = K(x, x') for all samples; ``print`` says which
    and why.

    ``grid``: sides of a sample. ``steps``: the group is the multiples of ``steps[i]`` along axis i,
    the identity alone where the step is the side; ``None``: the identity alone. ``reasons``:
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

    @property
    def words(self) -> str:
        """The group in a few words."""
        steps = set(self.steps or ())
        if self.steps is None:
            return "the identity alone"
        if steps == {1}:
            return "all shifts"
        if steps == {2}:
            return "even shifts"
        return f"shifts by {self._axes}"

    @property
    def _axes(self) -> str:
        """Which multiples, along which axis."""
        axes = [
            f"multiples of {s}" if s < n else "none"
            for s, n in zip(self.steps or self.grid, self.grid, strict=True)
        ]
        if len(set(axes)) == 1:
            return axes[0]
        return ", ".join(f"{axis} along axis {i}" for i, axis in enumerate(axes, 1))

    def __str__(self) -> str:
        if self.steps is None:
            return f"no circular shift: {'; '.join(self.reasons)}"
        if all(step == 1 for step in self.steps):
            return (
                f"all circular shifts: every layer moves with its input, and the read-out does "
                f"not see where things are{self._condition}"
            )
        return f"circular shifts by {self._axes}: {'; '.join(self.reasons)}{self._condition}"

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
    probe = Probe(graph, outside)
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
    motion = motions.Shift(table.inputs.shape[2:], shift)
    places = {name: motion.taps(table.entries[name].shape[1:]) for name in names}
    return not left_behind(table, moved, places, names)


def left_behind(
    table: "GateTable",
    moved: "GateTable",
    places: Mapping[str, np.ndarray | None],
    names: Collection[str],
) -> str:
    """The first gate layer that does not move with the samples; empty if all do.

    Args:
        table: gates of some samples.
        moved: gates of the same samples, moved.
        places: which position of each layer each one shows after the motion.
        names: the layers to look at.
    """
    for name in names:
        taps = places[name]
        if taps is None or flipped(table[name], moved[name], taps).mean() > _FLIPS:
            return name
    return ""


def flipped(before: np.ndarray, after: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Which gates of moved samples are not the moved gates.

    Args:
        before: gates of the samples, ``(n, channels, *grid)``.
        after: gates of the moved samples.
        taps: which position of the grid each one shows after the motion.

    Returns:
        Of the same shape, bool; soft gates may differ by 0.001.
    """
    along = motions.along(before, taps)
    return along != after if before.dtype == bool else np.abs(along - after) > 1e-3


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
    table, probe = record(X), Probe(trace.graph, group.outside)
    for shift in group.generators:
        motion = motions.Shift(group.grid, shift)
        still = left_behind(table, record(motion.moved(X)), probe.places(motion), group.outside)
        if still:
            return ShiftGroup(group.grid, None, (f"{STILL} at {still}",), group.outside)
    return dataclasses.replace(group, looked_at=len(X))


def _step(probe: Probe, axis: int) -> tuple[int, tuple[str, ...]]:
    """The smallest step along an axis that changes nothing; and why smaller ones do."""
    side = step = probe.graph.input_shape[1 + axis]
    primes = [p for p in range(2, side + 1) if side % p == 0 and all(p % q for q in range(2, p))]
    reasons: list[str] = []
    for p in primes:
        while step % p == 0:
            broken = _broken_by(probe, axis, step // p)
            if broken:
                reasons.append(broken)
                break
            step //= p
    chain = [step // d for d in range(2, step + 1) if step % d == 0] if step < side else []
    smaller = (_broken_by(probe, axis, smaller) for smaller in reversed(chain))
    return step, tuple(dict.fromkeys([*smaller, *reasons]))


def _broken_by(probe: Probe, axis: int, step: int) -> str:
    """Why a shift along an axis changes the output; empty if it does not."""
    grid = probe.graph.input_shape[1:]
    shift = tuple(step if i == axis else 0 for i in range(len(grid)))
    return why_broken(probe, motions.Shift(grid, shift))


def why_broken(probe: Probe, motion: motions.Motion) -> str:
    """Why a motion changes the output, in a few words; empty if it does not."""
    node = probe.broken_at(motion)
    if isinstance(node, PathNode):
        if isinstance(node.operator, Input) and not _comes_back(motion):
            return "what leaves the picture is lost"
        if isinstance(motion, motions.Shift):
            return _reason(probe.graph, node, motion.by)
        return f"{node.describe()} at {module_of(node)}"
    return "the output keeps its positions" if node else ""


def _comes_back(motion: motions.Motion) -> bool:
    """Whether a motion loses nothing of a sample."""
    taps = motion.taps(motion.grid)
    return taps is not None and bool((taps >= 0).all())


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
    if len(before.grid) == len(grid) == len(window.stride):
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
