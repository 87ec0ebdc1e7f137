"""Index tables of contributions, many units at once.

All steps that look alike and read alike share a *cut*: what one source gives to one step. Most units
are one another moved: a table of cells is made once for all whose positions, and whose padding, are
the same, and only the places in the masks are their own. Those of many units are made together, one
after the other in one array.
"""

import itertools
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from npk.backends.program.boxes import find_runs
from npk.backends.program.program import Draft
from npk.recursion.needed import Inflow, ends, ranges
from npk.recursion.planes import PlannedStep

NOWHERE = -1


class Place(NamedTuple):
    """Where the tables and weights of a cut begin in one unit; -1: none.

    ``targets``: of the sums that contributions to a reduction go to. ``added``: number of
    contributions to a reduction. ``whole``: whether all have a place in the mask. ``runs``,
    ``run_count``: of a field, table and number of the runs of windows that share columns, if any;
    they stand in the place of ``pair``, which has several times as many entries. ``straight``:
    whether contributions to a reduction are all cells in order, to one sum.
    """

    pair: int
    u: int = NOWHERE
    v: int = NOWHERE
    weight: int = NOWHERE
    targets: int = NOWHERE
    added: int = 0
    whole: int = 0
    runs: int = NOWHERE
    run_count: int = 0
    straight: int = 0


PAIR, U, V, WEIGHT, TARGETS, ADDED, WHOLE, RUNS, COUNT, STRAIGHT = range(len(Place._fields))


