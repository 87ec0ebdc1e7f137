"""Which pairs of positions each step must visit, in independent units.

A convolution moves both positions by the same offset, so their displacement t - s stays: pairs of
one displacement form a plane that needs no other plane. Strides discard planes, pools couple a few.
Instead of a case for each, needed pairs are found backwards from the output, and units are the
connected components of "pair needs pair". A step that sums over pairs of several displacements (any
pool, a flatten) is a *reduction*: units below add to it one after the other, and what follows waits
for it on the next level.

Layers of one stage look alike, so what is worked out from some pairs and some tables is kept for
all: equal results are one array.
"""

import math
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from npk.recursion.steps import Collapse, Field, Recursion, Term

_CHUNK = 1 << 18  # contributions looked at together
_MANY = 1 << 21  # pairs whose edges are found together: each chunk finds most of them again


class _Once(dict[Hashable, Any]):
    """Values by what they are made of, each made once."""

    def of(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value of a key."""
        if key not in self:
            self[key] = make()
        return self[key]


@dataclass(frozen=True)
class Links:
    """Contributions of one source to one step: row i of the pairs asked for gets weight * V[source]
    * mask overlap(u, v).

    As long as the same pairs are asked for, equal arrays are one object.
    """

    term: Term | None  # None in a field
    source: int | None  # None: V = 1
    pair: np.ndarray  # (rows, k) pair s * positions + t of the source; -1: no contribution
    u: np.ndarray  # (rows, k) place in the row sample's mask
    v: np.ndarray  # (rows, k) place in the column sample's mask
    weight: np.ndarray | float  # (rows, k), or one number

    @property
    def blocks(self) -> np.ndarray | None:
        """Groups that share channels, where the source is a term."""
        return None if self.term is None else self.term.blocks


@dataclass(frozen=True)
class Planes:
    """Needed pairs of every step, their units, and the order of units."""

    recursion: Recursion

    @cached_property
    def pairs(self) -> tuple[np.ndarray, ...]:
        """Needed pairs of each step as sorted numbers ``s * positions + t``; equal ones are one
        array.
        """
        steps, once = self.recursion.steps, _Once()
        # what later steps need, each list but once
        needs: list[dict[int, np.ndarray]] = [{} for _ in steps]
        needs[-1][0] = np.arange(steps[-1].positions ** 2)
        # the last: outside
        marks = {step.positions: np.zeros(step.positions**2 + 1, bool) for step in steps}
        found: list[np.ndarray] = []
        for number in range(len(steps) - 1, -1, -1):
            pairs = _first_equal(
                _union(list(needs[number].values()), marks[steps[number].positions]), found
            )
            found.append(pairs)
            for source, term, cells in _sources(steps[number]):
                if source is not None:
                    key = (id(pairs), self._content(cells), _wide(term), steps[source].positions)
                    needed = once.of(
                        key,
                        partial(
                            self._needed, number, pairs, term, cells, marks[steps[source].positions]
                        ),
                    )
                    needs[source][id(needed)] = needed
        return tuple(found[::-1])

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """How many reductions lie between the input and each step."""
        level: list[int] = []
        for step in self.recursion.steps:
            inputs = ((source, term) for source, term, _ in _sources(step) if source is not None)
            level.append(
                max(
                    (level[source] + self._couples(step, term) for source, term in inputs),
                    default=0,
                )
            )
        return tuple(level)

    @cached_property
    def reductions(self) -> tuple[int, ...]:
        """Steps to which units add before they run."""
        steps = self.recursion.steps
        return tuple(
            n
            for n, step in enumerate(steps)
            if any(self.defers(n, source, term) for source, term, _ in _sources(step))
        )

    def defers(self, number: int, source: int | None, term: Term | None) -> bool:
        """Whether contributions are added by the source's units, before the step itself runs."""
        return source is not None and (
            self.levels[source] < self.levels[number]
            or self._couples(self.recursion.steps[number], term)
        )

    @cached_property
    def labels(self) -> tuple[np.ndarray, ...]:
        """Unit of each needed pair of each step, equal ones one array. Units are numbered in the
        order in which they must run.
        """
        steps, once = self.recursion.steps, _Once()
        shifts = [
            once.of((id(p), s.grid), partial(_displacements, p, s.grid))
            for p, s in zip(self.pairs, steps, strict=True)
        ]
        present = [
            once.of(id(shift), partial(_present, shift, _span(s.grid)))
            for shift, s in zip(shifts, steps, strict=True)
        ]
        start = np.cumsum([0, *(len(p) for p in present)])
        edges = [np.zeros((2, 0), np.int64)]
        for number, step in enumerate(steps):
            for source, term, cells in _sources(step):
                if source is not None and not self.defers(number, source, term):
                    key = (
                        id(shifts[number]),
                        id(present[source]),
                        self._content(cells),
                        _wide(term),
                        steps[source].grid,
                    )
                    found = once.of(
                        key, partial(self._edges, number, shifts[number], present, source, cells)
                    )
                    edges.append(found + start[[number, source]][:, None])
        rows, cols = np.concatenate(edges, axis=1)
        matrix = coo_matrix(
            (np.ones(len(rows), np.int8), (rows, cols)), shape=(start[-1], start[-1])
        )
        units = self._in_order(
            np.split(connected_components(matrix, directed=False)[1], start[1:-1])
        )
        return tuple(
            once.of((id(shift), unit.tobytes()), partial(_spread, unit, found, shift))
            for unit, found, shift in zip(units, present, shifts, strict=True)
        )

    @cached_property
    def ordered(self) -> tuple[np.ndarray, ...]:
        """Needed pairs of each step, unit after unit; equal ones are one array."""
        once, small = (
            _Once(),
            np.uint16 if max(label.max(initial=0) for label in self.labels) < 1 << 16 else np.int32,
        )
        sort: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda p, label: p[  # noqa: E731
            np.argsort(label.astype(small), kind="stable")
        ]
        return tuple(
            once.of((id(p), id(label)), partial(sort, p, label))
            for p, label in zip(self.pairs, self.labels, strict=True)
        )

    @cached_property
    def bounds(self) -> tuple[np.ndarray, ...]:
        """Where each unit begins among the ordered pairs of each step, ``(units + 1,)``; equal ones
        are one array.
        """
        once, units = _Once(), int(max(label.max(initial=0) for label in self.labels)) + 1
        ends: Callable[[np.ndarray], np.ndarray] = lambda label: np.cumsum(  # noqa: E731
            [0, *np.bincount(label, minlength=units)]
        )
        return tuple(once.of(id(label), partial(ends, label)) for label in self.labels)

    @cached_property
    def ranks(self) -> tuple[np.ndarray, ...]:
        """Number of each pair among the ordered pairs, ``(positions**2,)`` a step; -1 where not
        needed; equal ones are one array.
        """
        once, steps = _Once(), self.recursion.steps
        return tuple(
            once.of((id(p), s.positions), partial(_ranked, p, s.positions**2))
            for p, s in zip(self.ordered, steps, strict=True)
        )

    def cells(self) -> int:
        """Pairs visited by all steps together, group by group: the cost of one pair of samples in
        cell-layers.
        """
        return sum(
            len(pairs) * step.groups
            for pairs, step in zip(self.pairs, self.recursion.steps, strict=True)
        )

    def links(self, number: int, pairs: np.ndarray) -> Iterator[Links]:
        """All contributions to some pairs of a step."""
        step, known = self.recursion.steps[number], self._recent(number, pairs)
        s, t = known.of("ends", lambda: _ends(pairs, step.positions))
        for source, term, cells in _sources(step):
            side = self.recursion.steps[source].positions if source is not None else 1
            places, wide = (cells, 1) if term is None else (term.places, term.family)
            pair = known.of(
                ("pair", self._content(cells), side, wide),
                lambda: _sums(*_addends(cells, side), s, t, wide),  # noqa: B023
            )
            key = (self._content(places), wide)
            u = known.of(("u", *key), lambda: _rows(places.astype(np.int32)[s], wide))  # noqa: B023
            v = known.of(("v", *key), lambda: _cols(places.astype(np.int32)[t], wide))  # noqa: B023
            key = () if term is None else (self._content(cells), self._content(term.weights))
            weight = known.of(("weight", *key), partial(_weight, term, s, t))
            yield Links(term, source, pair, u, v, weight)

    def in_chunks(self, number: int, pairs: np.ndarray) -> Iterator[tuple[slice, Links]]:
        """The contributions to many pairs, some at a time, with the pairs they belong to."""
        wide = max(
            (
                cells.shape[1] * _wide(term)
                for _, term, cells in _sources(self.recursion.steps[number])
            ),
            default=1,
        )
        for here in _slices(len(pairs), wide):
            yield from ((here, links) for links in self.links(number, pairs[here]))

    def _couples(self, step: Collapse | Field, term: Term | None) -> bool:
        """Whether a step sums over pairs of several displacements of a source."""
        if isinstance(step, Field):
            return step.positions == 1 and len(step.taps) > 1
        return term is not None and term.family > 1

    def _needed(
        self,
        number: int,
        pairs: np.ndarray,
        term: Term | None,
        cells: np.ndarray,
        marks: np.ndarray,
    ) -> np.ndarray:
        """The pairs of a source that some pairs of a step need."""
        step = self.recursion.steps[number]
        first, second = _addends(cells, math.isqrt(len(marks) - 1))
        for here in _slices(len(pairs), cells.shape[1] * _wide(term)):
            marks[_sums(first, second, *_ends(pairs[here], step.positions), _wide(term))] = True
        return _listed(marks)

    def _edges(
        self,
        number: int,
        shift: np.ndarray,
        present: list[np.ndarray],
        source: int,
        cells: np.ndarray,
    ) -> np.ndarray:
        """Which displacements need which ones of a source in the same unit, ``(2, edges)``, counted
        among those present.
        """
        step, grid = self.recursion.steps[number], self.recursion.steps[source].grid
        place, middle = _coordinate(grid)
        inside = cells >= 0
        looked = np.where(inside, place[cells], 0)
        first, second = (
            np.where(inside, a, -2 * _span(grid)).astype(np.int32).T.copy()
            for a in (middle - looked, looked)
        )
        found = []
        for here in _slices(len(shift), 1, _MANY):
            s, t = _ends(self.pairs[number][here], step.positions)
            found += [
                _distinct(shift[here], a[s] + b[t]) for a, b in zip(first, second, strict=True)
            ]
        ends = np.concatenate([np.zeros((2, 0), np.int64), *found], axis=1)
        return np.stack(
            [
                np.searchsorted(present[n], end)
                for n, end in zip((number, source), ends, strict=True)
            ]
        )

    def _in_order(self, components: list[np.ndarray]) -> list[np.ndarray]:
        """Number components in the order of their last level: unit of each displacement of each
        step.
        """
        when = np.zeros(max((int(c.max(initial=-1)) for c in components), default=-1) + 1, np.int64)
        for component, level in zip(components, self.levels, strict=True):
            when[component] = np.maximum(when[component], level)
        rank = np.empty(len(when), np.int32)
        rank[np.argsort(when, kind="stable")] = np.arange(len(when))
        return [rank[component] for component in components]

    @cached_property
    def _numbers(self) -> dict[int, int]:
        return {}

    @cached_property
    def _known_contents(self) -> _Once:
        return _Once()

    def _content(self, table: np.ndarray) -> int:
        """The same number for equal tables of the recursion."""
        if id(table) not in self._numbers:
            known = self._known_contents
            self._numbers[id(table)] = known.of((table.shape, table.tobytes()), lambda: len(known))
        return self._numbers[id(table)]

    @cached_property
    def _last(self) -> dict[str, Any]:
        return {}

    def _recent(self, number: int, pairs: np.ndarray) -> _Once:
        """What is known of a list of pairs, as long as it is asked about."""
        last, positions = self._last, self.recursion.steps[number].positions
        if last.get("positions") != positions or not np.array_equal(last["pairs"], pairs):
            last.update(positions=positions, pairs=pairs, once=_Once())
        return last["once"]


def _sources(step: Collapse | Field) -> list[tuple[int | None, Term | None, np.ndarray]]:
    """Source (None: V = 1), term, and the positions that each position sees, ``(positions, k)``."""
    if isinstance(step, Field):
        return [(step.collapse, None, step.cells)]
    return [(term.field, term, term.cells) for term in step.terms]


def _wide(term: Term | None) -> int:
    """Members that each member of a family meets: all in a term, itself in a field."""
    return 1 if term is None else term.family


def _slices(count: int, wide: int, together: int | None = None) -> list[slice]:
    """Cut some pairs of ``wide`` contributions each."""
    size = max(1, (together or _CHUNK) // wide)
    return [slice(chunk * size, (chunk + 1) * size) for chunk in range(-(-count // size))]


def _integers(largest: int) -> type[np.signedinteger]:
    return np.int32 if largest < 1 << 31 else np.int64


def _listed(marks: np.ndarray) -> np.ndarray:
    """Marked pairs in order; clears the marks."""
    found = np.flatnonzero(marks[:-1]).astype(_integers(len(marks)))
    marks[found] = marks[-1] = False
    return found


def _union(lists: list[np.ndarray], marks: np.ndarray) -> np.ndarray:
    for pairs in lists if len(lists) > 1 else []:
        marks[pairs] = True
    return lists[0] if len(lists) == 1 else _listed(marks)


def _first_equal(pairs: np.ndarray, known: list[np.ndarray]) -> np.ndarray:
    return next((k for k in known if k is pairs or np.array_equal(k, pairs)), pairs)


def _ends(pairs: np.ndarray, positions: int) -> tuple[np.ndarray, np.ndarray]:
    s, t = np.divmod(pairs, positions)
    return s.astype(np.intp), t.astype(np.intp)


def _addends(cells: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Tables whose sum over s and t is the pair of cells, negative where one is outside."""
    inside, kind = cells >= 0, _integers(2 * side * side)
    first, second = (np.where(inside, a, -side * side).astype(kind) for a in (cells * side, cells))
    return first, second


def _sums(
    first: np.ndarray, second: np.ndarray, s: np.ndarray, t: np.ndarray, wide: int
) -> np.ndarray:
    """All pairs of cells, -1 where one is outside."""
    total = _rows(first[s], wide) + _cols(second[t], wide)
    return np.maximum(total, -1, out=total)


def _rows(values: np.ndarray, wide: int) -> np.ndarray:
    return values if wide == 1 else np.repeat(values, wide, axis=1)


def _cols(values: np.ndarray, wide: int) -> np.ndarray:
    return values if wide == 1 else np.tile(values, (1, wide))


def _weight(term: Term | None, s: np.ndarray, t: np.ndarray) -> np.ndarray | float:
    if term is None:
        return 1.0
    one = term.weights.flat[0] if term.weights.size else 1.0
    if (term.weights[term.cells >= 0] == one).all():
        return float(one * one)
    return _rows(term.weights[s], term.family) * _cols(term.weights[t], term.family)


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
    s, t = _ends(pairs, len(place))
    return place[t] - place[s] + np.int32(middle)


def _present(shift: np.ndarray, span: int) -> np.ndarray:
    """Displacements that occur, sorted."""
    mask = np.zeros(span, bool)
    mask[shift] = True
    return np.flatnonzero(mask)


def _spread(unit: np.ndarray, present: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The unit of each pair, from those of the displacements that occur."""
    table = np.zeros(int(present.max(initial=-1)) + 1, unit.dtype)
    table[present] = unit
    return table[shift]


def _ranked(ordered: np.ndarray, size: int) -> np.ndarray:
    ranks = np.full(size, -1, np.int32)
    ranks[ordered] = np.arange(len(ordered), dtype=np.int32)
    return ranks


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
