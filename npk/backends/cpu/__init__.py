"""The CPU backend: a recursion compiled to operations on displacement planes, run by Numba with popcount overlaps."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from npk.backends.cpu.compiler import compile_program
from npk.backends.cpu.product import Product, as_product
from npk.backends.cpu.program import BITS, LANES, ONES, REAL, ROWS, TERMS, TOGETHER
from npk.dual.gate_table import GateTable
from npk.dual.masks import Mask, form_bits, form_real
from npk.dual.recursion import Recursion

_Masks = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # bits and numbers, each by rows and by lanes
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


def words_of(mask: Mask) -> tuple[int, ...]:
    """Words of 32 bits that each segment of a mask takes: sixteen of them fill a vector of 512 bits."""
    return tuple(-(-size // 32) for size in mask.segments)


def _short_words(bits: np.ndarray, mask: Mask) -> np.ndarray:
    """Words of 64 bits as words of 32, without those that hold no channel."""
    halves = bits.astype("<u8", copy=False).view("<u4")
    ends = np.cumsum([2 * words for words in mask.words])
    kept = [np.arange(end - 2 * long, end - 2 * long + short) for end, long, short in zip(ends, mask.words, words_of(mask), strict=True)]
    return halves[..., np.concatenate(kept)] if halves.shape[-1] != sum(map(len, kept)) else halves


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
        self.hard = [_is_kept_in_bits(mask, table) for mask in recursion.masks]
        self.product = as_product(recursion)
        self.program = None if self.product else compile_program(recursion, self.hard)
        self.masks = self.program.masks if self.program else tuple(recursion.masks[mask] for mask in self.product.masks)
        self.layout = self._layout([_is_kept_in_bits(mask, table) for mask in self.masks])

    def _layout(self, hard: list[bool]) -> np.ndarray:
        """Form, first word or number, width of a position, and of the segment: a row a segment of a mask; the last stands for ones."""
        rows, ends, self.places = [], [0, 0], []
        for mask, in_bits in zip(self.masks, hard, strict=True):
            widths = words_of(mask) if in_bits else mask.segments
            starts, stride = np.cumsum([0, *widths]) + ends[not in_bits], sum(widths)
            rows += [(BITS if in_bits else REAL, start, stride, width) for start, width in zip(starts, widths, strict=False)]
            self.places.append((in_bits, slice(ends[not in_bits], ends[not in_bits] + stride * mask.size)))
            ends[not in_bits] += stride * mask.size
        self.widths = tuple(ends)
        return np.array([*rows, (ONES, 0, 0, 0)], np.int64)

    @property
    def bytes_a_sample(self) -> int:
        """Bytes of one sample's masks, on one side."""
        return self.widths[0] * 4 + self.widths[1] * self.dtype.itemsize

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
        bits, reals = np.empty((n, self.widths[0]), np.uint32), np.empty((n, self.widths[1]), self.dtype)
        for mask, (in_bits, where) in zip(self.masks, self.places, strict=True):
            if in_bits:
                bits[:, where] = _short_words(form_bits(mask, table), mask).reshape(n, -1)
            else:
                reals[:, where] = form_real(mask, table, self.dtype.name).reshape(n, -1)
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

    @cached_property
    def terms(self) -> np.ndarray:
        """Terms of the program with the layout of their masks in the place of a number."""
        terms = self.program.terms
        return np.concatenate([terms[:, :-1], self.layout[terms[:, -1]]], axis=1)

    @property
    def _chain_words(self) -> int:
        """Words of all chains for the cells that are worked on together."""
        chained = self.terms[self.terms[:, TERMS.index("chain")] >= 0]
        return self.program.chains * TOGETHER * int(chained[:, -1].max(initial=0))

    def _run_program(self, masks: _Masks, exponents: np.ndarray, left: int, out: np.ndarray) -> None:
        from npk.backends.cpu.tile import run_tile

        program = self.program
        scalars, scales = program.scalars(exponents).astype(self.dtype), program.scales(exponents).astype(self.dtype)
        sizes = np.array([program.cells, program.sums, program.result, self._chain_words])
        made = (program.operations, np.ascontiguousarray(scalars), self.terms, scales)
        run_tile((0,) * ROWS, made, program.tables, program.weights.astype(self.dtype), masks, sizes, left, out)

    def _run_product(self, product: Product, masks: _Masks, exponents: np.ndarray, left: int, out: np.ndarray) -> None:
        from npk.backends.cpu.dense import run_product

        factors = [(BITS if in_bits else REAL, place.start, place.stop - place.start) for in_bits, place in self.places]
        run_product((0,) * ROWS, np.array(factors, np.int64), product.scales(exponents).astype(self.dtype), masks, left, out)


def _is_kept_in_bits(mask: Mask, table: GateTable) -> bool:
    return mask.is_hard(table) and mask.width >= _NARROW * len(mask.segments)
