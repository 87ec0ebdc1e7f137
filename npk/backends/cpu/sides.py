"""Arrays as the processor reads them: from lines of the cache on, samples side by side."""

from functools import cached_property

import numpy as np

from npk.backends.layout import Side
from npk.backends.program.program import LANES

_LINE = 64  # bytes of a line of the cache


def zeros(shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """An array of zeros that begins at a line of the cache: vectors across two lines are slow."""
    return on_lines(np.zeros(shape[0] * shape[1] + _LINE // dtype.itemsize, dtype), shape)


def on_lines(memory: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The part of a flat array that begins at a line of the cache, in a shape."""
    first = (-memory.ctypes.data % _LINE) // memory.itemsize
    return memory[first : first + shape[0] * shape[1]].reshape(shape)


def side_by_side(values: np.ndarray, count: int) -> np.ndarray:
    """``(n, width)`` to ``(n / count, width * count)``: equal places of ``count`` samples are
    neighbors; zeros fill the last group.
    """
    n, width = values.shape
    whole, rest = divmod(n, count)
    beside = zeros((-(-n // count), width * count), values.dtype)
    beside[:whole].reshape(whole, width, count)[:] = (
        values[: whole * count].reshape(whole, count, width).swapaxes(1, 2)
    )
    if rest:
        beside[whole].reshape(width, count)[:, :rest] = values[whole * count :].T
    return beside


class LaidSide:
    """Masks of one side of a tile as the engine reads them: ``bits`` and ``reals`` of columns, with
    sixteen samples side by side.

    Args:
        side: masks, one sample after the other.
        high: rows that are computed together.
    """

    def __init__(self, side: Side, high: int) -> None:
        self.count, self.high = len(side), high
        self.bits, self.reals = (side_by_side(values, LANES) for values in (side.bits, side.reals))

    def __len__(self) -> int:
        return self.count

    @cached_property
    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Bits and reals of rows, with ``high`` samples side by side; laid out when they are asked
        for, and once.
        """
        bits, reals = (regrouped(values, self.high) for values in (self.bits, self.reals))
        groups = -(-self.count // self.high)
        return bits[:groups], reals[:groups]


def regrouped(lanes: np.ndarray, count: int) -> np.ndarray:
    """Samples that are sixteen side by side, ``(blocks, width * 16)``, so many side by side:
    ``(blocks * 16 / count, width * count)``.
    """
    blocks, parts = len(lanes), LANES // count
    width = lanes.shape[1] // LANES
    beside = zeros((blocks * parts, width * count), lanes.dtype)
    if beside.size:
        together = np.dtype((np.void, count * lanes.itemsize))  # copied in one move
        beside.view(together).reshape(blocks, parts, width)[:] = (
            lanes.view(together).reshape(blocks, width, parts).swapaxes(1, 2)
        )
    return beside
