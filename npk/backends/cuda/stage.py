"""Recursion -> Stage: convolutions of stride 1 on one grid of positions, then a global pool, which one kernel runs on the chip."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from npk.backends.product import Product, factor_of_field, factor_of_link
from npk.dual.recursion import Collapse, Field, Recursion

Step = Collapse | Field


@dataclass(frozen=True)
class Window:
    """Offsets (row, column) that a convolution adds up: ``rows`` x ``columns`` of them from (``top``, ``first``) on."""

    rows: int
    top: int
    columns: int
    first: int

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """Rows, first row, columns, first column."""
        return self.rows, self.top, self.columns, self.first

    def taps(self, shape: tuple[int, int], circular: bool) -> np.ndarray:
        """Position under each offset, -1 outside: ``(offsets, positions)``."""
        size = np.array(shape)[:, None, None]
        offsets = np.indices((self.rows, self.columns)).reshape(2, -1, 1) + np.array([self.top, self.first])[:, None, None]
        seen = np.indices(shape).reshape(2, 1, -1) + offsets
        inside = ((seen >= 0) & (seen < size)).all(0)
        row, column = seen % size
        return np.where(inside | circular, row * shape[1] + column, -1)


@dataclass(frozen=True)
class Stage:
    """K = sum over pairs of positions of the last masked field.

    ``product``: the masks, that of the input first, and their factors; ``has_input``: whether there is a mask of the input, or ones.
    ``windows``: those of the convolutions, one before each later mask. ``shape``: rows and columns of the grid; ``circular``: how windows
    look over its edge, else at zeros.
    """

    product: Product
    has_input: bool
    windows: tuple[Window, ...]
    shape: tuple[int, int]
    circular: bool

    @property
    def positions(self) -> int:
        """Number of positions of the grid."""
        return self.shape[0] * self.shape[1]


def as_stage(recursion: Recursion, hard: Sequence[bool]) -> Stage | None:
    """The recursion as a stage, where it is one.

    Args:
        recursion: what to compute.
        hard: for each of its masks whether it is kept in bits.
    """
    end = next(n for n, step in enumerate(recursion.steps) if step.positions == 1)
    collapses, fields = _turns(recursion.steps[: end + 1])
    tail = _tail(recursion, end + 1)
    if end < 2 or end % 2 or tail is None or not collapses or len(collapses[0].grid) > 2:
        return None
    shape = (1, *collapses[0].grid)[-2:]
    found = _windows([step.taps for step in fields], shape)
    passed = [_passed(step, 2 * n - 1 if n else None, shape[0] * shape[1]) for n, step in enumerate(collapses)]
    first, *masks = (step.terms[0].mask for step in collapses)
    fits = all(mask is not None and hard[mask] for mask in masks) and (first is None or not hard[first])
    if found is None or None in passed or not fits:
        return None
    factors = [weight * factor for weight, factor in zip(passed, (1.0, *(step.factor for step in fields)), strict=True) if weight]
    factors[-1] *= tail
    last = len(recursion.steps) - 1
    product = Product(tuple(m for m in (first, *masks) if m is not None), tuple(factors), (*range(0, end, 2), last))
    return Stage(product, first is not None, *found)


def _turns(steps: Sequence[Step]) -> tuple[list[Collapse], list[Field]]:
    """Collapses and fields that take turns, each field on the collapse before it, without groups or bias; nothing if they do not."""
    collapses = [step for step in steps[::2] if isinstance(step, Collapse)]
    fields = [s for n, s in enumerate(steps[1::2]) if isinstance(s, Field) and s.collapse == 2 * n and s.groups == 1 and not s.bias]
    return (collapses, fields) if len(collapses) + len(fields) == len(steps) else ([], [])


def _passed(step: Collapse, before: int | None, positions: int) -> float | None:
    """Factor of a collapse of one term that keeps all positions, or adds them up, in their order."""
    (term, *more), order = step.terms, np.arange(positions)
    seen = [table for table, used in ((term.cells, before is not None), (term.places, term.mask is not None)) if used]
    alike = bool((term.weights == term.weights[0, 0]).all()) and term.weights.size == positions
    if more or step.groups != 1 or term.field != before or len(term.blocks) != 1 or not alike:
        return None
    if not all(np.array_equal(table.reshape(-1), order) for table in seen):
        return None
    return float(term.weights[0, 0]) ** 2 * (int(term.blocks[0, 3]) if term.mask is None else 1)


def _tail(recursion: Recursion, begin: int) -> float | None:
    """Factor of what follows the pool, if it has no masks."""
    total = 1.0
    for number, step in enumerate(recursion.steps[begin:], begin):
        masked = isinstance(step, Collapse) and any(term.mask is not None for term in step.terms)
        factor = factor_of_field(recursion, step, number) if isinstance(step, Field) else factor_of_link(step, number)
        if masked or factor is None:
            return None
        total *= factor
    return total


def _windows(layers: Sequence[np.ndarray], shape: tuple[int, int]) -> tuple[tuple[Window, ...], tuple[int, int], bool] | None:
    """Windows of all layers, shape and padding, if the taps of all are windows of stride 1 with one kind of padding."""
    for circular in (True, False):
        found = [_window(taps, shape, circular) for taps in layers]
        if None not in found:
            return tuple(window for window in found if window is not None), shape, circular
    return None


def _window(taps: np.ndarray, shape: tuple[int, int], circular: bool) -> Window | None:
    """The window that has these taps, in any order."""
    positions = shape[0] * shape[1]
    if taps.shape[1] != positions:
        return None
    spans = []
    for size, moves in zip(shape, _moves(taps, shape), strict=True):
        steps = np.unique((moves + (size - 1) // 2) % size - (size - 1) // 2 if circular else moves)
        if not len(steps) or steps[0] > 0 or steps[-1] < 0 or steps[-1] - steps[0] >= size:
            return None
        spans += [int(steps[-1] - steps[0]) + 1, int(steps[0])]
    window = Window(*spans)
    expected = window.taps(shape, circular)
    alike = expected.shape == taps.shape and np.array_equal(_sorted(expected), _sorted(taps))
    return window if alike else None


def _moves(taps: np.ndarray, shape: tuple[int, int]) -> list[np.ndarray]:
    """How many rows and columns away each tap is that looks at a position."""
    here = np.broadcast_to(np.arange(shape[0] * shape[1]), taps.shape)[taps >= 0]
    return [there - at for there, at in zip(np.divmod(taps[taps >= 0], shape[1]), np.divmod(here, shape[1]), strict=True)]


def _sorted(taps: np.ndarray) -> np.ndarray:
    """Taps of each position in a common order."""
    return np.sort(taps, axis=0)
