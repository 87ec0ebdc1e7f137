"""Index maps between grids of positions.

Convolutions, pools and paddings differ only in which positions of the input a position of the output sees. That is all this file knows: a
map is an integer array of flat positions, with -1 for a place outside the grid.
"""

import math
from dataclasses import dataclass

import numpy as np

Grid = tuple[int, ...]

OUTSIDE = -1


@dataclass(frozen=True)
class Window:
    """A sliding window: one entry an axis of the grid. ``padding`` holds (before, after)."""

    kernel: Grid
    stride: Grid
    padding: tuple[tuple[int, int], ...]
    dilation: Grid

    @classmethod
    def whole(cls, grid: Grid) -> "Window":
        """The window that is the grid itself: a linear layer after a flatten, a global pool."""
        ones = (1,) * len(grid)
        return cls(grid, ones, ((0, 0),) * len(grid), ones)

    @property
    def size(self) -> int:
        """Number of offsets."""
        return math.prod(self.kernel)

    def output(self, grid: Grid) -> Grid:
        """The grid of the windows' positions."""
        sides = zip(grid, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple((n + sum(p) - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sides)

    def taps(self, grid: Grid) -> np.ndarray:
        """Flat input position under each offset of each window.

        Returns:
            ``(size, positions of the output)`` integers, -1 outside the grid; offsets and positions in C order.
        """
        sides = zip(grid, self.output(grid), self.kernel, self.stride, self.padding, self.dilation, strict=True)
        axes = [np.arange(k)[:, None] * d + np.arange(out)[None, :] * s - p[0] for _, out, k, s, p, d in sides]
        return _combine(axes, grid)


def pad_map(grid: Grid, widths: tuple[tuple[int, int], ...], mode: str) -> np.ndarray:
    """Old position of each position of the padded grid, ``(1, new positions)``; -1 where zeros are put in.

    ``mode`` is "constant", "circular", "reflect" or "replicate".
    """
    axes = []
    for n, (before, after) in zip(grid, widths, strict=True):
        axis = np.arange(-before, n + after)
        match mode:
            case "circular":
                axis %= n
            case "reflect":
                axis = n - 1 - np.abs(n - 1 - np.abs(axis))
            case "replicate":
                axis = axis.clip(0, n - 1)
        axes.append(axis[None])
    return _combine(axes, grid)


def _combine(axes: list[np.ndarray], grid: Grid) -> np.ndarray:
    """Join per-axis maps (offsets, outputs) into flat positions, -1 where any axis leaves the grid."""
    flat: np.ndarray = np.zeros((1, 1), np.int64)
    inside: np.ndarray = np.ones((1, 1), bool)
    for axis, n in zip(axes, grid, strict=True):
        offsets, outputs = axis.shape
        shape = (flat.shape[0] * offsets, flat.shape[1] * outputs)
        within = (axis >= 0) & (axis < n)
        flat = (flat[:, None, :, None] * n + axis[None, :, None, :]).reshape(shape)
        inside = (inside[:, None, :, None] & within[None, :, None, :]).reshape(shape)
    return np.where(inside, flat, OUTSIDE)


def look_up(old: np.ndarray, index: np.ndarray) -> np.ndarray:
    """``old[index]`` along the first axis, -1 where ``index`` is outside."""
    found = old[np.maximum(index, 0)]
    return np.where((index >= 0).reshape(index.shape + (1,) * (old.ndim - 1)), found, OUTSIDE)
