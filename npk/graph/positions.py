"""Index maps between grids of positions.

Convolutions and pools differ only in which positions of the input a position of the output sees.
That is all this file knows: a map is an integer array of flat positions, with -1 for a place
outside the grid.
"""

import math
from dataclasses import dataclass

import numpy as np

Grid = tuple[int, ...]

OUTSIDE = -1


@dataclass(frozen=True)
class Window:
    """A sliding window: one entry an axis of the grid. ``padding`` holds (before, after).

    ``transposed``: the window of a transposed convolution; ``extra`` positions are then added at
    the end of each axis.
    """

    kernel: Grid
    stride: Grid
    padding: tuple[tuple[int, int], ...]
    dilation: Grid
    transposed: bool = False
    extra: Grid = ()

    @classmethod
    def whole(cls, grid: Grid) -> "Window":
        """The window that is the grid itself: a linear layer after a flatten, a global pool."""
        ones = (1,) * len(grid)
        return cls(grid, ones, ((0, 0),) * len(grid), ones)

    @classmethod
    def side_by_side(cls, kernel: Grid) -> "Window":
        """Windows that neither overlap nor leave gaps."""
        return cls(kernel, kernel, ((0, 0),) * len(kernel), (1,) * len(kernel))

    @property
    def size(self) -> int:
        """Number of offsets."""
        return math.prod(self.kernel)

    def output(self, grid: Grid) -> Grid:
        """The grid of the windows' positions."""
        sides = zip(grid, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        if self.transposed:
            return tuple(
                (n - 1) * s - sum(p) + d * (k - 1) + 1 + e
                for (n, k, s, p, d), e in zip(sides, self.extra, strict=True)
            )
        return tuple((n + sum(p) - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sides)

    def taps(self, grid: Grid) -> np.ndarray:
        """Flat input position under each offset of each window.

        Returns:
            ``(size, positions of the output)`` integers, -1 outside the grid; offsets and positions
            in C order.
        """
        sides = zip(
            grid,
            self.output(grid),
            self.kernel,
            self.stride,
            self.padding,
            self.dilation,
            strict=True,
        )
        return combine([self._axis(*side) for side in sides], grid)

    def _axis(
        self, n: int, out: int, kernel: int, stride: int, padding: tuple[int, int], dilation: int
    ) -> np.ndarray:
        """Places of one axis, ``(kernel, out)``; anything outside [0, n) lies in the padding."""
        steps, outputs = np.arange(kernel)[:, None] * dilation, np.arange(out)[None, :]
        if not self.transposed:
            return steps + outputs * stride - padding[0]
        place, rest = np.divmod(outputs + padding[0] - steps, stride)
        return np.where(rest == 0, place, OUTSIDE)


@dataclass(frozen=True)
class AdaptiveWindow:
    """The windows of an adaptive pool: window i of an axis goes from floor(i n / m) to ceil((i + 1)
    n / m); they may differ in size.
    """

    sides: Grid
    kernel: Grid  # the largest window

    @classmethod
    def between(cls, grid: Grid, sides: Grid) -> "AdaptiveWindow":
        """The windows from one grid to another."""
        return cls(
            sides,
            tuple(int(max(_ends(n, m) - _starts(n, m))) for n, m in zip(grid, sides, strict=True)),
        )

    @property
    def size(self) -> int:
        """Number of offsets of the largest window."""
        return math.prod(self.kernel)

    @property
    def stride(self) -> Grid:
        """No single number; 0 stands for it."""
        return (0,) * len(self.sides)

    def output(self, grid: Grid) -> Grid:
        """The grid of the windows' positions."""
        return self.sides

    def taps(self, grid: Grid) -> np.ndarray:
        """As :meth:`Window.taps`."""
        axes = []
        for n, m, k in zip(grid, self.sides, self.kernel, strict=True):
            place = _starts(n, m)[None, :] + np.arange(k)[:, None]
            axes.append(np.where(place < _ends(n, m), place, OUTSIDE))
        return combine(axes, grid)


def _starts(n: int, m: int) -> np.ndarray:
    return np.arange(m) * n // m


def _ends(n: int, m: int) -> np.ndarray:
    return -(-(np.arange(m) + 1) * n // m)


def combine(axes: list[np.ndarray], grid: Grid) -> np.ndarray:
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
    entries = old[np.maximum(index, 0)]
    return np.where((index >= 0).reshape(index.shape + (1,) * (old.ndim - 1)), entries, OUTSIDE)
