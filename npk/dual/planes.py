"""Which pairs of positions each step must visit, in independent units.

A convolution moves both positions by the same offset, so their displacement t - s stays: pairs of one displacement form a plane that
needs no other plane. Strides discard planes, pools couple a few. Instead of a case for each, needed pairs are found backwards from the
output, and units are the connected components of "pair needs pair". A step on a single position that sums over many pairs (a global
pool, a flatten) is a *reduction*: units add to it one after the other, and what follows waits for it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from npk.dual.recursion import Collapse, Recursion, Term


@dataclass(frozen=True)
class Links:
    """Contributions of one source to one step: row ``cell`` of the step's needed pairs gets weight * V[source] * mask overlap(u, v)."""

    term: Term | None  # None in a field
    source: int | None  # None: V = 1
    cell: np.ndarray  # (rows,) numbers of the step's own cells
    pair: np.ndarray  # (rows, k) pair s * positions + t of the source; -1: no contribution
    u: np.ndarray  # (rows, k) place in the row sample's mask
    v: np.ndarray  # (rows, k) place in the column sample's mask
    weight: np.ndarray | float  # (rows, k), or one number


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
            for links in self._links(number, np.flatnonzero(need[number])):
                if links.source is not None:
                    need[links.source][links.pair[links.pair >= 0]] = True
        return tuple(np.flatnonzero(n) for n in need)

    @cached_property
    def reductions(self) -> frozenset[int]:
        """Steps on one position that sum over pairs of a source with more positions; none if that would tie a knot."""
        steps = self.recursion.steps
        found = {n for n, step in enumerate(steps) if step.positions == 1 and any(steps[s].positions > 1 for s in step.sources)}
        level = self._levels(found)
        straight = all(level[s] == level[n] for n in range(len(steps)) for s in steps[n].sources if not self._defers(found, n, s))
        return frozenset(found) if straight else frozenset()

    @cached_property
    def labels(self) -> tuple[np.ndarray, ...]:
        """Unit of each needed pair of each step. Units are numbered in the order in which they must run."""
        classes = [self._displacements(number) for number in range(len(self.pairs))]
        start = np.cumsum([0] + [c.max(initial=-1) + 1 for c in classes])
        edges = [e for number in range(len(classes)) for e in self._edges(number, classes, start)]
        rows, cols = np.concatenate(edges, axis=1) if edges else np.zeros((2, 0), int)
        matrix = coo_matrix((np.ones(len(rows), np.int8), (rows, cols)), shape=(start[-1], start[-1]))
        component = connected_components(matrix, directed=False)[1]
        level = self._levels(self.reductions)
        when = np.zeros(component.max(initial=-1) + 1, np.int64)
        for number in range(len(classes)):
            np.maximum.at(when, component[classes[number] + start[number]], level[number])
        rank = np.empty(len(when), np.int64)
        rank[np.argsort(when, kind="stable")] = np.arange(len(when))
        return tuple(rank[component[c + start[n]]] for n, c in enumerate(classes))

    @cached_property
    def local(self) -> tuple[np.ndarray, ...]:
        """Number of each pair within its step's cells of its unit, ``(positions**2,)`` a step; -1 where not needed."""
        found = []
        for step, pairs, labels in zip(self.recursion.steps, self.pairs, self.labels, strict=True):
            order = np.argsort(labels, kind="stable")
            first = np.searchsorted(labels[order], labels[order], side="left")
            table = np.full(step.positions**2, -1)
            table[pairs[order]] = np.arange(len(order)) - first
            found.append(table)
        return tuple(found)

    def links(self, number: int) -> list[Links]:
        """All contributions to the needed pairs of a step."""
        return self._links(number, self.pairs[number])

    def defers(self, number: int, source: int | None) -> bool:
        """Whether the contributions of a source are added by the source's units, before the step itself runs."""
        return source is not None and self._defers(self.reductions, number, source)

    def cells(self) -> int:
        """Pairs visited by all steps together: the cost of one pair of samples in cell-layers."""
        return sum(len(p) for p in self.pairs)

    def _defers(self, reductions: set[int] | frozenset[int], number: int, source: int) -> bool:
        return number in reductions and self.recursion.steps[source].positions > 1

    def _levels(self, reductions: set[int] | frozenset[int]) -> list[int]:
        level: list[int] = []
        for number, step in enumerate(self.recursion.steps):
            level.append(max((level[s] + self._defers(reductions, number, s) for s in step.sources), default=0))
        return level

    def _displacements(self, number: int) -> np.ndarray:
        """Displacement t - s of each needed pair, as a small number: cells of one displacement may share a unit without harm."""
        step = self.recursion.steps[number]
        s, t = np.divmod(self.pairs[number], step.positions)
        found = np.zeros(len(s), np.int64)
        for side, a, b in zip(step.grid, _coordinates(s, step.grid), _coordinates(t, step.grid), strict=True):
            found = found * (2 * side - 1) + b - a + side - 1
        return np.unique(found, return_inverse=True)[1].reshape(-1)

    def _edges(self, number: int, classes: list[np.ndarray], start: np.ndarray) -> list[np.ndarray]:
        found = []
        for links in self.links(number):
            if links.source is None or self.defers(number, links.source):
                continue
            table = np.zeros(self.recursion.steps[links.source].positions ** 2, np.int64)
            table[self.pairs[links.source]] = classes[links.source]
            for k in range(links.pair.shape[1]):
                inside = links.pair[:, k] >= 0
                ends = np.stack([classes[number][links.cell[inside]] + start[number], table[links.pair[inside, k]] + start[links.source]])
                found.append(np.unique(ends, axis=1) if ends.shape[1] < 4096 else _distinct(ends))
        return found

    def _links(self, number: int, pairs: np.ndarray) -> list[Links]:
        step = self.recursion.steps[number]
        s, t = np.divmod(pairs, step.positions)
        if isinstance(step, Collapse):
            return [self._term_links(term, s, t) for term in step.terms]
        side = self.recursion.steps[step.collapse].positions
        a, b = step.taps[:, s].T, step.taps[:, t].T
        pair = np.where((a >= 0) & (b >= 0), a * side + b, -1)
        return [Links(None, step.collapse, np.arange(len(pairs)), pair, a, b, 1.0)]

    def _term_links(self, term: Term, s: np.ndarray, t: np.ndarray) -> Links:
        side = self.recursion.steps[term.field].positions if term.field is not None else 1
        both = lambda table: (table[s][:, :, None], table[t][:, None, :])  # noqa: E731
        flat = lambda value: np.ascontiguousarray(np.broadcast_to(value, shape)).reshape(len(s), shape[1] * shape[2])  # noqa: E731
        (a, b), (u, v), (w, x) = both(term.cells), both(term.places), both(term.weights)
        shape = (len(s), a.shape[1], b.shape[2])
        pair = flat(np.where((a >= 0) & (b >= 0), a * side + b, -1))
        weight = flat(w * x)
        used = weight[pair >= 0]
        one = bool(used.size) and bool((used == used[0]).all())
        return Links(term, term.field, np.arange(len(s)), pair, flat(u), flat(v), float(used[0]) if one else weight)


def _coordinates(flat: np.ndarray, grid: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    return np.unravel_index(flat, grid) if grid else ()


def _distinct(ends: np.ndarray) -> np.ndarray:
    """Distinct columns of two rows of non-negative integers."""
    side = int(ends[1].max(initial=0)) + 1
    return np.stack(np.divmod(np.unique(ends[0] * side + ends[1]), side))
