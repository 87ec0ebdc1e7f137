"""Tiles of the CPU engine as the benchmarks time them: what comes before the first tile apart from
the tiles themselves.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from timing import timed

from npk import GateTable
from npk.backends.cpu import CpuBackend
from npk.backends.exponents import find_exponents
from npk.recursion.instruments import Instrument, Paths
from npk.recursion.planning import plan
from npk.recursion.steps import Recursion

# samples are computed in blocks: a size that is no multiple wastes a part of the last one
_BLOCK = 16
_LEAST = 4  # blocks a side, so that all threads have work


@dataclass(frozen=True)
class Ready:
    """A network with the gates of some samples, ready for tiles; ``planning`` and ``first`` tile in
    seconds.
    """

    table: GateTable
    recursion: Recursion
    backend: CpuBackend
    exponents: np.ndarray
    planning: float
    first: float

    def square(self, n: int) -> Callable[[], np.ndarray]:
        """A tile of all pairs of n samples, which are those of the table again and again."""
        side = self.backend.side(self.table.take(np.arange(n) % len(self.table)))
        # as a kernel of many tiles has it
        memory = self.backend.memory_of(n) if self.recursion.parts == 1 else None
        return lambda: self.backend.tile(side, side, self.exponents, memory=memory)


def ready(
    table: GateTable,
    dtype: str = "float32",
    bias: str = "ignore",
    instrument: Instrument | None = None,
) -> Ready:
    """Plan the recursion of an instrument (``None``: the kernel) and compute a first tile, of one
    block of samples.
    """
    asked = instrument or Paths()
    (recursion, backend), planning = timed(lambda: _planned(table, dtype, bias, asked))
    exponents = find_exponents(recursion, table)
    first = timed(Ready(table, recursion, backend, exponents, 0.0, 0.0).square(_BLOCK))[1]
    return Ready(table, recursion, backend, exponents, planning, first)


def _planned(
    table: GateTable, dtype: str, bias: str, instrument: Instrument
) -> tuple[Recursion, CpuBackend]:
    graph = instrument.left(table.graph)
    recursion = instrument.applied(graph, plan(graph, bias=bias, merged=not instrument.weighs))
    return recursion, CpuBackend(recursion, table, dtype)


def beginnings(table: GateTable) -> dict[str, float]:
    """Seconds that compilation and planning take, found by beginning twice; for a process that has
    not compiled anything yet.

    ``compile``: what the second beginning does not need again. ``plan``: the recursion, and what
    its first tile takes longer than the next one. ``first tile``: all that comes between the gates
    and the first tile.
    """
    found = ready(table)
    again = ready(table)
    tile = timed(again.square(_BLOCK))[1]
    return {
        "compile": found.first - again.first,
        "plan": again.planning + max(0.0, again.first - tile),
        "first tile": found.planning + found.first,
    }


def samples_for(made: Ready, seconds: float, most: int = 4096) -> int:
    """How many samples make a tile of about so many seconds."""
    n, needed = _BLOCK, timed(made.square(_BLOCK))[1]
    while needed < seconds / 8 and n < most:
        n *= 2
        needed = timed(made.square(n))[1]
    blocks = round(n * (seconds / needed) ** 0.5 / _BLOCK)
    return min(most, max(_LEAST, blocks) * _BLOCK)
