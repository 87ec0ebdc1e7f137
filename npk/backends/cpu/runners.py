"""What runs on a tile: the general program, or the fused product of a chain of dense layers."""

from typing import Any

import numpy as np

from npk.backends.cpu.sums import arrange
from npk.backends.layout import Layout
from npk.backends.product import Product
from npk.backends.program.laid import LaidProgram
from npk.backends.program.program import LANES, ROWS, Program

_QUICK = 10**9  # words of gates, or numbers, that are multiplied in about a second
# bits of rows and of lanes, numbers of rows and of lanes
Masks = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class ProgramRunner:
    """A program of operations on planes.

    Args:
        program: the program.
        layout: of its masks.
    """

    def __init__(self, program: Program, layout: Layout) -> None:
        laid = LaidProgram(program, layout)
        self.program = program
        self.dtype = layout.dtype
        self.rows = program.rows(layout.dtype.itemsize)
        self.arranged = arrange(program)
        self.terms, self.weights = laid.terms, laid.weights
        # one more cell, of zeros: what windows see outside
        self.sizes = np.array(
            [laid.cells + 1, self.arranged.sums, program.result, laid.words, program.parts]
        )

    @property
    def bytes_a_thread(self) -> int:
        """Working memory of one thread."""
        cells, sums, _, words, _ = self.sizes.tolist()
        return (cells * self.dtype.itemsize + sums * 8) * LANES * self.rows + words * 4 * (
            LANES + self.rows
        )

    def run(self, masks: Masks, numbers: Any, left: int, out: np.ndarray) -> None:
        """Fill ``out``, part after part, with what :meth:`numbers` gave; ``left`` as in
        ``run_tile``.
        """
        from npk.backends.cpu.tile import run_tile

        program, tables, weights = numbers
        run_tile((0,) * self.rows, program, tables, weights, masks, self.sizes, left, out)

    def is_quick(self, pairs: int) -> bool:
        """Whether a tile of so many pairs surely takes less than a second: not known."""
        return False

    def run_diagonal(
        self, masks: tuple[np.ndarray, np.ndarray], exponents: np.ndarray, out: np.ndarray
    ) -> None:
        """Fill ``out`` with the pairs (x, x), part after part; ``masks``: bits and numbers of lanes."""
        from npk.backends.cpu.tile import run_diagonal

        program, tables, weights = self.numbers(exponents)
        run_diagonal((0,) * self.rows, program, tables, weights, masks, self.sizes, out)

    def numbers(
        self, exponents: np.ndarray
    ) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
        """The program under the exponents of the steps, its tables and weights."""
        operations, which, targets, _ = self.arranged
        scalars = np.ascontiguousarray(self.program.scalars(exponents)[which].astype(self.dtype))
        scales = self.program.scales(exponents).astype(self.dtype)
        program = operations, scalars, self.terms, scales, targets
        return program, self.program.tables, self.weights


class ProductRunner:
    """A product of overlaps, with biases on the way.

    Args:
        product: the product.
        layout: of its masks, in the product's order.
    """

    def __init__(self, product: Product, layout: Layout) -> None:
        self.product, self.dtype, self.rows = product, layout.dtype, ROWS
        self.factors = np.array(
            [(form, place.start, place.stop - place.start) for form, place in layout.places],
            np.int64,
        )

    @property
    def bytes_a_thread(self) -> int:
        """Working memory of one thread: all is in registers."""
        return 0

    def is_quick(self, pairs: int) -> bool:
        """Whether a tile of so many pairs surely takes less than a second or so."""
        return pairs * int(self.factors[:, 2].sum()) < _QUICK

    def numbers(self, exponents: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """What overlaps are scaled by, and what is added behind them, under the exponents."""
        product, biases = self.product, None
        if product.is_biased:
            biases = product.constants(exponents).astype(self.dtype)
        return product.scales(exponents).astype(self.dtype), biases

    def run(self, masks: Masks, numbers: Any, left: int, out: np.ndarray) -> None:
        """Fill ``out`` with what :meth:`numbers` gave; ``left`` as in ``run_tile``."""
        from npk.backends.cpu.dense import run_product

        run_product((0,) * self.rows, self.factors, numbers, masks, left, out)
