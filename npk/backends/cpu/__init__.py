"""The CPU backend: operations on displacement planes, run by Numba with popcount overlaps."""

from functools import partial

import numpy as np

from npk.backends.base import Backend, Told
from npk.backends.cpu.bands import in_bands
from npk.backends.cpu.runners import ProductRunner, ProgramRunner
from npk.backends.cpu.sides import LaidSide, on_lines, zeros
from npk.backends.jit import check_threads, torch_threads_kept
from npk.backends.layout import Layout, Side, is_kept_in_bits
from npk.backends.product import as_product
from npk.backends.program.compiler import compile_program
from npk.backends.program.program import LANES
from npk.gates.table import GateTable
from npk.progress import Progress
from npk.recursion.steps import Recursion


class CpuBackend(Backend):
    """A recursion made ready for tiles of one kind of gates and one dtype.

    Args:
        recursion: what to compute.
        table: any table of the gates that will come: tells hard masks from soft ones.
        dtype: "float32" or "float64".

    Raises:
        BackendError: a process that was forked from one that has computed kernels.
    """

    keeps_sides = True

    def __init__(self, recursion: Recursion, table: GateTable, dtype: str) -> None:
        check_threads()
        self._pace: float | None = None  # of the last tile that was computed in bands
        self.recursion, self.dtype = recursion, np.dtype(dtype)
        self.hard = [is_kept_in_bits(mask, table) for mask in recursion.masks]
        if product := as_product(recursion):
            self.layout = Layout(
                tuple(recursion.masks[mask] for mask in product.masks), table, self.dtype
            )
            self.runner = ProductRunner(product, self.layout)
        else:
            program = compile_program(recursion, self.hard, swept=True)
            self.layout = Layout(program.masks, table, self.dtype)
            self.runner = ProgramRunner(program, self.layout)

    @property
    def bytes_a_sample(self) -> int:
        """Bytes of one sample's masks, on one side."""
        return self.layout.bytes_a_sample

    @property
    def bytes_a_pair(self) -> int:
        """Bytes of a pair's entry: in the tile, on the kernel's scale, and in between."""
        return 3 * self.recursion.parts * self.dtype.itemsize

    @property
    def bytes_a_thread(self) -> int:
        """Working memory of one thread."""
        return self.runner.bytes_a_thread

    def side(self, table: GateTable) -> LaidSide:
        """Form the masks of a table's samples, and lay them out for tiles."""
        return LaidSide(self.layout.side(table), self.runner.rows)

    def compile(self, progress: Progress) -> None:
        """Have what tiles run compiled, and say so, unless it is in memory or on disk."""
        from npk.backends.cpu.tile import compiling

        layout = self.layout  # of no sample: those of soft gates are megabytes
        bits = np.empty((0, layout.words), np.uint32)
        none = LaidSide(Side(bits, np.empty((0, layout.numbers), self.dtype)), self.runner.rows)
        with compiling(progress):
            self.tile(none, none, np.zeros(len(self.recursion.steps), np.int64))

    def tile(
        self,
        rows: LaidSide,
        cols: LaidSide,
        exponents: np.ndarray,
        diagonal: int | None = None,
        memory: np.ndarray | None = None,
        told: Told | None = None,
    ) -> np.ndarray:
        """The kernel of all pairs divided by 2**exponents[-1], ``(rows, cols)``."""
        (bits, reals), lane_bits, lane_reals = rows.rows, cols.bits, cols.reals
        parts = self.recursion.parts
        shape = (len(bits) * self.runner.rows, len(lane_bits) * LANES)
        flat = (parts * shape[0], shape[1])
        out = zeros(flat, self.dtype) if memory is None else on_lines(memory, flat)
        left = diagonal if diagonal is not None else shape[0]
        numbers = self.runner.numbers(exponents)

        def run(groups: slice) -> None:
            masks = bits[groups], lane_bits, reals[groups], lane_reals
            first, end = groups.start * self.runner.rows, groups.stop * self.runner.rows
            self.runner.run(masks, numbers, left - first, out[parts * first : parts * end])

        # what leaves the range makes the tile infinite, and is reported there
        with torch_threads_kept(), np.errstate(over="ignore"):
            if told is None or parts > 1 or self.runner.is_quick(shape[0] * shape[1]):
                run(slice(0, len(bits)))
            else:
                rows_told = partial(_told_rows, told, self.runner.rows, len(rows))
                self._pace = in_bands(len(bits), len(lane_bits), run, rows_told, self._pace)
        if parts == 1:
            return out[: len(rows), : len(cols)]
        return out.reshape(parts, *shape)[:, : len(rows), : len(cols)]

    def diagonal(self, side: LaidSide, exponents: np.ndarray) -> np.ndarray:
        """The kernel of the pairs (x, x) divided by 2**exponents[-1]: a sample a lane, on both
        sides.
        """
        if not isinstance(self.runner, ProgramRunner):
            return super().diagonal(side, exponents)
        masks = side.bits, side.reals
        out = zeros((self.recursion.parts, len(side.bits) * LANES), self.dtype)
        with torch_threads_kept(), np.errstate(over="ignore"):
            self.runner.run_diagonal(masks, exponents, out)
        return out[0, : len(side)] if self.recursion.parts == 1 else out[:, : len(side)]

    def memory_of(self, side: int) -> np.ndarray:
        """Memory for tiles of up to ``side`` x ``side`` pairs: memory that was used before takes a
        fraction of the time of new memory.
        """
        return np.zeros((side + self.runner.rows) * (side + LANES) + LANES, self.dtype)


def _told_rows(told: Told, high: int, rows: int, groups: int) -> None:
    """Tell of rows where groups of them are done; the last one may be of fewer."""
    told(min(rows, groups * high))
