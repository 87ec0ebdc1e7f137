"""Sums over windows that slide: the columns of a window are summed once and shared by the three
outputs that see them.

A window of a x 3 positions over neighboring outputs takes a + 3 additions an output instead of 3 a;
of one row there is nothing to share. Nothing is assumed about shapes: what can be shared is seen in
the table of a plane, whatever padding, wrapping or missing cells it has.
"""

import numpy as np

WIDTH = 3  # columns of a window; the two before the last stay in registers
_WORTH = 0.8  # of the loads of the plain sum


def find_runs(pair: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut tables of window sums into runs of outputs that share columns.

    Args:
        pair: ``(cells, k)``: the cells that each output adds up, the last axis of the window
            fastest; -1: none. Tables one after the other.
        bounds: where each table begins, ``(tables + 1,)``; none is empty.

    Returns:
        For every run one after the other its number of outputs L and the k / 3 entries of its L + 2
        columns; where those of each table begin, ``(tables + 1,)``; and the number of runs of each
        table. No runs where sharing does not pay.
    """
    k, cells = pair.shape[1], np.diff(bounds)
    high = k // WIDTH
    if k % WIDTH or high == 1:
        return pair[:0, 0], np.zeros(len(bounds), np.intp), np.zeros(len(cells), np.intp)
    window = pair.reshape(len(pair), high, WIDTH)
    begins = np.ones(len(pair), bool)
    begins[1:] = (window[1:, :, :-1] != window[:-1, :, 1:]).any((1, 2))
    begins[bounds[:-1]] = True
    runs = np.add.reduceat(begins, bounds[:-1], dtype=np.intp)
    entries = (cells + runs * (WIDTH - 1)) * high
    pays = entries <= _WORTH * cells * k
    kept = np.repeat(pays, cells)
    lengths = np.where(pays, runs + entries, 0)
    return _laid(window[kept], begins[kept]), np.cumsum([0, *lengths]), np.where(pays, runs, 0)


def _laid(window: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Runs one after the other: an output brings its last column, the first of a run all three and
    the length before them.
    """
    high = window.shape[1]
    ends = np.cumsum(high + begins * (1 + (WIDTH - 1) * high))
    laid = np.empty(int(ends[-1]) if len(ends) else 0, window.dtype)
    laid[ends[:, None] - high + np.arange(high)] = window[:, :, -1]
    heads = ends[begins] - (1 + WIDTH * high)
    laid[heads] = np.diff(np.append(np.flatnonzero(begins), len(begins)))
    first = window[begins, :, :-1].swapaxes(1, 2).reshape(len(heads), (WIDTH - 1) * high)
    laid[heads[:, None] + 1 + np.arange(first.shape[1])] = first
    return laid
