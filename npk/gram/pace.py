"""What a kernel costs on this machine: measured on a few pairs."""

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
        """Of the kernel of n samples with m others, or with themselves."""
        return self.seconds_a_pair * (n * (n + 1) / 2 if m is None else n * m)


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
