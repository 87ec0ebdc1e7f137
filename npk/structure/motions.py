"""What moves the positions of a sample: circular shifts, shifts that fill with zeros, reflections,
turns, and any permutation.
"""

import itertools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from npk.graph.positions import OUTSIDE, Grid


@dataclass(frozen=True)
class Motion(ABC):
    """An element of a group that acts on the positions of samples with the sides ``grid``."""

    grid: Grid

    @property
    @abstractmethod
    def name(self) -> str:
        """In a few words."""

    @property
    @abstractmethod
    def distance(self) -> float:
        """How far it moves, in positions; 0 where that says nothing."""

    @abstractmethod
    def taps(self, grid: Grid) -> np.ndarray | None:
        """Which position of a grid each position shows afterwards.

        Args:
            grid: of the samples, or of a layer that moves with them.

        Returns:
            Flat positions, -1 for a zero; ``None`` where it does not move by whole positions there.
        """

    @property
    def is_identity(self) -> bool:
        """Whether every position stays."""
        own = self.taps(self.grid)
        return own is not None and np.array_equal(own, np.arange(len(own)))

    def moved(self, X: np.ndarray) -> np.ndarray:
        """Samples ``(n, channels, *grid)`` after the motion."""
        taps = self.taps(self.grid)
        assert taps is not None
        return along(X, taps)


def along(X: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Values ``(..., *grid)`` with at least two axes before the grid, moved by taps of it.

    Args:
        X: values of shape ``(n, channels, *grid)``.
        taps: flat positions, -1 for a zero.

    Returns:
        The moved values, of the same shape.
    """
    flat = X.reshape(*X.shape[:2], -1)
    seen = flat[:, :, np.maximum(taps, 0)]
    return np.where(taps >= 0, seen, np.zeros((), X.dtype)).reshape(X.shape)


@dataclass(frozen=True)
class Shift(Motion):
    """A shift by ``by``, one number an axis: circular, or filled with zeros."""

    by: Grid
    circular: bool = True

    @property
    def name(self) -> str:
        """The numbers."""
        return f"({', '.join(map(str, self.by))})"

    @property
    def distance(self) -> float:
        """The shorter way around, for circular ones."""
        if self.circular:
            return math.hypot(
                *(min(r % n, -r % n) for r, n in zip(self.by, self.grid, strict=True))
            )
        return math.hypot(*self.by)

    @property
    def is_identity(self) -> bool:
        """By the numbers alone, for large pictures have many shifts."""
        left = zip(self.by, self.grid, strict=True)
        return not any(r % n if self.circular else r for r, n in left)

    def taps(self, grid: Grid) -> np.ndarray | None:
        """Along each axis; on a coarser grid by whole positions only."""
        by = self.on(grid)
        if by is None:
            return None
        axes = [np.arange(n) - r for r, n in zip(by, grid, strict=True)]
        if self.circular:
            axes = [axis % n for axis, n in zip(axes, grid, strict=True)]
        inside = [(axis >= 0) & (axis < n) for axis, n in zip(axes, grid, strict=True)]
        flat = np.ravel_multi_index(np.meshgrid(*axes, indexing="ij"), grid, mode="wrap")
        kept = np.logical_and.reduce(np.meshgrid(*inside, indexing="ij"))
        return np.where(kept, flat, OUTSIDE).reshape(-1)

    def on(self, grid: Grid) -> Grid | None:
        """The shift on another grid; ``None`` if it is not by whole positions."""
        if math.prod(grid) == 1:
            return (0,) * len(grid)
        if len(grid) != len(self.grid):
            return None
        sides = list(zip(self.by, grid, self.grid, strict=True))
        if any(r * side % n for r, side, n in sides):
            return None
        return tuple(r * side // n for r, side, n in sides)


@dataclass(frozen=True)
class Turn(Motion):
    """Quarter turns of the last two axes, after reflections of the axes ``flipped``."""

    quarters: int = 0
    flipped: Grid = ()

    @property
    def name(self) -> str:
        """Such as ``turn by 90°, reflected along axis 2``."""
        turn = [f"turn by {90 * self.quarters}°"] if self.quarters else []
        axes = " and ".join(str(axis + 1) for axis in self.flipped)
        reflected = [f"reflected along axis {axes}"] if self.flipped else []
        return ", ".join(turn + reflected) or "identity"

    @property
    def distance(self) -> float:
        """None to speak of."""
        return 0.0

    def taps(self, grid: Grid) -> np.ndarray | None:
        """On grids of as many axes, square ones for odd turns."""
        count = math.prod(grid)
        if count == 1:
            return np.zeros(1, np.int64)
        if len(grid) != len(self.grid) or (self.quarters % 2 and grid[-1] != grid[-2]):
            return None
        flipped = np.flip(np.arange(count).reshape(grid), self.flipped)
        if self.quarters:
            flipped = np.rot90(flipped, self.quarters, (len(grid) - 2, len(grid) - 1))
        return np.ascontiguousarray(flipped).reshape(-1)


@dataclass(frozen=True)
class Permutation(Motion):
    """Any permutation: position i shows ``places[i]`` afterwards."""

    places: tuple[int, ...]
    named: str = "permutation"

    @property
    def name(self) -> str:
        """What the user calls it."""
        return self.named

    @property
    def distance(self) -> float:
        """None to speak of."""
        return 0.0

    def taps(self, grid: Grid) -> np.ndarray | None:
        """On the samples' own grid, and on one position."""
        if math.prod(grid) == 1:
            return np.zeros(1, np.int64)
        return self._own if grid == self.grid else None

    @cached_property
    def _own(self) -> np.ndarray:
        return np.array(self.places, np.int64)


def shifts(grid: Grid, *, circular: bool = True) -> tuple[Shift, ...]:
    """All circular shifts; or all that leave something in the picture, in both directions."""
    if circular:
        return tuple(Shift(grid, tuple(by)) for by in np.ndindex(*grid))
    sides = (range(-n + 1, n) for n in grid)
    return tuple(Shift(grid, by, circular=False) for by in itertools.product(*sides))


def reflections(grid: Grid) -> tuple[Turn, ...]:
    """Reflections along every set of axes, the identity among them."""
    axes = range(len(grid))
    chosen = itertools.chain.from_iterable(
        itertools.combinations(axes, k) for k in range(len(grid) + 1)
    )
    return tuple(Turn(grid, 0, tuple(flipped)) for flipped in chosen)


def turns(grid: Grid, *, reflected: bool = False) -> tuple[Turn, ...]:
    """Turns of the last two axes, by 90 degrees where they are of one length, else by 180; with
    ``reflected`` those after a reflection too.
    """
    quarters = range(4) if grid[-1] == grid[-2] else (0, 2)
    flips = ((), (len(grid) - 1,)) if reflected else ((),)
    return tuple(Turn(grid, quarter, flipped) for flipped in flips for quarter in quarters)
