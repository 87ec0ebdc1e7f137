"""The work on one kernel matrix: its tiles in order, on the kernel's scale, and what has to be said about the result."""

import os
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from npk.backends import Backend
from npk.backends.cpu.threads import torch_threads_kept
from npk.dual.gate_table import GateTable
from npk.dual.recursion import Collapse, Recursion
from npk.errors import KernelWarning, ScaleError
from npk.gram.tiles import Demand, Tile, TilePlan, plan_tiles

if TYPE_CHECKING:
    from npk.gram.kernel import NeuralPathKernel


class Work:
    """One matrix: tables, backend, plan; gives the tiles."""

    def __init__(
        self, kernel: "NeuralPathKernel", rows: GateTable, cols: GateTable | None, *, side: int | None = None, on_disk: bool = False
    ) -> None:
        self.kernel, self.rows, self.cols = kernel, rows, cols if cols is not None else rows
        self.backend, self.exponents = kernel.prepare(self.cols)
        held = rows.nbytes + (cols.nbytes if cols is not None else 0)
        demand = memory_demand(self.backend, kernel.dtype, (0, 0) if on_disk else (len(rows), len(self.cols)), held)
        self.plan: TilePlan = plan_tiles(len(rows), len(self.cols), demand, budget=kernel.memory, symmetric=cols is None, side=side)
        self.deep = least_share(self.backend.recursion) < np.log(np.finfo(kernel.dtype).tiny)
        self.roots = self._roots() if kernel.scale == "cosine" or self.deep else None
        self.dead = self.lost = self.entries = 0

    def _roots(self) -> tuple[np.ndarray, np.ndarray]:
        """Square roots of both diagonals (scaled); 0 for dead inputs."""
        right = np.sqrt(diagonal(self.backend, self.cols, self.exponents))
        return (right if self.rows is self.cols else np.sqrt(diagonal(self.backend, self.rows, self.exponents))), right

    def tiles(self, skip: Callable[[Tile], bool] = lambda tile: False) -> Iterator[tuple[Tile, np.ndarray]]:
        """Pairs (tile, values on the kernel's scale), in the plan's order."""
        todo = [tile for tile in self.plan if not skip(tile)]
        band, left, memory = None, None, self.backend.memory_of(min(self.plan.side, max(self.plan.n, self.plan.m)))
        with self.kernel.progress.task("kernel tiles", len(self.plan)) as advance:
            advance(len(self.plan) - len(todo))
            for tile in todo:
                if band != tile.row:
                    band, left = tile.row, self.backend.side(self.rows.take(tile.rows))
                right = self.backend.side(self.cols.take(tile.cols))
                offset = tile.cols.start - tile.rows.start if self.plan.symmetric else None
                values = self._finish(tile, self.backend.tile(left, right, self.exponents, offset, memory))
                self._count(tile, values)
                yield tile, values
                advance(1)
        self._report()

    def _finish(self, tile: Tile, values: np.ndarray) -> np.ndarray:
        """A tile on the kernel's scale, in place."""
        from npk.gram.passes import settle

        whole = self.plan.symmetric and tile.row == tile.col
        exponent = 0 if self.kernel.scale == "cosine" else int(self.exponents[-1])
        with torch_threads_kept(), np.errstate(over="ignore", under="ignore"):
            top = float(settle(values, float(np.ldexp(1.0, exponent)), whole).max())
        if not np.isfinite(top):
            raise ScaleError(
                f"kernel values leave the range of {self.kernel.dtype} between layers. "
                'Use dtype="float64"; if it is float64 already, the samples differ too much in size: normalize them.'
            )
        if self.roots is None or self.kernel.scale != "cosine":
            check_range(top, exponent, self.kernel)
            return values
        roots = np.outer(self.roots[0][tile.rows], self.roots[1][tile.cols])
        shares = np.divide(values, roots, out=np.zeros(values.shape), where=roots > 0)
        if whole:
            np.fill_diagonal(shares, (self.roots[0][tile.rows] > 0).astype(float))
        return shares.astype(self.kernel.dtype)

    def _count(self, tile: Tile, values: np.ndarray) -> None:
        """Dead inputs, and entries between live samples that are 0, in what was computed."""
        twice = 2 if self.plan.symmetric and tile.row != tile.col else 1
        self.entries += twice * values.size
        if self.plan.symmetric and tile.row == tile.col:
            self.dead += int((np.diagonal(values) == 0).sum())
        if self.deep and self.roots is not None:
            live = np.outer(self.roots[0][tile.rows] > 0, self.roots[1][tile.cols] > 0)
            self.lost += twice * int(np.count_nonzero(live & (values == 0)))

    def _report(self) -> None:
        """Say how many inputs are dead, and how many entries may have underflowed."""
        if self.dead:
            why = "no active path, or one that underflowed" if self.deep else "no active path"
            _warn(f"{self.dead} of {len(self.rows)} samples have {why}: K(x, x) = 0.")
        if self.lost:
            _warn(
                f"{self.lost} of {self.entries} entries are 0 between live samples; in a network this deep they may have underflowed. "
                'Use dtype="float64" to tell.'
            )


def _warn(text: str) -> None:
    warnings.warn(text, KernelWarning, stacklevel=6)


def memory_demand(backend: Backend, dtype: str, shape: tuple[int, int], held: int) -> Demand:
    """What a kernel of this shape takes: ``held`` bytes of samples and gates, the result, two sides of a tile and its pairs."""
    item = np.dtype(dtype).itemsize
    fixed = held + shape[0] * shape[1] * item + (os.cpu_count() or 1) * backend.bytes_a_thread
    return Demand(fixed, 3 * backend.bytes_a_sample, backend.bytes_a_pair)


def diagonal(backend: Backend, table: GateTable, exponents: np.ndarray) -> np.ndarray:
    """K(x, x) of each sample divided by 2**exponents[-1], ``(n,)`` float64."""
    found = np.empty(len(table))
    for tile in TilePlan(len(table), 1, 16, symmetric=False):
        side = backend.side(table.take(tile.rows))
        found[tile.rows] = np.diagonal(backend.tile(side, side, exponents))
    return found


def check_range(top: float, exponent: int, kernel: "NeuralPathKernel") -> None:
    """Whether values up to top * 2**exponent are exact in the kernel's dtype.

    Raises:
        ScaleError: values outside the range of the dtype.
    """
    info = np.finfo(kernel.dtype)
    power = np.log2(top) + exponent if top > 0 else 0.0
    if power >= info.maxexp or power < np.log2(info.tiny) + info.nmant:
        raise ScaleError(
            f'with scale="{kernel.scale}" the largest kernel values are about 2**{exponent}, outside the range of {kernel.dtype}. '
            'Use scale="cosine", or dtype="float64".'
        )


def least_share(recursion: Recursion) -> float:
    """Logarithm of the smallest value other than 0 that a product of overlaps can have relative to the diagonal's bound."""
    return -sum(float(np.log(step.channels * step.positions)) for step in recursion.steps if isinstance(step, Collapse))
