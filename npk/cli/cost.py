"""What a kernel costs on this machine: measured on a few pairs, and predicted without any."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from npk.gates.table import GateLayer, GateTable, pack
from npk.gram.kernel import NeuralPathKernel
from npk.graph.node import PathNode
from npk.graph.operators import AveragePool, Convolution, Gate, Input
from npk.graph.path_graph import PathGraph
from npk.graph.positions import Window
from npk.progress import as_progress
from npk.samples import as_samples
from npk.structure.effort import Effort, effort
from npk.structure.shifts import ShiftGroup, confirmed, outside_gates, shift_group

if TYPE_CHECKING:
    from torch import nn

_SHIFTED = 4  # samples whose gates from outside are looked at
FEW = 64  # samples of a measurement
_MOST = 1024  # rows of a measurement, which may be the same samples again
_LONG_ENOUGH = 0.2  # seconds


@dataclass(frozen=True)
class Cost:
    """What was measured, and the kernel it was measured with."""

    kernel: NeuralPathKernel
    backend: Any
    table: GateTable  # of the few samples
    seconds_a_pair: float

    @cached_property
    def effort(self) -> Effort:
        """What one pair of samples visits and reads, counted in the plan."""
        return effort(self.backend.recursion, self.backend.hard)

    @cached_property
    def predicted(self) -> float | None:
        """Seconds of a pair by the cost model; ``None`` where the backend has none."""
        return self.backend.predict()

    @property
    def masks_a_sample(self) -> int:
        """Bytes of the masks of one sample, on one side of a tile."""
        return self.backend.bytes_a_sample

    @property
    def bytes_a_sample(self) -> int:
        """Gates and values of one sample."""
        return self.table.nbytes // len(self.table)

    def seconds(self, n: int, m: int | None = None) -> float:
        """Of the kernel of n samples with m others, or with themselves."""
        return self.seconds_a_pair * (n * (n + 1) / 2 if m is None else n * m)


def look(
    net: "nn.Module", X: np.ndarray, fixed: Sequence[str] = ()
) -> tuple[GateTable, ShiftGroup, Cost]:
    """What `npk inspect` prints: gates, shifts that leave the kernel alone, the cost of a pair."""
    from npk.gates.recording import record_trace
    from npk.reading.inputs import trace_for

    X = as_samples(X)
    trace = trace_for(net, X, fixed)
    table = record_trace(trace, X, gates="auto", progress=as_progress(True))
    group = confirmed(shift_group(trace.graph, outside_gates(trace)), trace, X[:_SHIFTED])
    return table, group, measure(NeuralPathKernel(None, progress=False), table)


def measure(kernel: NeuralPathKernel, table: GateTable) -> Cost:
    """Time tiles of few samples, larger ones until the time can be trusted.

    Args:
        kernel: the options.
        table: gates of at least one sample.

    Returns:
        The cost, in seconds a pair.
    """
    backend, exponents = kernel.engine.prepare(table)
    return Cost(kernel, backend, table, _seconds_a_pair(backend, table, exponents))


def guess(found: Effort) -> float:
    """Seconds of a pair, from counts alone, at the speed at which this machine runs a small
    network: no plan need be compiled for it.

    Args:
        found: the counts.

    Returns:
        The seconds, right within a factor of ten.
    """
    yardstick = measure(NeuralPathKernel(None, progress=False), _yardstick())
    return yardstick.seconds_a_pair * found.operations / yardstick.effort.operations


def _yardstick() -> GateTable:
    """Random gates of a network of three convolutions of 64 channels on 16 x 16."""
    rng, shape = np.random.default_rng(0), (64, 16, 16)
    window, whole = Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)), Window.whole(shape[1:])
    nodes, entries = [PathNode("x", Input(), (), (1, *shape[1:]))], {}
    for layer in "abc":
        nodes.append(PathNode(layer, Convolution(layer, None, window), (nodes[-1].name,), shape))
        nodes.append(PathNode(f"gate {layer}", Gate(layer), (layer,), shape))
        entries[layer] = GateLayer("hard", shape, pack(rng.random((FEW, 256, 64)) > 0.5))
    nodes.append(PathNode("pool", AveragePool(whole), (nodes[-1].name,), (64, 1, 1)))
    nodes.append(
        PathNode("head", Convolution("head", None, Window.whole((1, 1))), ("pool",), (10, 1, 1))
    )
    return GateTable(
        PathGraph(tuple(nodes), (1, *shape[1:])), rng.random((FEW, 1, *shape[1:])), entries
    )


def _seconds_a_pair(backend: Any, table: GateTable, exponents: np.ndarray) -> float:
    """Of a tile of few samples over and over again, larger tiles until the time can be trusted."""
    size = 16
    # compiles
    backend.tile(
        backend.side(table.take(slice(0, 1))), backend.side(table.take(slice(0, 1))), exponents
    )
    while True:
        side = backend.side(table.take(np.arange(size) % len(table)))
        start = time.perf_counter()
        backend.tile(side, side, exponents)
        seconds = time.perf_counter() - start
        if seconds > _LONG_ENOUGH or size == _MOST:
            return seconds / size**2
        size *= 2
