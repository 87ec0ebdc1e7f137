"""Run a program on a tile: eight or four rows by sixteen columns at a time, threads over groups."""


# pyright: reportCallIssue=false
# (Numba supplies the first argument of an intrinsic.)

import contextlib

import numpy as np
from numba import njit, prange
from numba.core import event

from npk.backends.cpu.lanes import collapse, reduce
from npk.backends.cpu.windows import drain, gather, slide, sweep
from npk.backends.jit import can_cache
from npk.backends.program.program import LANES, TOGETHER
from npk.progress import Progress

# groups of rows that a task takes one after the other, so that the column block stays in the cache
_GROUPS = 2
_LINE = 64  # bytes of a line of the cache
_FEW = 64  # groups times blocks of which each is a task of its own
_FLUSH = 16  # contributions added in the arithmetic's own type before they go to a float64 sum


_CACHE = can_cache()


@njit(cache=_CACHE)
def _on_lines(array):
    """What is left of an array from a line of the cache on: vectors across two are slow."""
    return array[(-array.ctypes.data % _LINE) // array.itemsize :]


@njit(cache=_CACHE, error_model="numpy", boundscheck=False)
def _run_windows(rows, operation, scale, bias, tables, slots):
    """Window sums one by one, in each copy."""
    out, cells, first = operation[1], operation[2], operation[3]
    count, source = operation[4], operation[5]
    for _ in range(operation[7]):
        gather(rows, slots, source, tables, first, count, cells, scale, bias, out)
        out, source = out + operation[8], source + operation[9]


@njit(cache=_CACHE, error_model="numpy", boundscheck=False)
def _run_boxes(rows, operation, scale, bias, tables, slots, nothing):
    """Window sums, run by run, in each copy."""
    out, runs, first = operation[1], operation[2], operation[3]
    height, source = operation[4], operation[5]
    for _ in range(operation[7]):
        slide(rows, slots, source, tables, first, height, runs, scale, bias, out, nothing)
        out, source = out + operation[8], source + operation[9]


@njit(cache=_CACHE, error_model="numpy", boundscheck=False)
def _run_reduce(rows, operation, program, sources, sums):
    """Contributions to sums, those to one of them together."""
    out, cells, first, to = operation[1], operation[2], operation[3], operation[6]
    targets, wide, begin = program[4], len(rows) * LANES, 0
    while begin < cells:
        end, target = begin + 1, targets[out + begin]
        while end < cells and end - begin < _FLUSH and targets[out + end] == target:
            end += 1
        reduce(rows, program[2], program[3], first, begin, end, sources, sums, (to + target) * wide)
        begin = end


@njit(cache=_CACHE, error_model="numpy", boundscheck=False)
def _run_group(rows, program, sources, sums, nothing):
    """All operations for a group of rows and a block of columns; ``operations``: see program.py."""
    operations, scalars, terms, scales, targets = program
    tables, slots = sources[0], sources[8]
    wide = len(rows) * LANES
    for n in range(len(operations)):
        row = operations[n]
        kind, out, cells = row[0], row[1], row[2]
        first, count, to = row[3], row[4], row[6]
        scale, bias = scalars[n, 0], scalars[n, 1]
        if kind == 0:
            for lane in range(cells * wide):
                slots[out * wide + lane] = sums[to * wide + lane] + bias
                sums[to * wide + lane] = 0.0  # for those that come next
        elif kind == 1:
            slots[out * wide : (out + cells) * wide] = 0
        elif kind == 2:
            _run_windows(rows, row, scale, bias, tables, slots)
        elif kind == 3:
            _run_boxes(rows, row, scale, bias, tables, slots, nothing)
        elif kind == 4:
            for some in range((cells + TOGETHER - 1) // TOGETHER):
                begin, end = some * TOGETHER, min(cells, (some + 1) * TOGETHER)
                for t in range(first, first + count):
                    collapse(rows, terms, scales, t, begin, end, sources)
        elif kind == 6:
            scale, bias = scale * scales[to], bias * scales[to]
            sweep(rows, terms, to, sources, row[5], first, cells, scale, bias, nothing)
        elif kind == 7:
            scale, bias, at = (
                scale * scales[first],
                bias * scales[first],
                (to + targets[out]) * wide,
            )
            numbers = count, cells, scale, bias
            drain(rows, terms, first, sources, row[5], *numbers, nothing, _FLUSH, sums, at)
        else:
            _run_reduce(rows, row, program, sources, sums)


@njit(cache=_CACHE, parallel=True, error_model="numpy", boundscheck=False)
def run_tile(rows, program, tables, weights, masks, sizes, left, out):
    """Fill ``out`` (parts * groups * rows, blocks * 16 columns).

    ``rows``: a tuple with an entry for each row of a group. ``program``: operations, scalars,
    terms, scales, sums of contributions. ``masks``: bits and numbers of groups of rows and of blocks of columns. ``sizes``
    = (slots, sums, first result slot, words of chains, parts). ``left``: number of the first column minus that
    of the first row; what lies wholly left of the diagonal is skipped (give the number of rows to
    compute all).
    """
    bits, lane_bits, reals, lane_reals = masks
    high, wide = len(rows), len(rows) * LANES
    parts, nothing = sizes[4], sizes[0] - 1
    groups, blocks = out.shape[0] // (high * parts), out.shape[1] // LANES
    deep = _GROUPS if groups * blocks >= _FEW else 1
    strips = (groups + deep - 1) // deep
    # left of the diagonal even for the first row: threads share the others alone
    skipped = min(blocks, max(0, -left) // LANES)
    for task in prange(strips * (blocks - skipped)):
        k, q = task // (blocks - skipped), skipped + task % (blocks - skipped)
        # both ends in turn: threads get equal shares of a triangle
        strip = k // 2 if k % 2 == 0 else strips - 1 - k // 2
        if left + (q + 1) * LANES <= strip * deep * high:
            continue
        slots = _on_lines(np.empty(sizes[0] * wide + _LINE, out.dtype))
        slots[:wide], slots[nothing * wide : sizes[0] * wide] = 1, 0
        sums = _on_lines(np.zeros(sizes[1] * wide + _LINE, np.float64))
        chain_bits, chain_lanes = (
            np.empty(sizes[3] * high, np.uint32),
            _on_lines(np.empty(sizes[3] * LANES + _LINE, np.uint32)),
        )
        for g in range(strip * deep, min(groups, (strip + 1) * deep)):
            sources = (
                tables,
                weights,
                bits[g],
                lane_bits[q],
                reals[g],
                lane_reals[q],
                chain_bits,
                chain_lanes,
                slots,
            )
            _run_group(rows, program, sources, sums, nothing)
            for part in range(parts):
                cell, first = (sizes[2] + part) * wide, (part * groups + g) * high
                for r in range(high):
                    for lane in range(LANES):
                        out[first + r, q * LANES + lane] = slots[cell + r * LANES + lane]


@njit(cache=_CACHE, parallel=True, error_model="numpy", boundscheck=False)
def run_diagonal(rows, program, tables, weights, masks, sizes, out):
    """Fill ``out`` (parts, blocks * 16) with the pairs (x, x): the lanes hold both samples of a pair.

    ``masks``: bits and numbers of blocks of samples. Everything else as in ``run_tile``.
    """
    bits, reals = masks
    parts, nothing = sizes[4], sizes[0] - 1
    for q in prange(out.shape[1] // LANES):
        slots = _on_lines(np.empty(sizes[0] * LANES + _LINE, out.dtype))
        slots[:LANES], slots[nothing * LANES : sizes[0] * LANES] = 1, 0
        sums = _on_lines(np.zeros(sizes[1] * LANES + _LINE, np.float64))
        chain_rows, chain_lanes = (
            _on_lines(np.empty(sizes[3] * LANES + _LINE, np.uint32)),
            _on_lines(np.empty(sizes[3] * LANES + _LINE, np.uint32)),
        )
        sources = (
            tables,
            weights,
            bits[q],
            bits[q],
            reals[q],
            reals[q],
            chain_rows,
            chain_lanes,
            slots,
        )
        _run_group((rows,), program, sources, sums, nothing)
        for part in range(parts):
            for lane in range(LANES):
                out[part, q * LANES + lane] = slots[(sizes[2] + part) * LANES + lane]


class _Compiling(event.Listener):
    """Opens a task of progress while Numba compiles."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.depth, self.shown = progress, 0, contextlib.ExitStack()

    def on_start(self, event: event.Event) -> None:
        if self.depth == 0:
            self.shown.enter_context(self.progress.task("compiling (once)", 1))
        self.depth += 1  # functions that are called are compiled on the way

    def on_end(self, event: event.Event) -> None:
        self.depth -= 1
        if self.depth == 0:
            self.shown.close()


def compiling(progress: Progress) -> contextlib.AbstractContextManager[None]:
    """Say so where Numba compiles: for a few seconds, when it finds nothing in memory or on disk."""
    return event.install_listener("numba:compile", _Compiling(progress))
