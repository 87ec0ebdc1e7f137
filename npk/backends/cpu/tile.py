"""Run a program on a tile of sample pairs: eight rows by sixteen columns at a time, threads over such groups."""

# ruff: noqa: PLR0912 - compiled by Numba: arrays only, loops written out
# pyright: reportCallIssue=false
# (Numba supplies the first argument of an intrinsic.)

import numpy as np
from numba import njit, prange

from npk.backends.cpu.lanes import LANES, ROWS, WIDE, add_bits, add_plain, add_real, clear, flush, gather

_GROUPS = 2  # groups of rows that a task takes one after the other, so that the column block stays in the cache
_FLUSH = 16  # contributions added in the arithmetic's own type before they go to a float64 sum


def can_cache() -> bool:
    """Whether Numba finds a place on disk for what it compiles: an installation may be read-only, a user without a home."""
    try:
        njit(cache=True)(can_cache)
    except RuntimeError:
        return False
    return True


_CACHE = can_cache()


@njit(cache=_CACHE, error_model="numpy", boundscheck=False)
def _run_group(operations, scalars, tables, weights, layout, bits, lane_bits, reals, lane_reals, slots, sums, scratch):
    """All operations for a group of row samples and a block of column samples (columns of ``operations``: see program.py)."""
    sums[:] = 0.0
    for n in range(len(operations)):
        row = operations[n]
        kind, out, to_sum, cells, k, source = row[0], row[1], row[2], row[3], row[4], row[5]
        pair, u, v, weight, mask, fresh = row[6], row[7], row[8], row[9], row[10], row[11]
        scale, bias = scalars[n, 0], scalars[n, 1]
        if kind == 0:
            for lane in range(cells * WIDE):
                slots[out * WIDE + lane] = sums[to_sum * WIDE + lane] + bias
            continue
        if kind == 1:
            for c in range(cells):
                gather(slots, source, tables, pair + c * k, k, scale, bias, (out + c) * WIDE)
            continue
        form, first, stride, width = layout[mask, 0], layout[mask, 1], layout[mask, 2], layout[mask, 3]  # mask -1: the last row, ones
        for c in range(cells):
            o = (scratch if kind == 3 else out + c) * WIDE
            if fresh:
                clear(slots, o)
            for j in range(c * k, c * k + k):
                entry = tables[pair + j]
                if entry >= 0:
                    w = scale if weight < 0 else scale * weights[weight + j]
                    s = (source + entry) * WIDE
                    if form == 0:
                        a, b = first + tables[u + j] * stride, first + tables[v + j] * stride
                        add_bits(bits, a, lane_bits, b * LANES, width, slots, s, w, o)
                    elif form == 1:
                        a, b = first + tables[u + j] * stride, first + tables[v + j] * stride
                        add_real(reals, a, lane_reals, b * LANES, width, slots, s, w, o)
                    else:
                        add_plain(slots, s, w, o)
                if kind == 3 and (j % _FLUSH == _FLUSH - 1 or j == k - 1 or tables[out + j] != tables[out + j + 1]):
                    flush(slots, o, sums, (to_sum + tables[out + j]) * WIDE)


@njit(cache=_CACHE, parallel=True, error_model="numpy", boundscheck=False)
def run_tile(operations, scalars, tables, weights, layout, bits, lane_bits, reals, lane_reals, sizes, left, out):
    """Fill ``out`` (groups * 8 rows, blocks * 16 columns).

    ``sizes`` = (slots, sums, result slot). ``left``: number of the first column minus that of the first row; what lies wholly left of the
    diagonal is skipped (give the number of rows to compute all).
    """
    groups, blocks = out.shape[0] // ROWS, out.shape[1] // LANES
    strips = (groups + _GROUPS - 1) // _GROUPS
    for task in prange(strips * blocks):
        k, q = task // blocks, task % blocks
        strip = k // 2 if k % 2 == 0 else strips - 1 - k // 2  # both ends in turn: threads get equal shares of a triangle
        if left + (q + 1) * LANES <= strip * _GROUPS * ROWS:
            continue
        slots = np.empty((sizes[0] + 1) * WIDE, scalars.dtype)
        slots[:WIDE] = 1
        sums = np.zeros(max(sizes[1], 1) * WIDE, np.float64)
        for g in range(strip * _GROUPS, min(groups, (strip + 1) * _GROUPS)):
            _run_group(operations, scalars, tables, weights, layout, bits[g], lane_bits[q], reals[g], lane_reals[q], slots, sums, sizes[0])
            for r in range(ROWS):
                for lane in range(LANES):
                    out[g * ROWS + r, q * LANES + lane] = slots[sizes[2] * WIDE + r * LANES + lane]
