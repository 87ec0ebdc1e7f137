"""Which pairs of positions each step must visit, and what it adds up there.

Needed pairs are found backwards from the output. Layers of one stage look alike, so lists of pairs
and tables have numbers, equal ones the same: what is worked out from them is worked out once.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from npk.recursion.steps import Collapse, Field, Recursion, Term

_CHUNK = 1 << 18  # contributions looked at together


@dataclass(frozen=True)
class Links:
    """Contributions of one source to some pairs of a step: row i gets weight * V[source] * mask
    overlap(u, v). A field has no mask, and the pair in the place of u and v.
    """

    pair: np.ndarray  # (rows, k) pair s * positions + t of the source; -1: no contribution
    u: np.ndarray  # (rows, k) place in the row sample's mask
    v: np.ndarray  # (rows, k) place in the column sample's mask
    weight: np.ndarray | float  # (rows, k), or one number


@dataclass(frozen=True)
class Inflow:
    """What a step adds up of one source.

    ``source``: step that computes V, or ``None`` for V = 1; ``positions``: of its grid. ``term``:
    ``None`` in a field. ``cells``: the positions that each position sees, ``(positions, k)``.
    ``tables``: numbers of all its tables, equal ones the same. ``deferred``: whether the source's
    units add their contributions, before the step itself runs.
    """

    source: int | None
    positions: int
    term: Term | None
    cells: np.ndarray
    tables: tuple[int, ...]
    deferred: bool

    @property
    def family(self) -> int:
        """Members that each member of a family meets: all in a term, itself in a field."""
        return 1 if self.term is None else self.term.family

    @cached_property
    def weight(self) -> float | None:
        """The weight of all contributions, where they have one."""
        if self.term is None:
            return 1.0
        weights = self.term.weights
        one = weights.flat[0] if weights.size else 1.0
        return float(one * one) if (weights[self.cells >= 0] == one).all() else None

    def links(self, pairs: np.ndarray) -> Links:
        """The contributions to some pairs of the step."""
        s, t = ends(pairs, len(self.cells))
        pair = self.pairs(s, t)
        if self.term is None:
            return Links(pair, pair, pair, 1.0)
        u, v = _rows(self.places[s], self.family), _cols(self.places[t], self.family)
        return Links(pair, u, v, self.weights(s, t) if self.weight is None else self.weight)

    def pairs(self, s: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Pairs of the source that the pairs (s, t) see, ``(rows, k)``; -1: none."""
        return _sums(*self._addends, s, t, self.family)

    @cached_property
    def _addends(self) -> tuple[np.ndarray, np.ndarray]:
        """Tables whose sum over s and t is the pair of cells, negative where one is outside."""
        inside, side = self.cells >= 0, self.positions
        parts, kind = (self.cells * side, self.cells), integers(2 * side * side)
        first, second = (np.where(inside, part, -side * side).astype(kind) for part in parts)
        return first, second

    @cached_property
    def places(self) -> np.ndarray:
        """Places in a mask that each position sees, ``(positions, k)``."""
        assert self.term is not None  # a field has no mask
        return np.ascontiguousarray(self.term.places, np.int32)

    def weights(self, s: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Weight of each contribution to the pairs (s, t), ``(rows, k)``."""
        assert self.term is not None
        weights = self.term.weights
        return _rows(weights[s], self.family) * _cols(weights[t], self.family)

    def chunks(self, pairs: np.ndarray) -> Iterator[np.ndarray]:
        """Some of many pairs at a time."""
        together = _CHUNK // (self.cells.shape[1] * self.family)
        return (pairs[here] for here in slices(len(pairs), together))

    def mark(self, pairs: np.ndarray, marks: np.ndarray) -> None:
        """Mark the pairs of the source that some pairs of the step need."""
        first, second = self._addends
        if len(pairs) == len(self.cells) ** 2:
            _mark_all(self.cells, self.family, marks)
            return
        if self.family == 1 and len(pairs) > len(self.cells) * self.cells.shape[1]:
            # the offset that leaves the grid least comes first: often it needs all that there is
            for column in np.argsort((self.cells < 0).sum(0), kind="stable"):
                total = added(pairs, first[:, column], second[:, column])
                marks[np.maximum(total, -1, out=total)] = True
                if marks[:-1].all():
                    return
            return
        for some in self.chunks(pairs):
            marks[_sums(first, second, *ends(some, len(self.cells)), self.family)] = True


@dataclass(frozen=True)
class NeededStep:
    """A step with the pairs that it must visit.

    ``level``: how many reductions lie between the input and the step. ``pairs``: sorted numbers
    ``s * positions + t``; ``number``: of this list, the same for equal ones.
    """

    step: Collapse | Field
    level: int
    inflows: tuple[Inflow, ...]
    number: int
    pairs: np.ndarray

    @property
    def reduces(self) -> bool:
        """Whether units add to it before it runs."""
        return any(inflow.deferred for inflow in self.inflows)


def needed_steps(recursion: Recursion) -> tuple[NeededStep, ...]:
    """The steps of a recursion, each with the pairs that later ones need."""
    steps, (levels, inflows) = recursion.steps, _inflows(recursion)
    lists: list[np.ndarray] = [np.arange(steps[-1].positions ** 2)]
    needs: list[set[int]] = [*(set() for _ in steps[:-1]), {0}]
    # the last: outside
    marks = {step.positions: np.zeros(step.positions**2 + 1, bool) for step in steps}
    known: dict[tuple[int, ...], int] = {}
    found = []
    for n in range(len(steps) - 1, -1, -1):
        number = _union(needs[n], lists, marks[steps[n].positions])
        found.append(NeededStep(steps[n], levels[n], inflows[n], number, lists[number]))
        for inflow in inflows[n]:
            if inflow.source is not None:
                key = (number, inflow.tables[0], inflow.family, inflow.positions)
                if key not in known:
                    inflow.mark(lists[number], marks[inflow.positions])
                    known[key] = _first_equal(_listed(marks[inflow.positions]), lists)
                needs[inflow.source].add(known[key])
    return tuple(found[::-1])


def _inflows(recursion: Recursion) -> tuple[list[int], list[tuple[Inflow, ...]]]:
    """Level and inflows of each step."""
    numbers: dict[tuple, int] = {}
    levels: list[int] = []
    found = []
    for step in recursion.steps:
        reads = _reads(step)
        below = [levels[n] + _couples(step, term) for n, term, _ in reads if n is not None]
        levels.append(max(below, default=0))
        found.append(
            tuple(
                Inflow(
                    n,
                    1 if n is None else recursion.steps[n].positions,
                    term,
                    tables[0],
                    tuple(numbers.setdefault((a.shape, a.tobytes()), len(numbers)) for a in tables),
                    n is not None and levels[n] < levels[-1],
                )
                for n, term, tables in reads
            )
        )
    return levels, found


def _reads(step: Collapse | Field) -> list[tuple[int | None, Term | None, tuple[np.ndarray, ...]]]:
    """Source, term and tables: the positions that each position sees first."""
    if isinstance(step, Field):
        return [(step.collapse, None, (np.ascontiguousarray(step.taps.T),))]
    return [(term.field, term, (term.cells, term.places, term.weights)) for term in step.terms]


def _couples(step: Collapse | Field, term: Term | None) -> bool:
    """Whether a step sums over pairs of several displacements of a source."""
    if isinstance(step, Field):
        return step.positions == 1 and len(step.taps) > 1
    return term is not None and term.family > 1


def slices(count: int, size: int) -> list[slice]:
    """Cut some pairs."""
    size = max(1, size)
    return [slice(chunk * size, (chunk + 1) * size) for chunk in range(-(-count // size))]


def integers(largest: int) -> type[np.signedinteger]:
    """The shorter kind of integers that holds all up to one."""
    return np.int32 if largest < 1 << 31 else np.int64


def _mark_all(cells: np.ndarray, family: int, marks: np.ndarray) -> None:
    """Mark what all pairs of positions need: those of all cells that they see, or that they see as
    one member of a family.
    """
    both = marks[:-1].reshape(-1, math.isqrt(len(marks)))
    for seen in [cells] if family > 1 else cells[:, np.argsort((cells < 0).sum(0))].T:
        one = np.zeros(len(both), bool)
        one[seen[seen >= 0]] = True
        both[one] |= one
        if marks[:-1].all():
            return


def _listed(marks: np.ndarray) -> np.ndarray:
    """Marked pairs in order; clears the marks."""
    kind, whole = integers(len(marks)), bool(marks[:-1].all())
    found = np.arange(len(marks) - 1, dtype=kind) if whole else np.flatnonzero(marks[:-1])
    marks[slice(None) if whole else found] = marks[-1] = False
    return found.astype(kind, copy=False)


def _union(needs: set[int], lists: list[np.ndarray], marks: np.ndarray) -> int:
    """Number of the list of all pairs of some lists."""
    if len(needs) == 1:
        return next(iter(needs))
    for number in needs:
        marks[lists[number]] = True
    return _first_equal(_listed(marks), lists)


def _first_equal(pairs: np.ndarray, lists: list[np.ndarray]) -> int:
    """Number of the list that is equal; a new list is added."""
    same = (number for number, known in enumerate(lists) if np.array_equal(known, pairs))
    number = next(same, len(lists))
    if number == len(lists):
        lists.append(pairs)
    return number


def begins(pairs: np.ndarray, positions: int) -> np.ndarray:
    """Where the pairs of each s begin in a list, ``(positions + 1,)``."""
    if len(pairs) == positions**2:  # all there are, in order
        return np.arange(0, len(pairs) + 1, positions)
    return np.searchsorted(pairs, np.arange(positions + 1) * positions)


def ranges(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """``count`` whole numbers from each first one on, one range after the other."""
    return np.repeat(first - (np.cumsum(count) - count), count) + np.arange(count.sum())


def ends(pairs: np.ndarray, positions: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions s and t of pairs."""
    s = pairs // positions
    return s.astype(np.intp), (pairs - s * positions).astype(np.intp)


def added(pairs: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """first[s] + second[t] for each pair."""
    if len(pairs) == len(first) ** 2:  # all there are, in order
        return (first[:, None] + second).reshape(-1)
    found = [np.zeros(0, np.result_type(first, second))]
    for some in slices(len(pairs), _CHUNK):
        s, t = ends(pairs[some], len(first))
        found.append(first[s] + second[t])
    return np.concatenate(found)


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
