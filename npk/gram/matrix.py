"""Gram: a kernel matrix made of tiles, in memory or on disk."""

from pathlib import Path
from typing import Any

import numpy as np

from npk.backends.cpu.threads import torch_threads_kept
from npk.errors import ShapeError
from npk.gram.store import GramStore


class Gram:
    """A kernel matrix on disk that reads like an array.

    ``numpy.asarray(gram)`` reads it whole; ``gram[a:b]`` reads rows. Every tile is compared with its checksum.

    Args:
        store: where the tiles are.
    """

    def __init__(self, store: GramStore) -> None:
        self.store = store

    @classmethod
    def load(cls, path: str | Path) -> "Gram":
        """Open a kernel that ``npk.kernel(..., out=path)`` or `npk kernel` wrote.

        Raises:
            StoreError: not a kernel that npk wrote.
        """
        return cls(GramStore.open(path))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.store.plan.n, self.store.plan.m

    @property
    def dtype(self) -> np.dtype:
        """Type of the entries."""
        return np.dtype(self.store.manifest["dtype"])

    @property
    def about(self) -> dict[str, Any]:
        """What the matrix is of: options and fingerprints of network and data."""
        return dict(self.store.manifest["about"])

    @property
    def complete(self) -> bool:
        """Whether every tile is there."""
        return all(self.store.is_done(tile) for tile in self.store.plan)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = np.empty(self.shape, self.dtype)
        for tile in self.store.plan:
            put(whole, tile.rows, tile.cols, self.store.read(tile), symmetric=self.store.plan.symmetric)
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Some rows, as an array.

        Raises:
            ShapeError: not a slice without steps.
        """
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            raise ShapeError(f"gram[{rows!r}] is not understood. Give a slice of rows such as gram[100:200], or numpy.asarray(gram).")
        start, stop, _ = rows.indices(self.shape[0])
        found = np.empty((max(stop - start, 0), self.shape[1]), self.dtype)
        for tile in self.store.plan:
            if _meets(tile.rows, start, stop) or (self.store.plan.symmetric and _meets(tile.cols, start, stop)):
                values = self.store.read(tile)
                _copy(found, start, stop, tile.rows, tile.cols, values)
                if self.store.plan.symmetric:
                    _copy(found, start, stop, tile.cols, tile.rows, values.T)
        return found

    def diagonal(self) -> np.ndarray:
        """K(x, x) of a square matrix."""
        found = np.empty(min(self.shape), self.dtype)
        for tile in self.store.plan:
            if tile.row == tile.col:
                found[tile.rows] = np.diagonal(self.store.read(tile))
        return found


def put(whole: np.ndarray, rows: slice, cols: slice, values: np.ndarray, *, symmetric: bool) -> None:
    """Place a tile, and its mirror image below the diagonal of a symmetric matrix."""
    if not symmetric or rows.start == cols.start:
        whole[rows, cols] = values
        return
    from npk.gram.passes import place_twice

    with torch_threads_kept():
        place_twice(whole, rows.start, cols.start, values)


def _meets(span: slice, start: int, stop: int) -> bool:
    return span.start < stop and start < span.stop


def _copy(found: np.ndarray, start: int, stop: int, rows: slice, cols: slice, values: np.ndarray) -> None:
    low, high = max(rows.start, start), min(rows.stop, stop)
    if low < high:
        found[low - start : high - start, cols] = values[low - rows.start : high - rows.start]
