"""Index tables of contributions, unit by unit.

All steps that look alike and read alike share a *cut*: what one source gives to one step. Most units
are one another moved: a table of cells is made once for all whose positions, and whose padding, are
the same, and only the places in the masks are their own.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from npk.backends.program.boxes import find_runs
from npk.backends.program.program import Draft
from npk.recursion.needed import Inflow, ends
from npk.recursion.planes import PlannedStep

NOWHERE = -1


class Place(NamedTuple):
    """Where the tables and weights of a cut begin in one unit; -1: none.

    ``targets``: of the sums that contributions to a reduction go to. ``added``: number of
    contributions to a reduction. ``whole``: whether all have a place in the mask. ``runs``: of a
    field, table and number of the runs of windows that share columns, if any.
    """

    pair: int
    u: int = NOWHERE
    v: int = NOWHERE
    weight: int = NOWHERE
    targets: int = NOWHERE
    added: int = 0
    whole: bool = False
    runs: tuple[int, int] | None = None

    @property
    def look(self) -> tuple:
        """What other units must have in common with this one to have the same operations."""
        own = self.pair if self.targets == NOWHERE else NOWHERE
        return own, self.runs, self.whole, self.added


class Ends(NamedTuple):
    """The pairs (s, t) of a look in one unit. ``moved``: number of the list of s as it is moved to
    begin at 0, equal ones the same. ``first``: where it begins. ``once``: whether each s begins one
    pair at most. ``pairs``: as numbers.
    """

    s: np.ndarray
    t: np.ndarray
    moved: int
    first: int
    once: bool
    pairs: np.ndarray


@dataclass
class Tables:
    """What the cuts of a program share: the draft with its tables, and the pairs of a unit."""

    draft: Draft
    unit: int = -1
    lists: dict[bytes, int] = field(default_factory=dict)
    _ends: dict[int, Ends] = field(default_factory=dict)  # of this unit, by look
    _rows: dict[tuple[int, ...], int] = field(default_factory=dict)  # tables of u, by list of s
    _cols: dict[tuple[int, ...], int] = field(default_factory=dict)  # of this unit
    # by place and shape of the table
    _runs: dict[tuple[int, ...], tuple[int, int] | None] = field(default_factory=dict)

    def enter(self, unit: int) -> None:
        """Go on to a unit."""
        self.unit = unit
        self._ends.clear()
        self._cols.clear()

    def ends(self, step: PlannedStep) -> Ends:
        """Positions of the pairs of a step in this unit."""
        if step.look not in self._ends:
            pairs = step.ordered[step.bounds[self.unit] : step.bounds[self.unit + 1]]
            s, t = ends(pairs, step.step.positions)
            first = int(s[0]) if len(s) else 0
            moved, once = (s - first).astype(np.int32), bool((s[1:] > s[:-1]).all())
            number = self.lists.setdefault(moved.tobytes(), len(self.lists))
            self._ends[step.look] = Ends(s, t, number, first, once, pairs)
        return self._ends[step.look]

    def windows(self, pair: np.ndarray) -> tuple[int, tuple[int, int] | None]:
        """Table of a field's windows; table and number of runs, where columns can be shared."""
        key = (table := self.draft.table(pair), *pair.shape)
        if key not in self._runs:
            found = find_runs(pair)
            self._runs[key] = found and (self.draft.table(found[0]), found[1])
        return table, self._runs[key]

    def in_mask(self, inflow: Inflow, step: PlannedStep, ends: Ends) -> tuple[int, int]:
        """Tables of u and of v."""
        row = inflow.tables[1], inflow.family, ends.moved, ends.first
        if row not in self._rows:
            self._rows[row] = self.draft.table(_repeated(inflow.places[ends.s], inflow.family))
        col = inflow.tables[1], inflow.family, step.look
        if col not in self._cols:
            self._cols[col] = self.draft.table(_tiled(inflow.places[ends.t], inflow.family))
        return self._rows[row], self._cols[col]


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
        self.masked = is_masked(inflow)
        self.k = inflow.cells.shape[1] * inflow.family
        self.sure = self.masked and bool((inflow.places >= 0).all())
        self.moves, self.inside = _moves(inflow.cells), np.packbits(inflow.cells >= 0, axis=1)
        # whether all positions see alike, and none sees the outside: then no pair need tell
        self.even = bool((self.moves == self.moves[:1]).all())
        self.open = bool((inflow.cells >= 0).all())
        self.known: dict[tuple, tuple[int, tuple[int, int] | None]] = {}

    def place(self) -> Place:
        """Its tables in the unit that the tables have come to."""
        ends, inflow = self.tables.ends(self.step), self.inflow
        key = self._key(ends)
        if key not in self.known:
            self.known[key] = self._pairs(ends)
        pair, runs = self.known[key]
        weight = NOWHERE
        if inflow.weight is None:
            weight = self.tables.draft.weight(inflow.weights(ends.s, ends.t))
        if not self.masked:
            return Place(pair, weight=weight, runs=runs)
        u, v = self.tables.in_mask(inflow, self.step, ends)
        return Place(pair, u, v, weight, whole=self.sure or self._is_whole(ends))

    def _is_whole(self, ends: Ends) -> bool:
        return all(bool((self.inflow.places[a] >= 0).all()) for a in (ends.s, ends.t))

    def _key(self, ends: Ends) -> tuple:
        """Equal where the table of pairs is. In one plane s says which pair it is; what it sees
        depends on how far from s that is, and on the padding around both ends.
        """
        if self.source is None:
            if self.open:
                return (len(ends.pairs),)
            return (self.inside[ends.s].tobytes(), self.inside[ends.t].tobytes())
        of = self.tables.ends(self.source)
        if of.once:
            ways = b"" if self.even else self.moves[ends.s].tobytes()
            both = b"" if self.open else (self.inside[ends.s] & self.inside[ends.t]).tobytes()
            return (ends.moved, of.moved, of.first - ends.first, ways, both)
        return (ends.pairs.tobytes(), of.pairs.tobytes())

    def _pairs(self, ends: Ends) -> tuple[int, tuple[int, int] | None]:
        """Table of the numbers of the source's cells in this unit, and of runs."""
        pair = self.inflow.pairs(ends.s, ends.t)
        if self.source is not None:
            own = self.source.ranks[pair] - self.source.bounds[self.tables.unit]
            pair = np.where(pair >= 0, own, -1).astype(np.int32)
        return (
            self.tables.windows(pair)
            if self.inflow.term is None
            else (self.tables.draft.table(pair), None)
        )


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
        self.masked, self.k = is_masked(inflow), 1
        self.positions, self.members = _readers(inflow.cells, source.step.positions)

    def place(self) -> Place:
        """Its tables in the unit that the tables have come to: contributions in the order of the
        sums that they go to.
        """
        ends, table = self.tables.ends(self.source), self.tables.draft.table
        pair, target, s, a, t, b = self._contributions(ends)
        place = Place(table(pair), targets=table(target), added=len(pair))
        if self.masked:
            places = self.inflow.places
            place = place._replace(u=table(places[s, a]), v=table(places[t, b]))
        if self.inflow.weight is None:
            assert self.inflow.term is not None
            weights = self.inflow.term.weights
            place = place._replace(weight=self.tables.draft.weight(weights[s, a] * weights[t, b]))
        return place

    def _contributions(self, ends: Ends) -> list[np.ndarray]:
        """Cell and sum of each, and position and member of the family that reads each end."""
        count, several = self.inflow.cells.shape
        rows, cols = self.positions[ends.s][:, :, None], self.positions[ends.t][:, None, :]
        both = (rows >= 0) & (cols >= 0)
        target = self.step.ranks[np.where(both, rows * count + cols, 0)]
        fit = both & (target >= 0)
        if self.inflow.term is None:  # a layer: the same weight at both ends
            fit &= self.members[ends.s][:, :, None] == self.members[ends.t][:, None, :]
        if fit.shape[1:] == (1, 1) and fit.all():  # each pair is read once
            pair, target = np.arange(len(fit)), target[:, 0, 0]
            rows, cols = rows[:, 0, 0], cols[:, 0, 0]
            a, b = self.members[ends.s, 0], self.members[ends.t, 0]
        else:
            pair, x, y = np.nonzero(fit)
            target, s, t = target[pair, x, y], ends.s[pair], ends.t[pair]
            rows, cols = self.positions[s, x], self.positions[t, y]
            a, b = self.members[s, x], self.members[t, y]
        found, rank = (
            [pair, target, rows, a, cols, b],
            (target * np.int64(several) + a) * several + b,
        )
        if (rank[1:] > rank[:-1]).all():  # in order, as those of a pool over all positions
            return found
        order = np.argsort(rank)
        return [x[order] for x in found]


def is_masked(inflow: Inflow) -> bool:
    """Whether contributions have a mask."""
    return inflow.term is not None and inflow.term.mask is not None


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
