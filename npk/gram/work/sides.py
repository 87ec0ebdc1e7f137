"""Samples on one side of a tile: brought to one size, with what the kernel's dtype cannot hold of
them; those are computed in float64.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from npk.backends import Backend
from npk.backends.ranges import Ranges
from npk.gates.device_table import DeviceGates
from npk.gates.store import GateStore
from npk.gates.table import GateTable
from npk.gram.engine import Engine
from npk.gram.tiles import cuts
from npk.recursion.balance import balance_of

Gates = GateTable | GateStore | DeviceGates
_BAND, _FEW = 256, 16  # samples of a diagonal: read together, and computed together
_TOGETHER = 64  # samples that float64 does not take long for, nor much memory


@dataclass
class Samples:
    """Samples of one side.

    ``powers (n,)``: K(x, x') = balanced kernel times 2**(power of x + power of x'). ``wide``:
    numbers of the samples whose values are too far apart for the kernel's dtype. ``live (n,)``:
    whether a path is active, ``size (n,)``: logarithm to base 2 of K(x, x), ``lost (n,)``: whether
    float64 does not hold its values either; ``None`` where nothing can be lost.
    """

    table: GateTable | DeviceGates
    powers: np.ndarray
    wide: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    live: np.ndarray | None = None
    size: np.ndarray | None = None
    lost: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.table)

    @property
    def left_out(self) -> np.ndarray:
        """Numbers of the samples that do not come from the backend: wide ones and dead ones."""
        return self.wide if self.live is None else np.union1d(self.wide, np.flatnonzero(~self.live))

    @property
    def plain(self) -> bool:
        """Whether the backend's values need nothing but the power of two of the matrix."""
        return not (len(self.wide) or self.powers.any())


class Sides:
    """Makes samples ready for tiles of one matrix.

    Args:
        engine: of the kernel.
        backend: made ready for the gates.
        exponents: power of two of each step, and of the size of the matrix.
    """

    def __init__(self, engine: Engine, backend: Backend, exponents: np.ndarray) -> None:
        self.engine = engine
        self.options = engine.options
        self.backend = backend
        self.exponents = exponents
        # power of two of the balanced matrix
        self.unit = int(exponents[len(backend.recursion.steps) - 1])
        self.balance = balance_of(backend.recursion)
        self.ranges = Ranges(backend.recursion, exponents, self.options.dtype)

    def samples(self, gates: GateTable | DeviceGates) -> Samples:
        """Bring samples to one size, and look for those whose values the dtype does not hold."""
        table, powers = self.balance.balanced(gates)  # pyright: ignore[reportArgumentType]
        lowest = 0 if self.options.scale == "cosine" else self.unit + 2 * int(powers.min())
        if self.ranges.surely_held(table, lowest):
            return Samples(table, powers)
        seen = table.host() if isinstance(table, DeviceGates) else table
        ranges = self.ranges.look(seen)
        wide, lost = np.flatnonzero(~ranges.held), np.zeros(len(table), bool)
        if len(wide):
            lost[wide] = (
                ~Ranges(self.backend.recursion, self.exponents, "float64")
                .look(seen.take(wide))
                .held
            )
        return Samples(table, powers, wide, ranges.live, ranges.size + 2 * powers, lost)

    @cached_property
    def _exact(self) -> Backend:
        """The backend for samples that the dtype does not hold."""
        return (
            self.backend if self.options.dtype == "float64" else self.engine.in_float64(self._some)
        )

    def exactly(
        self, rows: Samples, cols: Samples
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Rows, columns and values, divided by 2**unit, of the pairs beyond the dtype."""
        for some in cuts(len(rows.wide), _TOGETHER):
            for part in cuts(len(cols), _TOGETHER):
                yield self._pairs(rows, rows.wide[some], cols, np.arange(len(cols))[part])
        for some in cuts(len(cols.wide), _TOGETHER):
            for part in cuts(len(rows), _TOGETHER):
                yield self._pairs(rows, np.arange(len(rows))[part], cols, cols.wide[some])

    def _pairs(
        self, rows: Samples, some: np.ndarray, cols: Samples, others: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        left, right = rows.table.take(some), cols.table.take(others)
        self._some = left.take(slice(0, 1))
        backend = self._exact
        return (
            some,
            others,
            backend.tile(backend.side(left), backend.side(right), self.exponents).astype(
                np.float64
            ),
        )

    def diagonal(self, gates: Gates) -> tuple[np.ndarray, np.ndarray]:
        """K(x, x) of each balanced sample divided by 2**unit, and its power, each ``(n,)``; of a
        recursion with several parts the values are ``(parts, n)``.
        """
        parts, powers = self.backend.recursion.parts, np.empty(len(gates), np.int64)
        values = np.empty((parts, len(gates)))
        for band in cuts(len(gates), _BAND):
            samples = self.samples(gates.take(band))
            powers[band] = samples.powers
            for few in cuts(len(samples), _FEW):
                side = self.backend.side(samples.table.take(few))
                with np.errstate(over="ignore"):
                    values[:, band][:, few] = self.backend.diagonal(side, self.exponents)
            values[:, band][:, samples.left_out] = 0
            for some in cuts(len(samples.wide), _FEW):
                wide = samples.wide[some]
                tile = self._pairs(samples, wide, samples, wide)[2]
                values[:, band][:, wide] = np.diagonal(tile, axis1=-2, axis2=-1)
        return values[0] if parts == 1 else values, powers