@dataclass(frozen=True)
class Ends:
    """The pairs (s, t) of a look in some units, one unit after the other.

    ``bounds``: where each unit begins among them. ``here``: the units that have pairs. ``first``:
    where s begins in each unit. ``moved``: number of its list of s as it is moved to begin at 0,
    equal ones the same. ``once``: whether each s begins one pair at most. ``pairs``: as numbers.
    """

    s: np.ndarray
    t: np.ndarray
    pairs: np.ndarray
    bounds: np.ndarray
    here: np.ndarray
    first: np.ndarray
    moved: list[int]
    once: list[bool]

    def split(self, values: np.ndarray) -> list[bytes]:
        """Values of all pairs as bytes, those of each unit by themselves."""
        return split(values, self.bounds)

    def of(self, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of some units, and where each begins among these."""
        counts = np.diff(self.bounds)[units]
        return ranges(self.bounds[units], counts), np.cumsum([0, *counts])


@dataclass
class Tables:
    """What the cuts of a program share: the draft with its tables, and the pairs of some units."""

    draft: Draft
    units: slice = field(default_factory=lambda: slice(0))
    lists: dict[bytes, int] = field(default_factory=dict)
    _ends: dict[int, Ends] = field(default_factory=dict)  # of these units, by look
    _rows: dict[tuple[int, ...], int] = field(default_factory=dict)  # tables of u, by list of s
    _masks: dict[tuple[int, ...], np.ndarray] = field(default_factory=dict)  # of these units

    def enter(self, units: slice) -> None:
        """Go on to some units."""
        self.units = units
        self._ends.clear()
        self._masks.clear()

    def begins(self, step: PlannedStep) -> np.ndarray:
        """Where the pairs of a step begin in these units, and where the last of these ends."""
        return step.bounds[self.units.start : self.units.stop + 1]

    def ends(self, step: PlannedStep) -> Ends:
        """Positions of the pairs of a step in these units."""
        if step.look not in self._ends:
            bounds = self.begins(step)
            pairs = step.ordered[bounds[0] : bounds[-1]]
            self._ends[step.look] = self._found(pairs, bounds - bounds[0], step.step.positions)
        return self._ends[step.look]

    def _found(self, pairs: np.ndarray, bounds: np.ndarray, positions: int) -> Ends:
        s, t = ends(pairs, positions)
        counts = np.diff(bounds)
        here, first = np.flatnonzero(counts), np.zeros(len(counts), np.intp)
        first[here] = s[bounds[here]]
        lists = split((s - np.repeat(first, counts)).astype(np.int32), bounds)
        moved = [self.lists.setdefault(held, len(self.lists)) for held in lists]
        again = 1 + np.flatnonzero(s[1:] <= s[:-1])
        unit = np.searchsorted(bounds, again, side="right") - 1
        once = np.ones(len(counts), bool)
        once[unit[again > bounds[unit]]] = False
        return Ends(s, t, pairs, bounds, here, first, moved, once.tolist())

    def windows(self, pair: np.ndarray, bounds: np.ndarray) -> list[tuple[int, int, int]]:
        """For each of some tables of a field's windows where it begins, and table and number of runs:
        of runs where columns can be shared, of its own where they cannot.
        """
        table, begins, runs = find_runs(pair, bounds)
        shared = np.where(runs, self.draft.tables(table, begins), NOWHERE)
        alone = runs == 0
        counts = np.where(alone, np.diff(bounds), 0)
        rows = pair[np.repeat(alone, np.diff(bounds))]
        own = self.draft.tables(rows, np.cumsum([0, *counts]) * pair.shape[1])
        whole = np.where(alone, own, NOWHERE)
        return list(zip(whole.tolist(), shared.tolist(), runs.tolist(), strict=True))

    def in_mask(self, inflow: Inflow, step: PlannedStep) -> np.ndarray:
        """Tables of u and of v in each unit that has pairs of a step, ``(units here, 2)``."""
        reads = inflow.tables[1], inflow.family
        if (*reads, step.look) not in self._masks:
            ends = self.ends(step)
            rows = [(*reads, ends.moved[n], int(ends.first[n])) for n in ends.here.tolist()]
            fresh = _fresh(rows, ends.here.tolist(), self._rows)
            if fresh:
                at, bounds = ends.of(np.fromiter(fresh.values(), np.intp))
                u = _repeated(inflow.places[ends.s[at]], inflow.family)
                found = self.draft.tables(u, bounds * u.shape[1]).tolist()
                self._rows.update(zip(fresh, found, strict=True))
            v = _tiled(inflow.places[ends.t], inflow.family)
            bounds = np.append(ends.bounds[ends.here], len(ends.pairs)) * v.shape[1]
            cols = self.draft.tables(v, bounds)
            self._masks[*reads, step.look] = np.stack([[self._rows[row] for row in rows], cols], 1)
        return self._masks[*reads, step.look]


class Cut:
    """Contributions of one source to the cells of steps that look alike, in their own units.

    Args:
        step, source: of the contributions; ``None`` for V = 1.
        inflow: of the step.
        tables: of the program.
    """

    def __init__(
        self, step: PlannedStep, source: PlannedStep | None, inflow: Inflow, tables: Tables
    ) -> None:
        self.step, self.source, self.inflow, self.tables = step, source, inflow, tables
        self.owner, self.masked = step, is_masked(inflow)
        self.k = inflow.cells.shape[1] * inflow.family
        self.several = 1 if inflow.term is None else self.k  # looked at together, of one pair
        # positions that lack a place
        lacking = np.any(inflow.places < 0, axis=1) if self.masked else np.zeros(0, bool)
        self.outside: np.ndarray = np.asarray(lacking)
        self.moves, self.inside = _moves(inflow.cells), np.packbits(inflow.cells >= 0, axis=1)
        # whether all positions see alike, and none sees the outside: then no pair need tell
        self.even = bool((self.moves == self.moves[:1]).all())
        self.open = bool((inflow.cells >= 0).all())
        self.known: dict[tuple, tuple[int, int, int]] = {}

    def places(self) -> np.ndarray:
        """Its tables in the units that the tables have come to, ``(units, Place)``."""
        ends, inflow = self.tables.ends(self.step), self.inflow
        found = np.full((len(ends.first), len(Place._fields)), NOWHERE)
        keys, here = self._keys(ends), ends.here
        fresh = _fresh((keys[n] for n in here.tolist()), here.tolist(), self.known)
        if fresh:
            pairs = self._pairs(ends, np.fromiter(fresh.values(), np.intp))
            self.known.update(zip(fresh, pairs, strict=True))
        found[here[:, None], (PAIR, RUNS, COUNT)] = [self.known[keys[n]] for n in here.tolist()]
        found[:, (ADDED, STRAIGHT)] = 0
        if inflow.weight is None:
            weights = inflow.weights(ends.s, ends.t)
            bounds = np.append(ends.bounds[here], len(ends.pairs)) * self.k
            found[here, WEIGHT] = self.tables.draft.weights(weights, bounds)
        found[:, WHOLE] = 0
        if self.masked:
            found[here[:, None], (U, V)] = self.tables.in_mask(inflow, self.step)
            lacking = self.outside[ends.s] | self.outside[ends.t]
            found[here, WHOLE] = ~np.logical_or.reduceat(lacking, ends.bounds[here])
        return found

    def _keys(self, ends: Ends) -> list[tuple]:
        """Of each unit, equal where the table of pairs is. In one plane s says which pair it is;
        what it sees depends on how far from s that is, and on the padding around both ends.
        """
        if self.source is None:
            if self.open:
                return [(count,) for count in np.diff(ends.bounds).tolist()]
            inside = (ends.split(self.inside[side]) for side in (ends.s, ends.t))
            return list(zip(*inside, strict=True))
        of, alike = self.tables.ends(self.source), [b""] * len(ends.first)
        ways = alike if self.even else ends.split(self.moves[ends.s])
        both = alike if self.open else ends.split(self.inside[ends.s] & self.inside[ends.t])
        apart = (of.first - ends.first).tolist()
        keys: list[tuple] = list(zip(ends.moved, of.moved, apart, ways, both, strict=True))
        if not all(of.once):
            whole = list(zip(ends.split(ends.pairs), of.split(of.pairs), strict=True))
            keys = [
                key if once else all_ for key, all_, once in zip(keys, whole, of.once, strict=True)
            ]
        return keys

    def _pairs(self, ends: Ends, units: np.ndarray) -> list[tuple[int, int, int]]:
        """Table of the numbers of the source's cells in some units, and table and number of runs."""
        at, bounds = ends.of(units)
        pair = self.inflow.pairs(ends.s[at], ends.t[at])
        if self.source is not None:
            begins = self.tables.begins(self.source)[units].astype(np.int32)
            own = self.source.ranks[pair] - np.repeat(begins, np.diff(bounds))[:, None]
            pair = np.where(pair >= 0, own, NOWHERE)
        if self.inflow.term is None:
            return self.tables.windows(pair, bounds)
        starts = self.tables.draft.tables(pair, bounds * pair.shape[1])
        return [(start, NOWHERE, 0) for start in starts.tolist()]


class LateCut:
    """Contributions of one source to a reduction, which the source's units add.

    Args:
        step, source: of the contributions.
        inflow: of the step.
        tables: of the program.
    """

    def __init__(
        self, step: PlannedStep, source: PlannedStep, inflow: Inflow, tables: Tables
    ) -> None:
        self.step, self.source, self.inflow, self.tables = step, source, inflow, tables
        self.owner, self.masked, self.k = source, is_masked(inflow), 1
        self.positions, self.members = _readers(inflow.cells, source.step.positions)
        self.several = self.positions.shape[1] ** 2

    def places(self) -> np.ndarray:
        """Its tables in the units that the tables have come to, ``(units, Place)``: contributions
        in the order of the sums that they go to.
        """
        ends, draft, inflow = self.tables.ends(self.source), self.tables.draft, self.inflow
        unit, pair, target, s, a, t, b = self._contributions(ends)
        counts = np.bincount(unit, minlength=len(ends.first))
        bounds = np.cumsum([0, *counts])
        found = np.full((len(counts), len(Place._fields)), NOWHERE)
        found[:, PAIR] = draft.tables(pair, bounds)
        found[:, TARGETS] = draft.tables(target, bounds)
        found[:, ADDED], found[:, WHOLE], found[:, COUNT] = counts, 0, 0
        found[:, STRAIGHT] = _straight(unit, pair, target, bounds) & (
            counts == np.diff(ends.bounds)
        )
        if self.masked:
            found[:, U] = draft.tables(inflow.places[s, a], bounds)
            found[:, V] = draft.tables(inflow.places[t, b], bounds)
        if inflow.weight is None:
            assert inflow.term is not None
            weights = inflow.term.weights
            found[:, WEIGHT] = draft.weights(weights[s, a] * weights[t, b], bounds)
        return found

    def _contributions(self, ends: Ends) -> list[np.ndarray]:
        """Unit, cell and sum of each, and position and member of the family that reads each end."""
        count, several = self.inflow.cells.shape
        rows, cols = self.positions[ends.s][:, :, None], self.positions[ends.t][:, None, :]
        both = (rows >= 0) & (cols >= 0)
        target = self.step.ranks[np.where(both, rows * count + cols, 0)]
        fit = both & (target >= 0)
        if self.inflow.term is None:  # a layer: the same weight at both ends
            fit &= self.members[ends.s][:, :, None] == self.members[ends.t][:, None, :]
        unit = np.repeat(np.arange(len(ends.first)), np.diff(ends.bounds))
        pair = np.arange(len(ends.pairs)) - ends.bounds[unit]
        if fit.shape[1:] == (1, 1) and fit.all():  # each pair is read once
            target, rows, cols = target[:, 0, 0], rows[:, 0, 0], cols[:, 0, 0]
            a, b = self.members[ends.s, 0], self.members[ends.t, 0]
        else:
            at, x, y = np.nonzero(fit)
            unit, pair, target = unit[at], pair[at], target[at, x, y]
            s, t = ends.s[at], ends.t[at]
            rows, cols = self.positions[s, x], self.positions[t, y]
            a, b = self.members[s, x], self.members[t, y]
        sums = len(self.step.pairs)
        found, rank = (
            [unit, pair, target, rows, a, cols, b],
            ((unit * np.int64(sums) + target) * several + a) * several + b,
        )
        if (rank[1:] > rank[:-1]).all():  # in order, as those of a pool over all positions
            return found
        order = np.argsort(rank)
        return [x[order] for x in found]


def _straight(
    unit: np.ndarray, pair: np.ndarray, target: np.ndarray, bounds: np.ndarray
) -> np.ndarray:
    """Of each unit whether its contributions read cells in order, and go to one sum."""
    turns = (np.diff(pair) != 1) | (np.diff(target) != 0)
    begins = bounds[:-1][np.diff(bounds) > 0]
    turns[begins[1:] - 1] = False  # from one unit to the next
    found = np.ones(len(bounds) - 1, bool)
    found[unit[np.flatnonzero(turns)]] = False
    found[unit[begins[pair[begins] != 0]]] = False
    return found


def is_masked(inflow: Inflow) -> bool:
    """Whether contributions have a mask."""
    return inflow.term is not None and inflow.term.mask is not None


def _fresh(
    keys: Iterable[tuple], units: Iterable[int], known: Container[tuple]
) -> dict[tuple, int]:
    """Keys that are not known, each with the first of the units that have it."""
    fresh: dict[tuple, int] = {}
    for key, unit in zip(keys, units, strict=True):
        if key not in known:
            fresh.setdefault(key, unit)
    return fresh


def split(values: np.ndarray, bounds: np.ndarray | None = None) -> list[bytes]:
    """An array as bytes: each row, or the rows between two bounds.

    Args:
        values: rows.
        bounds: where each part begins, and where the last one ends.
    """
    bounds = np.arange(len(values) + 1) if bounds is None else bounds
    held, wide = values.tobytes(), values.itemsize * (values.size // max(len(values), 1))
    at = (bounds * wide).tolist()
    return [held[begin:end] for begin, end in itertools.pairwise(at)]


def _readers(cells: np.ndarray, positions: int) -> tuple[np.ndarray, np.ndarray]:
    """For each position of a source the positions that see it, and as which member of their
    family, each ``(positions, most)``; -1: no more.
    """
    flat = cells.reshape(-1)
    order = np.argsort(flat, kind="stable")[(flat < 0).sum() :]
    read = flat[order]
    counts = np.bincount(read, minlength=positions)
    column = np.arange(len(read)) - (np.cumsum(counts) - counts)[read]
    found = np.full((2, positions, int(counts.max(initial=0))), -1)
    found[:, read, column] = np.divmod(order, cells.shape[1])
    return found[0], found[1]


def _moves(cells: np.ndarray) -> np.ndarray:
    """Number of how far from each position it sees, offset by offset, equal ones the same; what is
    outside is taken to be as far as elsewhere.
    """
    inside = cells >= 0
    far = np.where(inside, cells - np.arange(len(cells))[:, None], 0)
    far = np.where(inside, far, far[inside.argmax(0), np.arange(cells.shape[1])])
    numbers = np.unique(far, axis=0, return_inverse=True)[1].reshape(-1)
    return numbers.astype(np.uint8 if numbers.max(initial=0) < 1 << 8 else np.int32)


def _repeated(values: np.ndarray, wide: int) -> np.ndarray:
    return values if wide == 1 else np.repeat(values, wide, axis=1)


def _tiled(values: np.ndarray, wide: int) -> np.ndarray:
    return values if wide == 1 else np.tile(values, (1, wide))
