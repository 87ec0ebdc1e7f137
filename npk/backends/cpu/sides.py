"""Arrays as the processor reads them: from lines of the cache on, samples side by side."""

import numpy as np

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
