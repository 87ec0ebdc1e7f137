"""The CPU backend: a recursion compiled to operations on displacement planes, run by Numba with popcount overlaps."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from npk.backends.cpu.product import Product, as_product
from npk.backends.cpu.program import Program, compile_program
from npk.dual.gate_table import GateTable
from npk.dual.masks import form_bits, form_real
from npk.dual.recursion import Recursion

_Masks = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # bits and numbers, each by rows and by lanes
LANES, ROWS = 16, 8  # columns and rows of the samples that are computed together; see lanes.py
_BITS, _REAL, _ONES = 0, 1, 2
_NARROW = 8  # segments of fewer channels (depthwise layers) are multiplied as numbers


@dataclass(frozen=True)
class Side:
    """Masks of the samples on one side of a tile, each kind in one array: ``bits (n, words)`` and ``reals (n, numbers)``."""

    bits: np.ndarray
    reals: np.ndarray

    def __len__(self) -> int:
        return len(self.bits)

    def in_groups(self) -> tuple[np.ndarray, np.ndarray]:
        """Eight samples side by side: ``(groups, width * 8)``; the last group is filled with zeros."""
        return _side_by_side(self.bits, ROWS), _side_by_side(self.reals, ROWS)

    def in_lanes(self) -> tuple[np.ndarray, np.ndarray]:
        """Sixteen samples side by side: ``(blocks, width * 16)``; the last block is filled with zeros."""
        return _side_by_side(self.bits, LANES), _side_by_side(self.reals, LANES)


def _padded(values: np.ndarray, multiple: int) -> np.ndarray:
    """Rows of zeros added up to a multiple."""
    padded = np.zeros((-(-len(values) // multiple) * multiple, values.shape[1]), values.dtype)
    padded[: len(values)] = values
    return padded


def _side_by_side(values: np.ndarray, count: int) -> np.ndarray:
    """``(n, width)`` to ``(n / count, width * count)``: equal places of ``count`` samples are neighbors."""
    padded = _padded(values, count)
    groups, width = len(padded) // count, values.shape[1]
    return np.ascontiguousarray(padded.reshape(groups, count, width).swapaxes(1, 2)).reshape(groups, width * count)


@contextlib.contextmanager
def _torch_threads_kept() -> Iterator[None]:
    """Numba's OpenMP layer changes the number of threads that torch uses in this process: put it back."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    yield
    if torch and torch.get_num_threads() != before:
        torch.set_num_threads(before)


class CpuBackend:
    """A recursion made ready for tiles of one kind of gates and one dtype.

    Args:
        recursion: what to compute.
        table: any table of the gates that will come: tells hard masks from soft ones.
        dtype: "float32" or "float64".
    """

    def __init__(self, recursion: Recursion, table: GateTable, dtype: str) -> None:
        self.recursion, self.dtype = recursion, np.dtype(dtype)
        self.hard = [mask.is_hard(table) and mask.width >= _NARROW * len(mask.segments) for mask in recursion.masks]
        self.layout = self._layout()
        self.product = as_product(recursion)

    @cached_property
    def program(self) -> Program:
        """The recursion as operations; a product of overlaps needs none."""
        return compile_program(self.recursion)

    def _layout(self) -> np.ndarray:
        """Form, first word or number, width of a position, and of the segment: a row a segment of a mask; the last stands for ones."""
        rows, ends, self.places = [], [0, 0], []
        for mask, hard in zip(self.recursion.masks, self.hard, strict=True):
            widths = mask.words if hard else mask.segments
            starts, stride = np.cumsum([0, *widths]) + ends[not hard], sum(widths)
            rows += [(_BITS if hard else _REAL, start, stride, width) for start, width in zip(starts, widths, strict=False)]
            self.places.append(slice(ends[not hard], ends[not hard] + stride * mask.size))
            ends[not hard] += stride * mask.size
        self.widths = tuple(ends)
        return np.array([*rows, (_ONES, 0, 0, 0)], np.int64)

    @property
    def bytes_a_sample(self) -> int:
        """Bytes of one sample's masks, on one side."""
        return self.widths[0] * 8 + self.widths[1] * self.dtype.itemsize

    @property
    def bytes_a_pair(self) -> int:
        """Bytes of a pair's entry: in the tile, on the kernel's scale, and in between."""
        return 3 * self.dtype.itemsize

    @property
    def bytes_a_thread(self) -> int:
        """Working memory of one thread."""
        if self.product:
            return LANES * ROWS * self.dtype.itemsize
        return (self.program.cells * self.dtype.itemsize + self.program.sums * 8) * LANES * ROWS

    def side(self, table: GateTable) -> Side:
        """Form the masks of a table's samples."""
        n = len(table)
        bits, reals = np.zeros((n, self.widths[0]), np.uint64), np.zeros((n, self.widths[1]), self.dtype)
        for mask, hard, where in zip(self.recursion.masks, self.hard, self.places, strict=True):
            if hard:
                bits[:, where] = form_bits(mask, table).reshape(n, -1)
            else:
                reals[:, where] = form_real(mask, table).reshape(n, -1)
        return Side(bits, reals)

    def tile(self, rows: Side, cols: Side, exponents: np.ndarray, diagonal: int | None = None) -> np.ndarray:
        """The kernel of all pairs divided by 2**exponents[-1], ``(rows, cols)``.

        Args:
            rows: masks of the row samples.
            cols: masks of the column samples.
            exponents: power of two of each step.
            diagonal: in a symmetric kernel, number of the first column minus that of the first row: entries left of the diagonal may
                then stay uncomputed.
        """
        (bits, reals), (lane_bits, lane_reals) = rows.in_groups(), cols.in_lanes()
        out = np.zeros((len(bits) * ROWS, len(lane_bits) * LANES), self.dtype)
        left = diagonal if diagonal is not None else len(out)
        masks = (bits, lane_bits, reals, lane_reals)
        with _torch_threads_kept(), np.errstate(over="ignore"):  # what leaves the range makes the tile infinite, and is reported there
            if self.product:
                self._run_product(self.product, masks, exponents, left, out)
            else:
                self._run_program(masks, exponents, left, out)
        return out[: len(rows), : len(cols)]

    def _run_program(self, masks: _Masks, exponents: np.ndarray, left: int, out: np.ndarray) -> None:
        from npk.backends.cpu.tile import run_tile

        program = self.program
        scalars = np.ascontiguousarray(program.scalars(exponents).astype(self.dtype))
        weights, sizes = program.weights.astype(self.dtype), np.array([program.cells, program.sums, program.result])
        run_tile(program.operations, scalars, program.tables, weights, self.layout, *masks, sizes, left, out)

    def _run_product(self, product: Product, masks: _Masks, exponents: np.ndarray, left: int, out: np.ndarray) -> None:
        from npk.backends.cpu.dense import run_product

        firsts = np.array([self.places[mask].start for mask in product.masks])
        widths = np.array([self.places[mask].stop for mask in product.masks]) - firsts
        forms = np.array([_BITS if self.hard[mask] else _REAL for mask in product.masks])
        run_product(forms, firsts, widths, product.scales(exponents).astype(self.dtype), *masks, left, out)
