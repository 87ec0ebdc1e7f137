"""Sums over windows that slide: the columns of a window are summed once and shared by the three
outputs that see them.

A window of a x 3 positions over neighboring outputs takes a + 3 additions an output instead of 3 a;
of one row there is nothing to share. Nothing is assumed about shapes: what can be shared is seen in
the table of a plane, whatever padding, wrapping or missing cells it has.
"""

import numpy as np

WIDTH = 3  # columns of a window; the two before the last stay in registers
_WORTH = 0.8  # of the loads of the plain sum


def find_runs(pair: np.ndarray) -> tuple[np.ndarray, int] | None:
    """Cut a table of window sums into runs of outputs that share columns.

    Args:
        pair: ``(cells, k)``: the cells that each output adds up, the last axis of the window
            fastest; -1: none.

    Returns:
        For every run one after the other its number of outputs L and the k / 3 entries of its L + 2
        columns; and the number of runs. ``None`` where sharing does not pay.
    """
    cells, k = pair.shape
    if k % WIDTH or k == WIDTH:
        return None
    window = pair.reshape(cells, k // WIDTH, WIDTH)
    shared = (window[1:, :, :-1] == window[:-1, :, 1:]).all((1, 2))
    starts = np.flatnonzero(~np.concatenate([[False], shared]))
    columns = cells + len(starts) * (WIDTH - 1)
    if columns * (k // WIDTH) > _WORTH * cells * k:
        return None
    ends = [*starts[1:].tolist(), cells]
    return np.concatenate(
        [_run(window[start:end]) for start, end in zip(starts.tolist(), ends, strict=True)]
    ), len(starts)


def _run(window: np.ndarray) -> np.ndarray:
    columns = np.concatenate([window[0].T, window[1:, :, -1]])
    return np.concatenate([[len(window)], columns.reshape(-1)])
