"""Whether moving the positions of the input leaves the kernel as it is, and which node breaks it:
read off a path graph alone.

The question is put to a copy of the network in exact arithmetic: whole numbers modulo 2**64, odd
random weights, and in the place of a ReLU a function that scrambles bits. Two places of the copy
hold one number only if they compute the same function of the input, up to a chance of about 2**-50,
so moving the input and comparing numbers decides equivariance for every operator, whatever it is
called.
"""

import zlib
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property

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
from npk.structure.motions import Motion, along

_OUTPUT = " output"  # no node has this name
Recorded = Mapping[str, np.ndarray]


class Probe:
    """The copy of a network in whole numbers modulo 2**64.

    Args:
        graph: what a path may pass.
        outside: names of gates that are not made of the values that they multiply. They are assumed
            to move with these values, or with the input.
    """

    def __init__(self, graph: PathGraph, outside: Collection[str] = ()) -> None:
        self.graph, self.outside = graph, frozenset(outside)
        self.windows: dict[str, np.ndarray] = {}
        self.last = {name: node.name for node in graph.nodes for name in node.inputs}
        self.resting: dict[str, np.ndarray] = {}  # what stands at each position, without a motion

    @cached_property
    def base(self) -> dict[str, int]:
        """Digest of every node where nothing was moved."""
        return dict(self.digests(None))

    def keeps(self, motion: Motion) -> bool:
        """Whether a motion of the input leaves the kernel alone, whatever the weights."""
        return self.broken_at(motion) is None

    def broken_at(self, motion: Motion) -> PathNode | str | None:
        """The first node that a motion breaks, " output" where that keeps its positions; ``None`` if
        it leaves the kernel alone.
        """
        base = self.base
        moved = dict(self.digests(motion))
        if moved[_OUTPUT] == base[_OUTPUT]:
            return None
        broken = (node for node in self.graph.nodes if moved[node.name] != base[node.name])
        return next(broken, _OUTPUT)

    def places(self, motion: Motion) -> dict[str, np.ndarray | None]:
        """For the layer of each gate, which of its positions each one shows after a motion; ``None``
        where it does not move by whole positions.
        """
        found: dict[str, np.ndarray | None] = {}
        _ = self.base
        for _ in self.digests(motion, found):
            pass
        return found

    def taps(self, node: PathNode) -> np.ndarray:
        """Of a node with a window, found once."""
        if node.name not in self.windows:
            self.windows[node.name] = window_taps(self.graph, node)
        return self.windows[node.name]

    def keeps_under(self, motion: Motion, rest: Recorded, moved: Recorded) -> bool:
        """Whether a motion leaves the kernel alone under gates from outside as they are.

        Args:
            motion: of the input.
            rest: hard gates of a sample from outside, ``(channels, *grid)`` each.
            moved: those of the moved sample.
        """
        before, after = (
            dict(_Given(self.graph, gates).digests(None if gates is rest else motion))
            for gates in (rest, moved)
        )
        return before[_OUTPUT] == after[_OUTPUT]

    def digests(
        self, motion: Motion | None, places: dict[str, np.ndarray | None] | None = None
    ) -> Iterator[tuple[str, int]]:
        """For each node a number that tells its set of values at positions; at last one for the
        output's values in their places.

        Args:
            motion: of the input; ``None``: it stays.
            places: takes where the positions of each gate went.
        """
        held: dict[str, np.ndarray] = {}
        for node in self.graph.nodes:
            inputs = [held[name] for name in node.inputs]
            went = self.went(node, inputs, motion)
            if places is not None and node.gate:
                places[node.gate] = went
            value = self.value(node, inputs, motion, went)
            held[node.name] = value
            yield node.name, int(_scramble(np.unique(_stands(value))).sum())
            for name in set(node.inputs):
                if self.last[name] == node.name:
                    del held[name]
        value = held[self.graph.output.name]
        yield _OUTPUT, int(_scramble(value * _draw("output", value.shape)).sum())

    def went(
        self, node: PathNode, inputs: list[np.ndarray], motion: Motion | None
    ) -> np.ndarray | None:
        """Where the positions of a gate went: with the values that it multiplies, where these tell
        one position from another, else with the input.
        """
        if not isinstance(node.operator, Gate):
            return motion.taps(node.grid) if motion and node.gate else None
        stands = _stands(inputs[0])
        if motion is None:
            self.resting[node.name] = stands
            return None
        if node.name not in self.resting:
            return motion.taps(node.grid)
        order = np.argsort(self.resting[node.name], kind="stable")
        rest = self.resting[node.name][order]
        if len(np.unique(rest)) == len(rest) and np.array_equal(rest, np.sort(stands)):
            return order[np.searchsorted(rest, stands)]
        return motion.taps(node.grid)

    def value(
        self,
        node: PathNode,
        inputs: list[np.ndarray],
        motion: Motion | None,
        went: np.ndarray | None,
    ) -> np.ndarray:
        """``(channels, positions)``: each operator on whole numbers."""
        match node.operator:
            case Input():
                return self.input(node.operator, node, motion)
            case Convolution(groups=groups):
                return self.convolution(node, inputs[0], groups)
            case Gate(gate=gate):
                if gate not in self.outside:
                    return _scramble(inputs[0])
                return _scramble(inputs[0]) * self.field(node, motion, went)
            case AveragePool() as operator:
                return self.average(node, operator, inputs[0])
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

    def input(self, operator: Input, node: PathNode, motion: Motion | None) -> np.ndarray:
        """The sample, moved; or ones."""
        sample = _draw("input", self.graph.input_shape)
        sample = (sample if motion is None else motion.moved(sample[None])[0]).reshape(-1)
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

    def average(self, node: PathNode, pool: AveragePool, value: np.ndarray) -> np.ndarray:
        """Equal coefficients are equal numbers, those of fixed filters too."""
        before = self.graph.input_of(node).grid
        distinct = np.unique(pool.coefficients(before))
        several = np.count_nonzero(distinct) > 1
        drawn = _draw("averages", distinct.shape) if several else np.uint64(1)
        odd = np.where(distinct == 0, np.uint64(0), drawn)
        result = np.zeros((node.channels, node.positions), np.uint64)
        for channels, weights in pool.by_channel(before, node.channels):
            own = odd[np.searchsorted(distinct, weights)]
            result[channels] = _gather(value[channels], self.taps(node), own)
        return result

    def field(self, node: PathNode, motion: Motion | None, went: np.ndarray | None) -> np.ndarray:
        """Gates from outside: they move by whole positions, or are unrelated."""
        if motion is None or went is not None:
            gates = _draw(f"{node.name} gates", node.shape)
        else:
            gates = _draw(f"{node.name} gates {motion.name}", node.shape)
        moved = gates if motion is None or went is None else along(gates[None], went)[0]
        return moved.reshape(node.channels, -1)


class _Given(Probe):
    """The copy under gates from outside as they were recorded."""

    def __init__(self, graph: PathGraph, gates: Recorded) -> None:
        super().__init__(graph, gates)
        self.gates = gates

    def field(self, node: PathNode, motion: Motion | None, went: np.ndarray | None) -> np.ndarray:
        """0 where they are off, or a number for what they let pass."""
        on = self.gates[node.gate].reshape(node.channels, -1)
        slope = getattr(node.operator, "slope", 0.0)
        off = np.uint64(0) if slope == 0 else _draw("slope", (node.channels, 1))
        return np.where(on, np.uint64(1), off)


def _stands(value: np.ndarray) -> np.ndarray:
    """One number for what stands at each position."""
    return (value * _draw(f"digest {len(value)}", (len(value), 1))).sum(0)


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
