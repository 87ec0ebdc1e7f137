"""What runs on a tile of any network: the CPU's program, each pair in a thread of the device."""

from typing import Any

import numpy as np

from npk.backends.cuda.launcher import Launcher, Masks
from npk.backends.cuda.registry import KERNELS
from npk.backends.layout import Layout
from npk.backends.program.laid import LaidProgram
from npk.backends.program.program import COLUMNS, COPIES, LAYOUT, TERMS, Program

ROWS, LANES = 4, 32  # row samples and column samples of a block
BLOCKS = 1024  # in flight, at most: more than a device has room for
WORKSPACE = 1 << 30  # bytes of the device that blocks in flight share, unless one alone takes more


class ProgramRunner:
    """A program of operations on planes.

    Args:
        program: the program.
        layout: of its masks.
        launcher: of the device.
    """

    def __init__(self, program: Program, layout: Layout, launcher: Launcher) -> None:
        program = program.one_by_one()  # the kernel knows no copies
        self.program, self.layout, self.launcher = program, layout, launcher
        self.spec = KERNELS["program", "general", layout.dtype.name]
        laid = LaidProgram(program, layout)
        self.sizes = laid.cells, laid.sums, program.result, laid.words
        self.bytes_a_block = (
            ROWS * LANES * (laid.cells * layout.dtype.itemsize + laid.sums * 8 + laid.words * 4)
        )
        self.blocks = min(BLOCKS, max(1, WORKSPACE // self.bytes_a_block))
        once = [n for n, name in enumerate(COLUMNS) if name not in COPIES]
        self.operations = launcher.to_device(np.ascontiguousarray(program.operations[:, once]))
        columns = (*TERMS[:-1], *LAYOUT)
        once = [n for n, name in enumerate(columns) if name not in COPIES]
        self.terms = launcher.to_device(laid.terms[:, once].astype(np.int64, order="C"))
        self.tables = launcher.to_device(program.tables)
        self.weights = launcher.to_device(laid.weights)

    @property
    def workspace(self) -> int:
        """Bytes of the device that all blocks in flight take."""
        return self.blocks * self.bytes_a_block

    def arranged(self, values: Any) -> Any:
        """Masks ``(samples, width)`` as the kernel reads them: equal places side by side."""
        return values.T.copy()

    def run(self, rows: Masks, cols: Masks, exponents: np.ndarray, left: int, out: Any) -> None:
        """Fill ``out``; arguments as those of :meth:`DenseRunner.run`, masks arranged."""
        (*_, n, m), launcher, dtype = out.shape, self.launcher, self.layout.dtype
        grid = min(self.blocks, -(-n // ROWS) * -(-m // LANES))
        if not grid:
            return
        cells, sums, result, links = self.sizes
        scalars, scales = (
            launcher.to_device(np.ascontiguousarray(values(exponents).astype(dtype)))
            for values in (self.program.scalars, self.program.scales)
        )
        kinds = ((cells, dtype), (sums, np.dtype(np.float64)), (links, np.dtype(np.uint32)))
        work = [launcher.empty((grid * ROWS * LANES * size,), kind) for size, kind in kinds]
        program = (self.operations, scalars, self.terms, scales, self.tables, self.weights)
        sizes = [
            np.int64(size) for size in (len(self.program.operations), cells, sums, result, links)
        ]
        args = (
            *program,
            rows[0],
            cols[0],
            rows[1],
            cols[1],
            *work,
            out,
            *sizes,
            np.int32(self.program.parts),
            np.int32(n),
            np.int32(m),
            np.int64(left),
        )
        launcher.launch(self.spec, grid, args)
