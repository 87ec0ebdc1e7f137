"""Passes over a tile after the backend, compiled: once each, in squares that fit the cache."""

# pyright: reportGeneralTypeIssues=false

import numpy as np
from numba import njit, prange

from npk.backends.jit import can_cache

_SIDE = 64  # of a square
_CACHE = can_cache()


@njit(cache=_CACHE, parallel=True, error_model="numpy")
def settle(values, factor, mirrored):
    """Multiply a tile by a power of two in place, after the upper triangle was copied below the
    diagonal where ``mirrored``.

    Returns the largest absolute value before, for each band of rows; infinite where a value is not
    finite.
    """
    n, m = values.shape
    bands = (n + _SIDE - 1) // _SIDE
    largest = np.zeros(bands, values.dtype)
    for band in prange(bands):
        first, end, top, bad = band * _SIDE, min(n, (band + 1) * _SIDE), values.dtype.type(0), False
        for square in range(band if mirrored else 0, (m + _SIDE - 1) // _SIDE):
            for i in range(first, end):
                for j in range(
                    max(square * _SIDE, i) if mirrored else square * _SIDE,
                    min(m, (square + 1) * _SIDE),
                ):
                    value = values[i, j]
                    bad |= not np.isfinite(value)
                    top = max(top, abs(value))
                    values[i, j] = value * factor
            if mirrored:
                for j in range(square * _SIDE, min(m, (square + 1) * _SIDE)):
                    for i in range(first, min(end, j)):
                        values[j, i] = values[i, j]
        largest[band] = np.inf if bad else top
    return largest


@njit(cache=_CACHE, parallel=True)
def place_twice(whole, first, start, values):
    """Write a tile at row ``first`` and column ``start``, and its mirror image."""
    n, m = values.shape
    for band in prange((n + _SIDE - 1) // _SIDE):
        for square in range((m + _SIDE - 1) // _SIDE):
            rows = range(band * _SIDE, min(n, (band + 1) * _SIDE))
            cols = range(square * _SIDE, min(m, (square + 1) * _SIDE))
            for i in rows:
                for j in cols:
                    whole[first + i, start + j] = values[i, j]
            for j in cols:
                for i in rows:
                    whole[start + j, first + i] = values[i, j]
