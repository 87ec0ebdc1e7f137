"""The pass over a tile after the backend, compiled: it is checked, put on the kernel's scale and
written where it belongs, once.
"""

# pyright: reportCallIssue=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# (Numba supplies the first argument of an intrinsic.)

import numpy as np
from numba import njit, prange

from npk.backends.jit import can_cache, torch_threads_kept
from npk.gram.work.squares import LINE, SQUARE, finish_writing, write_square

_BAND = 4  # squares that a thread takes together down and across: their lines are neighbors
_LARGE = 1 << 24  # bytes of a matrix that would only push others out of the caches
_CACHE = can_cache()


def new_matrix(shape: tuple[int, int], dtype: str) -> np.ndarray:
    """A matrix that begins at a line of the cache; its pages are found by whoever writes first."""
    size = shape[0] * shape[1]
    memory = np.empty(size + LINE // np.dtype(dtype).itemsize, dtype)
    first = (-memory.ctypes.data % LINE) // memory.itemsize
    return memory[first : first + size].reshape(shape)


def settle(
    values: np.ndarray,
    factor: float,
    whole: np.ndarray,
    first: int = 0,
    start: int = 0,
    *,
    mirrored: bool,
) -> float:
    """Write a tile times a power of two into a matrix, which may be the tile itself.

    Args:
        values: ``(n, m)``, each row without gaps.
        factor: the power of two.
        whole: the matrix, of the same dtype.
        first: its row where the tile begins.
        start: its column where the tile begins.
        mirrored: whether the mirror image is written too, at row ``start`` and column ``first``; of
            a tile on the diagonal only the upper triangle is read.

    Returns:
        The largest absolute value before; infinite where one is not finite.
    """
    wide, item = whole.strides[0] // whole.itemsize, whole.itemsize
    corners = first * wide + start, start * wide + first
    streamed = whole.nbytes >= _LARGE and all(
        number * item % LINE == 0 for number in (whole.ctypes.data // item, *corners, wide)
    )
    strides = values.strides[0] // values.itemsize, wide
    with torch_threads_kept(), np.errstate(over="ignore", under="ignore"):
        return float(
            _settle(
                _flat(values),
                (*values.shape, *strides),
                values.dtype.type(factor),
                _flat(whole),
                (first, start),
                mirrored,
                streamed and not np.may_share_memory(values, whole),
            ).max(initial=0)
        )


def _flat(values: np.ndarray) -> np.ndarray:
    """All memory from a matrix' first entry to its last: one form for all of them, so that the
    pass is compiled once.
    """
    (n, m), (step, _) = values.shape, values.strides
    size = (n - 1) * (step // values.itemsize) + m if n and m else 0
    return np.lib.stride_tricks.as_strided(values, (size,), (values.itemsize,))


@njit(cache=_CACHE, parallel=True, error_model="numpy", boundscheck=False)
def _settle(values, sizes, factor, whole, corner, mirrored, streamed):
    """As :func:`settle`; the largest value of each band of rows. ``sizes``: rows, columns, and how
    far apart rows are in both arrays.
    """
    n, m, stride, wide = sizes
    first, start = corner
    triangle = mirrored and first == start
    down, across = (n + SQUARE - 1) // SQUARE, (m + SQUARE - 1) // SQUARE
    bands, blocks = (down + _BAND - 1) // _BAND, (across + _BAND - 1) // _BAND
    largest = np.zeros(bands, values.dtype)
    for task in prange(bands):
        # both ends in turn: threads get equal shares of a triangle
        band = task // 2 if task % 2 == 0 else bands - 1 - task // 2
        top, bad = values.dtype.type(0), False
        for block in range(band if triangle else 0, blocks):
            for k in range(band * _BAND, min(down, (band + 1) * _BAND)):
                for q in range(block * _BAND, min(across, (block + 1) * _BAND)):
                    if triangle and q < k:
                        continue
                    i, j = k * SQUARE, q * SQUARE
                    at, to = i * stride + j, (first + i) * wide + start + j
                    back = (start + j) * wide + first + i
                    size = min(n - i, SQUARE), min(m - j, SQUARE)
                    if min(size) == SQUARE and not (triangle and k == q):
                        value = write_square(
                            values, at, stride, factor, whole, to, back, wide, mirrored, streamed
                        )
                    else:
                        value = _write_part(
                            values,
                            at,
                            stride,
                            factor,
                            whole,
                            to,
                            back,
                            wide,
                            mirrored,
                            size,
                            triangle and k == q,
                        )
                    bad |= not np.isfinite(value)
                    top = max(top, value)
        finish_writing()
        largest[band] = np.inf if bad else top
    return largest


@njit(cache=_CACHE, error_model="numpy", boundscheck=False)
def _write_part(values, at, stride, factor, whole, to, back, wide, mirrored, size, on_diagonal):
    """As ``write_square``, of a smaller one, or of one on the diagonal: its upper triangle alone."""
    top, bad = values.dtype.type(0), False
    for r in range(size[0]):
        for c in range(r if on_diagonal else 0, size[1]):
            value = values[at + r * stride + c]
            bad |= not np.isfinite(value)
            top = max(top, abs(value))
            whole[to + r * wide + c] = value * factor
            if mirrored:
                whole[back + c * wide + r] = value * factor
    return values.dtype.type(np.inf) if bad else top
