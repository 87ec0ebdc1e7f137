"""What a kernel costs on this machine: measured on tiles of a few samples, of the very plan."""

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from npk.gates.table import GateTable
from npk.gram.kernel import NeuralPathKernel
from npk.structure.effort import Effort, effort

FEW = 64  # samples of a measurement
_MOST = 1024  # rows of a measurement, which may be the same samples again
_LONG_ENOUGH = 0.2  # seconds


@dataclass(frozen=True)
class Cost:
    """What was measured, and the kernel it was measured with."""

    kernel: NeuralPathKernel
    backend: Any
    table: GateTable  # of the few samples
    before: float  # seconds before the first tile: planning, compilation, and what came before
    seconds_a_sample: float  # its gates, if they are to be recorded, and its masks
    seconds_a_pair: float

    @cached_property
    def effort(self) -> Effort:
        """What one pair of samples visits and reads, counted in the plan."""
        return effort(self.backend.recursion, self.backend.hard)

    @property
    def bias(self) -> str:
        """What the kernel takes of the network's biases: "paths" or "ignore"."""
        return self.kernel.settled(self.table).bias

    @property
    def masks_a_sample(self) -> int:
        """Bytes of the masks of one sample, on one side of a tile."""
        return self.backend.bytes_a_sample

    @property
    def bytes_a_sample(self) -> int:
        """Gates and values of one sample."""
        return self.table.nbytes // len(self.table)

    def seconds(self, n: int, m: int | None = None) -> float:
        """From the start to the kernel of n samples with m others, or with themselves."""
        pairs, samples = (n * (n + 1) / 2, n) if m is None else (n * m, n + m)
        return self.before + self.seconds_a_sample * samples + self.seconds_a_pair * pairs


def measure(
    kernel: NeuralPathKernel, table: GateTable, *, began: float | None = None, recorded: float = 0.0
) -> Cost:
    """Time tiles of few samples, larger ones until the time can be trusted.

    Args:
        kernel: the options.
        table: gates of at least one sample.
        began: when that began which comes before the first tile, by ``time.perf_counter``; ``None``:
            now.
        recorded: seconds that it took to record the gates of a sample.

    Returns:
        The cost.
    """
    start = time.perf_counter() if began is None else began
    backend, exponents = kernel.engine.prepare(table)
    one = backend.side(table.take(slice(0, 1)))
    backend.tile(one, one, exponents)  # compiles
    before = time.perf_counter() - start
    masks, pair = _seconds(backend, table, exponents)
    return Cost(kernel, backend, table, before, recorded + masks, pair)


def _seconds(backend: Any, table: GateTable, exponents: np.ndarray) -> tuple[float, float]:
    """Of the masks of a sample, and of a pair: of a tile of few samples over and over again, larger
    tiles until the time can be trusted.
    """
    size = 16
    while True:
        start = time.perf_counter()
        side = backend.side(table.take(np.arange(size) % len(table)))
        middle = time.perf_counter()
        backend.tile(side, side, exponents)
        end = time.perf_counter()
        if end - middle > _LONG_ENOUGH or size == _MOST:
            return (middle - start) / size, (end - middle) / size**2
        size *= 2
