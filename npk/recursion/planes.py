"""In which independent units the needed pairs of each step are visited.

A convolution moves both positions by the same offset, so their displacement t - s stays: pairs of
one displacement form a plane that needs no other plane. Strides discard planes, pools couple a few.
Instead of a case for each, units are the connected components of "pair needs pair". A step that
sums over pairs of several displacements (any pool, a flatten) is a *reduction*: units below add to
it one after the other, and what follows waits for it on the next level.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from npk.graph.positions import Grid
from npk.recursion.needed import NeededStep, ends, needed_steps, slices
from npk.recursion.steps import Recursion

_MANY = 1 << 21  # pairs whose edges are found together: each chunk finds most of them again


@dataclass(frozen=True)
class PlannedStep(NeededStep):
    """A step with the units of its pairs, numbered in the order in which they must run.

    ``look``: the same for steps that have all of the following in common, which share them.
    ``labels``: unit of each pair. ``ordered``: the pairs, unit after unit. ``bounds``: where each
    unit begins among them, ``(units + 1,)``. ``ranks``: number of each pair of positions among
    them, ``(positions**2,)``; -1 where not needed.
    """

    look: int
    labels: np.ndarray
    ordered: np.ndarray
    bounds: np.ndarray
    ranks: np.ndarray


@dataclass(frozen=True)
class _View:
    """A list of pairs on a grid: the displacement of each, and those that occur, sorted."""

    number: int
    grid: Grid
    pairs: np.ndarray
    shifts: np.ndarray
    present: np.ndarray


def plan_steps(recursion: Recursion) -> tuple[PlannedStep, ...]:
    """The steps of a recursion, each with the pairs that it visits and the units of these."""
    needed = needed_steps(recursion)
    views = _views(needed)
    units = _units(needed, views)
    count = int(max(unit.max(initial=0) for unit in units)) + 1
    looks: dict[tuple[int, bytes], tuple] = {}
    found = []
    for step, view, unit in zip(needed, views, units, strict=True):
        key = (view.number, unit.tobytes())
        if key not in looks:
            looks[key] = (len(looks), *_arranged(view, unit, count))
        found.append(PlannedStep(*vars(step).values(), *looks[key]))
    return tuple(found)


def _views(needed: Sequence[NeededStep]) -> list[_View]:
    """Of each step; equal ones are one."""
    known: dict[tuple[int, Grid], _View] = {}
    for step in needed:
        key = (step.number, step.step.grid)
        if key not in known:
            shifts = _displacements(step.pairs, step.step.grid)
            present = _present(shifts, _span(step.step.grid))
            known[key] = _View(len(known), step.step.grid, step.pairs, shifts, present)
    return [known[step.number, step.step.grid] for step in needed]


def _units(needed: Sequence[NeededStep], views: list[_View]) -> list[np.ndarray]:
    """Unit of each displacement that occurs, of each step."""
    start = np.cumsum([0, *(len(view.present) for view in views)])
    edges: list[np.ndarray] = [np.zeros((2, 0), np.int64)]
    known: dict[tuple[int, int, int], np.ndarray] = {}
    for number, step in enumerate(needed):
        for inflow in step.inflows:
            if inflow.source is None or inflow.deferred:
                continue
            view, source = views[number], views[inflow.source]
            key = (view.number, source.number, inflow.tables[0])
            if key not in known:
                known[key] = _edges(view, source, inflow.cells)
            edges.append(known[key] + start[[number, inflow.source]][:, None])
    rows, cols = np.concatenate(edges, axis=1)
    matrix = coo_matrix((np.ones(len(rows), np.int8), (rows, cols)), shape=(start[-1], start[-1]))
    components = np.split(connected_components(matrix, directed=False)[1], start[1:-1])
    return _in_order(components, [step.level for step in needed])


def _edges(view: _View, source: _View, cells: np.ndarray) -> np.ndarray:
    """Which displacements need which ones of a source in the same unit, ``(2, edges)``, counted
    among those present.
    """
    place, middle = _coordinate(source.grid)
    inside = cells >= 0
    looked = np.where(inside, place[cells], 0)
    first, second = (
        np.where(inside, a, -2 * _span(source.grid)).astype(np.int32).T.copy()
        for a in (middle - looked, looked)
    )
    found = [np.zeros((2, 0), np.int64)]
    for here in slices(len(view.pairs), _MANY):
        s, t = ends(view.pairs[here], len(cells))
        found += [
            _distinct(view.shifts[here], a[s] + b[t]) for a, b in zip(first, second, strict=True)
        ]
    own, theirs = np.concatenate(found, axis=1)
    return np.stack([np.searchsorted(view.present, own), np.searchsorted(source.present, theirs)])


def _in_order(components: list[np.ndarray], levels: list[int]) -> list[np.ndarray]:
    """Number components in the order of their last level: unit of each displacement of each step."""
    when = np.zeros(max((int(c.max(initial=-1)) for c in components), default=-1) + 1, np.int64)
    for component, level in zip(components, levels, strict=True):
        when[component] = np.maximum(when[component], level)
    rank = np.empty(len(when), np.int32)
    rank[np.argsort(when, kind="stable")] = np.arange(len(when))
    return [rank[component] for component in components]


def _arranged(view: _View, unit: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
    """Labels of the pairs, the pairs in order, bounds of the units, and ranks."""
    table = np.zeros(int(view.present.max(initial=-1)) + 1, unit.dtype)
    table[view.present] = unit
    labels = table[view.shifts]
    small = np.uint16 if count <= 1 << 16 else np.int32
    ordered = view.pairs[np.argsort(labels.astype(small), kind="stable")]
    ranks = np.full(math.prod(view.grid) ** 2, -1, np.int32)
    ranks[ordered] = np.arange(len(ordered), dtype=np.int32)
    return labels, ordered, np.cumsum([0, *np.bincount(labels, minlength=count)]), ranks


def _span(grid: tuple[int, ...]) -> int:
    """Number of displacements on a grid."""
    return math.prod(2 * side - 1 for side in grid)


def _coordinate(grid: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """One coordinate a position, such that those of t minus those of s plus a constant number the
    displacements t - s.
    """
    place, middle = np.zeros(1, np.int32), 0
    for side in grid:
        place = (place[:, None] * (2 * side - 1) + np.arange(side, dtype=np.int32)).reshape(-1)
        middle = middle * (2 * side - 1) + side - 1
    return place, middle


def _displacements(pairs: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """Displacement t - s of each pair, as a number: cells of one displacement may share a unit
    without harm.
    """
    place, middle = _coordinate(grid)
    s, t = ends(pairs, len(place))
    return place[t] - place[s] + np.int32(middle)


def _present(shift: np.ndarray, span: int) -> np.ndarray:
    """Displacements that occur, sorted."""
    mask = np.zeros(span, bool)
    mask[shift] = True
    return np.flatnonzero(mask)


def _distinct(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distinct columns of two rows of small integers, those left out whose second is negative."""
    found, last = [], np.zeros(int(first.max(initial=-1)) + 1, second.dtype)
    left = second >= 0
    while left.any():
        first, second = first[left], second[left]
        last[first] = second  # one column of each first
        mask = np.zeros(len(last), bool)
        mask[first] = True
        found.append(np.stack([np.flatnonzero(mask), last[mask]]))
        left = last[first] != second
    return np.concatenate([np.zeros((2, 0), np.int64), *found], axis=1)
