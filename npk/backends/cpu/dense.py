"""Run a product of overlaps on a tile: one fused pass over packed gates, so that no matrix of a single layer is ever written."""

# pyright: reportCallIssue=false, reportIndexIssue=false
# (Numba supplies the first argument of an intrinsic.)

import numpy as np
from numba import njit, prange

from npk.backends.cpu.lanes import LANES, ROWS, WIDE, times_bits, times_real
from npk.backends.cpu.tile import can_cache

_BLOCKS = 4  # blocks of columns that stay in the cache while the rows pass
_CACHE = can_cache()


@njit(cache=_CACHE, parallel=True, error_model="numpy", boundscheck=False)
def run_product(forms, firsts, widths, scales, bits, lane_bits, reals, lane_reals, left, out):
    """Fill ``out`` (groups * 8 rows, blocks * 16 columns) with the product of all overlaps; ``left`` as in ``run_tile``.

    ``forms``: 0 for bits, 1 for numbers; ``firsts`` and ``widths``: where each mask begins and how long it is.
    """
    groups, blocks = out.shape[0] // ROWS, out.shape[1] // LANES
    bit_rows, bit_lanes, real_rows, real_lanes = bits.reshape(-1), lane_bits.reshape(-1), reals.reshape(-1), lane_reals.reshape(-1)
    wide_rows, wide_lanes, deep_rows, deep_lanes = bits.shape[1], lane_bits.shape[1], reals.shape[1], lane_reals.shape[1]
    strips = (blocks + _BLOCKS - 1) // _BLOCKS
    for task in prange(strips):
        strip = strips - 1 - task // 2 if task % 2 == 0 else task // 2  # both ends in turn: threads get equal shares of a triangle
        cell = np.empty(WIDE, scales.dtype)
        for g in range(groups):
            for q in range(strip * _BLOCKS, min(blocks, (strip + 1) * _BLOCKS)):
                if left + (q + 1) * LANES <= g * ROWS:
                    continue
                cell[:] = 1
                for f in range(len(forms)):
                    if forms[f] == 0:
                        a, b = g * wide_rows + firsts[f] * ROWS, q * wide_lanes + firsts[f] * LANES
                        times_bits(bit_rows[a:], 0, bit_lanes, b, widths[f], cell, scales[f])
                    else:
                        a, b = g * deep_rows + firsts[f] * ROWS, q * deep_lanes + firsts[f] * LANES
                        times_real(real_rows[a:], 0, real_lanes, b, widths[f], cell, scales[f])
                for r in range(ROWS):
                    out[g * ROWS + r, q * LANES : (q + 1) * LANES] = cell[r * LANES : (r + 1) * LANES]
