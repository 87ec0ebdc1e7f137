"""Masks of samples in memory: words of 32 bits or numbers, one sample after the other."""

from dataclasses import dataclass

import numpy as np

from npk.gates.table import GateTable
from npk.recursion.masks import Mask, form_bits, form_real

BITS, REAL, ONES = range(3)  # forms of masks
_NARROW = 8  # segments of fewer channels (depthwise layers) are multiplied as numbers


@dataclass(frozen=True)
class Side:
    """Masks of one side of a tile, by kind: ``bits (n, words)`` and ``reals (n, numbers)``."""

    bits: np.ndarray
    reals: np.ndarray

    def __len__(self) -> int:
        return len(self.bits)


class Layout:
    """Where each mask lies among a sample's words or numbers.

    Args:
        masks: the masks, in order.
        table: any table of the gates that will come.
        dtype: of the numbers.

    ``rows``: form, first word or number, width of a position and width of the segment, for each
        segment of each mask; the last row stands
    for ones. ``places``: form and range of each mask.
    """

    def __init__(self, masks: tuple[Mask, ...], table: GateTable, dtype: np.dtype) -> None:
        self.masks, self.dtype = masks, dtype
        rows: list[np.ndarray] = []
        ends = {BITS: 0, REAL: 0}
        self.places: list[tuple[int, slice]] = []
        for mask in masks:
            form = BITS if is_kept_in_bits(mask, table) else REAL
            widths = words_of(mask) if form == BITS else mask.segments
            starts, stride = np.cumsum([0, *widths]) + ends[form], sum(widths)
            row = np.empty((len(widths), 4), np.int64)
            row[:, 0], row[:, 1], row[:, 2], row[:, 3] = form, starts[:-1], stride, widths
            rows.append(row)
            self.places.append((form, slice(ends[form], ends[form] + stride * mask.size)))
            ends[form] += stride * mask.size
        self.words, self.numbers = ends[BITS], ends[REAL]
        self.rows = np.concatenate([*rows, np.array([(ONES, 0, 0, 0)])])

    @property
    def bytes_a_sample(self) -> int:
        """Bytes of one sample's masks, on one side."""
        return self.words * 4 + self.numbers * self.dtype.itemsize

    def side(self, table: GateTable) -> Side:
        """Form the masks of a table's samples."""
        n = len(table)
        bits, reals = np.empty((n, self.words), np.uint32), np.empty((n, self.numbers), self.dtype)
        for mask, (form, where) in zip(self.masks, self.places, strict=True):
            if form == BITS:
                bits[:, where] = _short_words(form_bits(mask, table), mask).reshape(
                    n, where.stop - where.start
                )
            else:
                reals[:, where] = form_real(mask, table, self.dtype.name).reshape(
                    n, where.stop - where.start
                )
        return Side(bits, reals)


def is_kept_in_bits(mask: Mask, table: GateTable) -> bool:
    """Whether overlaps of a mask are counted in bits."""
    return mask.is_hard(table) and mask.width >= _NARROW * len(mask.segments)


def words_of(mask: Mask) -> tuple[int, ...]:
    """Words of 32 bits of each segment of a mask: sixteen of them fill a vector of 512 bits."""
    return tuple(-(-size // 32) for size in mask.segments)


def _short_words(bits: np.ndarray, mask: Mask) -> np.ndarray:
    """Words of 64 bits as words of 32, without those that hold no channel."""
    halves = bits.astype("<u8", copy=False).view("<u4")
    ends = np.cumsum([2 * words for words in mask.words])
    kept = [
        np.arange(end - 2 * long, end - 2 * long + short)
        for end, long, short in zip(ends, mask.words, words_of(mask), strict=True)
    ]
    return halves[..., np.concatenate(kept)] if halves.shape[-1] != sum(map(len, kept)) else halves
