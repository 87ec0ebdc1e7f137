"""Run a program on a tile of sample pairs: rows one by one, columns sixteen at a time in the SIMD lanes, threads over both."""

# ruff: noqa: ANN001, ANN201, ANN202, PLR0913, C901, PLR0912 - compiled by Numba: arrays only, loops written out

import numpy as np
from numba import njit, prange

from npk.backends.cpu.lanes import LANES, add_bits, add_real, gather

_ROWS = 8  # rows a task takes one after the other, so that the column block stays in the cache
_FLUSH = 16  # contributions added in the arithmetic's own type before they go to a float64 sum


@njit(cache=True, error_model="numpy", boundscheck=False)
def _run_pair(operations, scalars, tables, weights, layout, row_bits, lane_bits, row_reals, lane_reals, slots, sums, scratch):
    """All operations for one row sample and the sixteen column samples of a block (columns of ``operations``: see program.py)."""
    sums[:] = 0.0
    for n in range(len(operations)):
        kind, out, to_sum, cells, k, source = [operations[n, c] for c in range(6)]
        pair, u, v, weight, mask, fresh = [operations[n, c] for c in range(6, 12)]
        scale, bias = scalars[n, 0], scalars[n, 1]
        if kind == 0:
            for lane in range(LANES):
                slots[out * LANES + lane] = sums[to_sum * LANES + lane] + bias
            continue
        if kind == 1:
            for c in range(cells):
                gather(slots, source, tables, pair + c * k, k, scale, bias, slots, (out + c) * LANES)
            continue
        form, first, width = layout[mask, 0], layout[mask, 1], layout[mask, 2]  # mask -1 reads the last row: ones
        for c in range(cells):
            o = (scratch if to_sum >= 0 else out + c) * LANES
            if fresh:
                for lane in range(LANES):
                    slots[o + lane] = 0
            for j in range(c * k, c * k + k):
                entry = tables[pair + j]
                if entry >= 0:
                    w = scale if weight < 0 else scale * weights[weight + j]
                    s = (source + entry) * LANES
                    if form == 0:
                        a, b = first + tables[u + j] * width, first + tables[v + j] * width
                        add_bits(row_bits, a, lane_bits, b * LANES, width, slots, s, w, slots, o)
                    elif form == 1:
                        a, b = first + tables[u + j] * width, first + tables[v + j] * width
                        add_real(row_reals, a, lane_reals, b * LANES, width, slots, s, w, slots, o)
                    else:
                        for lane in range(LANES):
                            slots[o + lane] += w * slots[s + lane]
                if to_sum >= 0 and (j % _FLUSH == _FLUSH - 1 or j == k - 1):
                    for lane in range(LANES):
                        sums[to_sum * LANES + lane] += slots[o + lane]
                        slots[o + lane] = 0


@njit(cache=True, parallel=True, error_model="numpy", boundscheck=False)
def run_tile(operations, scalars, tables, weights, layout, row_bits, lane_bits, row_reals, lane_reals, sizes, left, out):
    """Fill ``out`` (rows, blocks * 16).

    ``sizes`` = (slots, sums, result slot). ``left``: number of the first column minus that of the first row; blocks wholly left of the diagonal are skipped
    (give a number larger than the rows to compute all).
    """
    n, blocks = out.shape[0], out.shape[1] // LANES
    strips = (n + _ROWS - 1) // _ROWS
    for task in prange(strips * blocks):
        strip, q = task // blocks, task % blocks
        if left + (q + 1) * LANES <= strip * _ROWS:
            continue
        slots = np.empty((sizes[0] + 1) * LANES, scalars.dtype)
        slots[:LANES] = 1
        sums = np.zeros(max(sizes[1], 1) * LANES, np.float64)
        for i in range(strip * _ROWS, min(n, strip * _ROWS + _ROWS)):
            _run_pair(
                operations, scalars, tables, weights, layout, row_bits[i], lane_bits[q], row_reals[i], lane_reals[q], slots, sums, sizes[0]
            )
            for lane in range(LANES):
                out[i, q * LANES + lane] = slots[sizes[2] * LANES + lane]
