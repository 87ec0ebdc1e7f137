"""What a kernel costs on this machine, measured on a few pairs of samples."""

import time
from dataclasses import dataclass
from typing import Any

from npk.dual.gate_table import GateTable
from npk.dual.planes import Planes
from npk.gram.kernel import NeuralPathKernel
from npk.gram.tiles import Demand, TilePlan, plan_tiles
from npk.gram.work import memory_demand

FEW = 64  # samples of a measurement
_LONG_ENOUGH = 0.2  # seconds


@dataclass(frozen=True)
class Cost:
    """What was measured, and the kernel it was measured with."""

    kernel: NeuralPathKernel
    backend: Any
    table: GateTable  # of the few samples
    seconds_a_pair: float

    @property
    def cells(self) -> int:
        """Pairs of positions that one pair of samples visits, all layers together."""
        return Planes(self.backend.recursion).cells()

    @property
    def bytes_a_sample(self) -> int:
        """Gates and values of one sample."""
        return self.table.nbytes // len(self.table)

    def seconds(self, n: int, m: int | None = None) -> float:
        """Of the kernel of n samples with m others, or with themselves."""
        return self.seconds_a_pair * (n * (n + 1) / 2 if m is None else n * m)

    def plan(self, n: int, m: int | None = None) -> tuple[TilePlan, Demand]:
        """The tiles that the kernel of n samples (with m others) would have, and the bytes it takes."""
        shape = (n, n if m is None else m)
        demand = memory_demand(self.backend, self.kernel.dtype, shape, (n + (m or 0)) * self.bytes_a_sample)
        return plan_tiles(*shape, demand, budget=self.kernel.memory, symmetric=m is None), demand


def measure(kernel: NeuralPathKernel, table: GateTable) -> Cost:
    """Time tiles of few samples, larger ones until the time can be trusted.

    Args:
        kernel: the options.
        table: gates of at least one sample.

    Returns:
        The cost, in seconds a pair.
    """
    backend, exponents = kernel.prepare(table)
    size, seconds = 16, 0.0
    backend.tile(backend.side(table.take(slice(0, 1))), backend.side(table.take(slice(0, 1))), exponents)  # compiles
    while True:
        side = backend.side(table.take(slice(0, size)))
        start = time.perf_counter()
        backend.tile(side, side, exponents)
        seconds = time.perf_counter() - start
        if seconds > _LONG_ENOUGH or size >= min(FEW, len(table)):
            return Cost(kernel, backend, table, seconds / len(side) ** 2)
        size *= 2
