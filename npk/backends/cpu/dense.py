"""Run a product of overlaps on a tile in one fused pass over packed gates."""

# pyright: reportCallIssue=false, reportIndexIssue=false
# (Numba supplies the first argument of an intrinsic.)

from numba import njit, prange

from npk.backends.cpu.lanes import product
from npk.backends.jit import can_cache
from npk.backends.program.program import LANES

_BLOCKS = 4  # blocks of columns that stay in the cache while the rows pass
_CACHE = can_cache()


@njit(cache=_CACHE, parallel=True, error_model="numpy", boundscheck=False)
def run_product(rows, factors, numbers, masks, left, out):
    """Fill ``out`` (groups * rows, blocks * 16 columns) with the product of all overlaps.

    ``rows``, ``masks`` and ``left``: as in ``run_tile``. ``factors``: for each mask 0 for bits or 1
    for numbers, where it begins and how long it is; ``numbers``: what its overlap is scaled by, and
    what is added to the product behind it, or ``None`` where nothing is.
    """
    high, stride = len(rows), out.shape[1]
    groups, blocks = out.shape[0] // high, stride // LANES
    # left of the diagonal even for the first row: threads share the others alone
    skipped = min(blocks, max(0, -left) // LANES)
    strips = (blocks - skipped + _BLOCKS - 1) // _BLOCKS
    for task in prange(strips):
        # both ends in turn: threads get equal shares of a triangle
        strip = strips - 1 - task // 2 if task % 2 == 0 else task // 2
        for g in range(groups):
            first = skipped + strip * _BLOCKS
            for q in range(first, min(blocks, first + _BLOCKS)):
                if left + (q + 1) * LANES > g * high:
                    at = g * high * stride + q * LANES
                    product(rows, factors, numbers, g, q, masks, out, at, stride)
