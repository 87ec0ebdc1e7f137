"""In which independent units the needed pairs of each step are visited.

A convolution moves both positions by the same offset, so their displacement t - s stays: pairs of
one displacement form a plane that needs no other plane. Strides discard planes, pools couple a few.
Instead of a case for each, units are the connected components of "pair needs pair". A step that
sums over pairs of several displacements (any pool, a flatten) is a *reduction*: units below add to
it one after the other, and what follows waits for it on the next level.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix, csr_array
from scipy.sparse.csgraph import connected_components

from npk.graph.positions import Grid
from npk.recursion.needed import NeededStep, added, begins, needed_steps, ranges, slices
from npk.recursion.steps import Recursion

_MANY = 1 << 21  # pairs whose edges are found together: each chunk finds most of them again
_KINDS = 1 << 22  # kinds of pairs that are told apart in one table


@dataclass(frozen=True)
class PlannedStep(NeededStep):
    """A step with the units of its pairs, numbered in the order in which they must run.

    ``look``: the same for steps that have all of the following in common, which share them.
    ``ordered``: the pairs, unit after unit. ``bounds``: where each unit begins among them,
    ``(units + 1,)``. ``ranks``: number of each pair of positions among them, ``(positions**2,)``;
    -1 where not needed.
    """

    look: int
    ordered: np.ndarray
    bounds: np.ndarray
    ranks: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """Unit of each pair."""
        units = np.arange(len(self.bounds) - 1, dtype=np.int32)
        return np.repeat(units, np.diff(self.bounds))[self.ranks[self.pairs]]


@dataclass(frozen=True)
class _View:
    """A list of pairs on a grid: the displacement of each, those that occur, sorted, and a pair of
    each of these. Lists have (t, s) where they have (s, t), since both samples are read alike.
    """

    number: int
    grid: Grid
    pairs: np.ndarray
    shifts: np.ndarray
    present: np.ndarray
    witness: np.ndarray


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
            last = np.full(_span(step.step.grid), -1, np.int32)
            last[shifts] = np.arange(len(shifts), dtype=np.int32)
            present = np.flatnonzero(last >= 0)
            witness = step.pairs[last[present]]
            known[key] = _View(len(known), step.step.grid, step.pairs, shifts, present, witness)
    return [known[step.number, step.step.grid] for step in needed]


def _units(needed: Sequence[NeededStep], views: list[_View]) -> list[np.ndarray]:
    """Unit of each displacement that occurs, of each step: the same for all steps of a level that
    see the same pairs.
    """
    kinds = [(view.number, step.level) for view, step in zip(views, needed, strict=True)]
    seen = dict(zip(kinds, views, strict=True))
    start = dict(zip(seen, np.cumsum([0, *(len(v.present) for v in seen.values())]), strict=False))
    edges: dict[tuple, np.ndarray] = {}
    for number, step in enumerate(needed):
        for inflow in step.inflows:
            if inflow.source is None or inflow.deferred:
                continue
            own, other = kinds[number], kinds[inflow.source]
            if (own, other, inflow.tables[0]) not in edges:
                found = _edges(views[number], views[inflow.source], inflow.cells)
                begin = np.array([[start[own]], [start[other]]])
                edges[own, other, inflow.tables[0]] = found + begin
    size = sum(len(view.present) for view in seen.values())
    rows, cols = np.concatenate([np.zeros((2, 0), np.int64), *edges.values()], axis=1)
    matrix = coo_matrix((np.ones(len(rows), np.int8), (rows, cols)), shape=(size, size))
    labels = connected_components(matrix, directed=False)[1]
    components = [labels[start[k] : start[k] + len(seen[k].present)] for k in kinds]
    return _in_order(components, [step.level for step in needed])


def _edges(view: _View, source: _View, cells: np.ndarray) -> np.ndarray:
    """Which displacements need which ones of a source in the same unit, ``(2, edges)``, counted
    among those present.
    """
    place, middle = _coordinate(source.grid)
    inside = cells >= 0
    looked = np.where(inside, place[cells], 0)
    beyond = np.where(inside, 0, -2 * _span(source.grid))
    first, second = ((a + beyond).astype(np.int32).T.copy() for a in (middle - looked, looked))
    found = [np.zeros((2, 0), np.int64)]
    for column, pairs, mirrored in _telling(view, looked, inside):
        for here in slices(len(pairs), _MANY):
            own = _displacements(pairs[here], view.grid)
            edges = _distinct(own, added(pairs[here], first[column], second[column]))
            found.append(edges)
            if mirrored:
                ends = np.array([[_coordinate(view.grid)[1]], [middle]])
                found.append(2 * ends - edges)
    own, theirs = np.concatenate(found, axis=1)
    return np.stack([np.searchsorted(view.present, own), np.searchsorted(source.present, theirs)])


def _telling(
    view: _View, looked: np.ndarray, inside: np.ndarray
) -> Iterator[tuple[int, np.ndarray, bool]]:
    """Offsets of a window, and pairs that need all that any pairs need there; whether those with
    both positions in turn count too.

    Where an offset moves all positions alike, the displacement of a pair stays what it was: then a
    pair of each displacement tells all, and of every other offset only the positions that it moves
    otherwise than most, where a window wraps; among these one pair of each kind is enough.
    """
    whole = np.flatnonzero(inside.all(0)).tolist()
    if not whole:
        yield from ((column, view.pairs, False) for column in range(inside.shape[1]))
        return
    straight = next((c for c in whole if _is_affine(looked[:, c], view.grid)), None)
    base, affine = (whole[0], False) if straight is None else (straight, True)
    yield base, view.witness if affine else view.pairs, False
    for column in range(inside.shape[1]):
        here = inside[:, column]
        moves = looked[:, column] - looked[:, base]
        kinds, kind, counts = np.unique(moves[here], return_inverse=True, return_counts=True)
        if len(kinds) > 1:
            way = np.full(len(looked), -1)
            way[here] = kind
            odd = np.flatnonzero(here & (way != counts.argmax()))
            at = _beginning(view.pairs, odd, len(looked))
            yield column, view.pairs[_of_kinds(view, at, way, len(kinds)) if affine else at], True


def _of_kinds(view: _View, at: np.ndarray, way: np.ndarray, ways: int) -> np.ndarray:
    """One of each kind among some pairs of a list: what a pair needs depends on its displacement
    and on the ways in which an offset moves s and t, -1 where it moves to nothing.
    """
    span = _span(view.grid)
    if (size := span * ways**2) > _KINDS:
        return at
    begin, end = span * ways * way, np.where(way < 0, -size, span * way)
    kind = added(view.pairs[at], begin.astype(np.int32), end.astype(np.int32)) + view.shifts[at]
    last = np.full(size + 1, -1)
    last[np.maximum(kind, -1)] = at
    return last[:-1][last[:-1] >= 0]


def _is_affine(looked: np.ndarray, grid: Grid) -> bool:
    """Whether a table over a grid is a sum of multiples of the coordinates."""
    table, total = looked.reshape(grid), looked[0]
    for axis, side in enumerate(grid):
        line = np.moveaxis(table, axis, 0).reshape(side, -1)[:, 0]
        step = int(line[1] - line[0]) if side > 1 else 0
        shape = [side if other == axis else 1 for other in range(len(grid))]
        total = total + (step * np.arange(side)).reshape(shape)
    return np.array_equal(np.broadcast_to(total, grid), table)


def _beginning(pairs: np.ndarray, positions: np.ndarray, count: int) -> np.ndarray:
    """Which pairs (s, t) of a list have s among some positions."""
    bounds = begins(pairs, count)
    return ranges(bounds[positions], np.diff(bounds)[positions])


def _in_order(components: list[np.ndarray], levels: list[int]) -> list[np.ndarray]:
    """Number components in the order of their last level: unit of each displacement of each step."""
    when = np.zeros(max((int(c.max(initial=-1)) for c in components), default=-1) + 1, np.int64)
    for component, level in zip(components, levels, strict=True):
        when[component] = np.maximum(when[component], level)
    rank = np.empty(len(when), np.int32)
    rank[np.argsort(when, kind="stable")] = np.arange(len(when))
    return [rank[component] for component in components]


def _arranged(view: _View, unit: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
    """The pairs in order, bounds of the units, and ranks."""
    table = np.zeros(int(view.present.max(initial=-1)) + 1, unit.dtype)
    table[view.present] = unit
    labels = table[view.shifts]
    positions = math.prod(view.grid)
    # a row for each s and a column for each unit: SciPy turns rows into columns by counting
    rows = (view.pairs, labels, begins(view.pairs, positions))
    columns = csr_array(rows, shape=(positions, count)).tocsc()
    ranks = np.full(positions**2, -1, np.int32)
    ranks[columns.data] = np.arange(len(columns.data), dtype=np.int32)
    return columns.data, columns.indptr.astype(np.int64), ranks


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


def _displacements(pairs: np.ndarray, grid: Grid) -> np.ndarray:
    """Displacement t - s of each pair, as a number: cells of one displacement may share a unit
    without harm.
    """
    place, middle = _coordinate(grid)
    return added(pairs, np.int32(middle) - place, place)


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
