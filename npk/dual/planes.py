"""Which pairs of positions each step must visit, in independent units.

A convolution moves both positions by the same offset, so their displacement t - s stays: pairs of one displacement form a plane that
needs no other plane. Strides discard planes, pools couple a few. Instead of a case for each, needed pairs are found backwards from the
output, and units are the connected components of "pair needs pair". A step that sums over pairs of several displacements (any pool, a
flatten) is a *reduction*: units below add to it one after the other, and what follows waits for it on the next level.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from npk.dual.recursion import Collapse, Field, Recursion, Term

_CHUNK = 1 << 20  # contributions looked at together


@dataclass(frozen=True)
class Links:
    """Contributions of one source to one step: row i of the pairs asked for gets weight * V[source] * mask overlap(u, v)."""

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
        """Needed pairs of each step as sorted numbers ``s * positions + t``."""
        steps = self.recursion.steps
        need = [np.zeros(step.positions**2, bool) for step in steps]
        need[-1][:] = True
        for number in range(len(steps) - 1, -1, -1):
            for _, links in self.in_chunks(number, np.flatnonzero(need[number])):
                if links.source is not None:
                    need[links.source][links.pair[links.pair >= 0]] = True
        return tuple(np.flatnonzero(n) for n in need)

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """How many reductions lie between the input and each step."""
        level: list[int] = []
        for step in self.recursion.steps:
            level.append(max((level[source] + self._couples(step, term) for source, term in _sources(step)), default=0))
        return tuple(level)

    @cached_property
    def reductions(self) -> tuple[int, ...]:
        """Steps to which units add before they run."""
        steps = self.recursion.steps
        return tuple(n for n, step in enumerate(steps) if any(self.defers(n, source, term) for source, term in _sources(step)))

    def defers(self, number: int, source: int | None, term: Term | None) -> bool:
        """Whether contributions are added by the source's units, before the step itself runs."""
        return source is not None and (self.levels[source] < self.levels[number] or self._couples(self.recursion.steps[number], term))

    @cached_property
    def labels(self) -> tuple[np.ndarray, ...]:
        """Unit of each needed pair of each step. Units are numbered in the order in which they must run."""
        classes = [self._displacements(number) for number in range(len(self.pairs))]
        start = np.cumsum([0] + [int(c.max(initial=-1)) + 1 for c in classes])
        edges = [e for number in range(len(classes)) for e in self._edges(number, classes, start)]
        rows, cols = np.concatenate(edges, axis=1) if edges else np.zeros((2, 0), int)
        matrix = coo_matrix((np.ones(len(rows), np.int8), (rows, cols)), shape=(start[-1], start[-1]))
        component = connected_components(matrix, directed=False)[1]
        when = np.zeros(component.max(initial=-1) + 1, np.int64)
        for number in range(len(classes)):
            np.maximum.at(when, component[start[number] : start[number + 1]], self.levels[number])
        rank = np.empty(len(when), np.int32)
        rank[np.argsort(when, kind="stable")] = np.arange(len(when))
        return tuple(rank[component[start[n] : start[n + 1]]][c] for n, c in enumerate(classes))

    @cached_property
    def ordered(self) -> tuple[np.ndarray, ...]:
        """Needed pairs of each step, unit after unit."""
        return tuple(pairs[np.argsort(label, kind="stable")] for pairs, label in zip(self.pairs, self.labels, strict=True))

    @cached_property
    def bounds(self) -> tuple[np.ndarray, ...]:
        """Where each unit begins among the ordered pairs of each step, ``(units + 1,)``."""
        units = int(max(label.max(initial=0) for label in self.labels)) + 1
        return tuple(np.concatenate([[0], np.cumsum(np.bincount(label, minlength=units))]) for label in self.labels)

    @cached_property
    def ranks(self) -> tuple[np.ndarray, ...]:
        """Number of each pair among the ordered pairs, ``(positions**2,)`` a step; -1 where not needed."""
        found = []
        for step, pairs in zip(self.recursion.steps, self.ordered, strict=True):
            table = np.full(step.positions**2, -1, np.int32)
            table[pairs] = np.arange(len(pairs), dtype=np.int32)
            found.append(table)
        return tuple(found)

    def cells(self) -> int:
        """Pairs visited by all steps together, group by group: the cost of one pair of samples in cell-layers."""
        return sum(len(pairs) * step.groups for pairs, step in zip(self.pairs, self.recursion.steps, strict=True))

    def links(self, number: int, pairs: np.ndarray) -> Iterator[Links]:
        """All contributions to some pairs of a step."""
        step = self.recursion.steps[number]
        s, t = np.divmod(pairs, step.positions)
        if isinstance(step, Collapse):
            yield from (self._term_links(term, s, t) for term in step.terms)
            return
        side = self.recursion.steps[step.collapse].positions
        a, b = step.taps[:, s].T, step.taps[:, t].T
        yield Links(None, step.collapse, np.where((a >= 0) & (b >= 0), a * side + b, -1), a, b, 1.0)

    def in_chunks(self, number: int, pairs: np.ndarray) -> Iterator[tuple[slice, Links]]:
        """The contributions to many pairs, some at a time, with the pairs they belong to."""
        step = self.recursion.steps[number]
        wide = len(step.taps) if isinstance(step, Field) else max((term.family**2 for term in step.terms), default=1)
        size = max(1, _CHUNK // wide)
        for chunk in range(-(-len(pairs) // size)):
            here = slice(chunk * size, (chunk + 1) * size)
            yield from ((here, links) for links in self.links(number, pairs[here]))

    def _couples(self, step: Collapse | Field, term: Term | None) -> bool:
        """Whether a step sums over pairs of several displacements of a source."""
        if isinstance(step, Field):
            return step.positions == 1 and len(step.taps) > 1
        return term is not None and term.family > 1

    def _displacements(self, number: int) -> np.ndarray:
        """Displacement t - s of each needed pair, as a small number: cells of one displacement may share a unit without harm."""
        step = self.recursion.steps[number]
        s, t = np.divmod(self.pairs[number], step.positions)
        found = np.zeros(len(s), np.int64)
        for side, a, b in zip(step.grid, _coordinates(s, step.grid), _coordinates(t, step.grid), strict=True):
            found = found * (2 * side - 1) + b - a + side - 1
        present = np.zeros(int(found.max(initial=-1)) + 1, bool)
        present[found] = True
        return (np.cumsum(present, dtype=np.int32) - 1)[found]

    def _edges(self, number: int, classes: list[np.ndarray], start: np.ndarray) -> list[np.ndarray]:
        """Pairs of classes of which one needs the other in the same unit."""
        found = []
        for here, links in self.in_chunks(number, self.pairs[number]):
            if links.source is None or self.defers(number, links.source, links.term):
                continue
            own = np.broadcast_to(classes[number][here][:, None], links.pair.shape)[links.pair >= 0]
            place = np.searchsorted(self.pairs[links.source], links.pair[links.pair >= 0])
            ends = _distinct(own, classes[links.source][place])
            found.append(ends + np.array([[start[number]], [start[links.source]]]))
        return found

    def _term_links(self, term: Term, s: np.ndarray, t: np.ndarray) -> Links:
        side = self.recursion.steps[term.field].positions if term.field is not None else 1
        both = lambda table: (table[s][:, :, None], table[t][:, None, :])  # noqa: E731
        flat = lambda value: np.ascontiguousarray(np.broadcast_to(value, shape)).reshape(len(s), shape[1] * shape[2])  # noqa: E731
        (a, b), (u, v), (w, x) = both(term.cells), both(term.places), both(term.weights)
        shape = (len(s), a.shape[1], b.shape[2])
        pair = flat(np.where((a >= 0) & (b >= 0), a * side + b, -1))
        one = term.weights.flat[0] if term.weights.size else 1.0
        weight = float(one * one) if (term.weights[term.cells >= 0] == one).all() else flat(w * x)
        return Links(term, term.field, pair, flat(u), flat(v), weight)


def _sources(step: Collapse | Field) -> list[tuple[int, Term | None]]:
    if isinstance(step, Field):
        return [(step.collapse, None)]
    return [(term.field, term) for term in step.terms if term.field is not None]


def _coordinates(flat: np.ndarray, grid: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    return np.unravel_index(flat, grid) if grid else ()


def _distinct(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distinct columns of two rows of small non-negative integers."""
    side = int(second.max(initial=0)) + 1
    return np.stack(np.divmod(np.unique(first.astype(np.int64) * side + second), side))
