"""Planes -> Program: the steps of a recursion as operations, unit by unit.

Each unit's cells live in slots that are freed after their last use. Index tables that are equal
(all planes of a circular layer look alike) are kept once. Slot 0 holds ones: the field V = 1.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from npk.backends.program.boxes import WIDTH, find_runs
from npk.backends.program.chains import Chains, Step
from npk.backends.program.program import BOX, CLEAR, COLLAPSE, GATHER, LOAD, REDUCE, Draft, Program
from npk.recursion.masks import Mask
from npk.recursion.planes import Links, Planes
from npk.recursion.steps import Collapse, Field, Recursion

_BAND = 2  # collapses that are added up together; with more of them the second core gains less
_BATCH = 1 << 17  # cells of units that are worked out together


def compile_program(recursion: Recursion, hard: Sequence[bool]) -> Program:
    """Lay the steps of a recursion out as operations.

    Args:
        recursion: what to compute.
        hard: for each of its masks whether it is kept in bits.
    """
    return _Compiler(recursion, tuple(hard), Planes(recursion)).run()


@dataclass
class _Slots:
    """First-fit allocation of runs of cells."""

    free: list[tuple[int, int]] = field(default_factory=lambda: [(1, 1 << 62)])
    top: int = 1

    def take(self, count: int) -> int:
        i = next(i for i, (_, size) in enumerate(self.free) if size >= count)
        start, size = self.free[i]
        self.free[i : i + 1] = [(start + count, size - count)]
        self.top = max(self.top, start + count)
        return start

    def give(self, start: int, count: int) -> None:
        merged: list[tuple[int, int]] = []
        for begin, size in sorted([*self.free, (start, count)]):
            if merged and sum(merged[-1]) == begin:
                merged[-1] = (merged[-1][0], merged[-1][1] + size)
            else:
                merged.append((begin, size))
        self.free = merged


@dataclass(frozen=True)
class _Part:
    """Contributions of one source to one step, sorted by the unit that adds them; ``bounds``: where
    each unit begins.

    ``blocks``: group of the step, group of the source, segment of the mask and factor of each pair
    of groups that share channels. ``targets``: in a reduction, the sum that each contribution goes
    to.
    """

    step: int
    links: Links
    pair: np.ndarray  # number of the source's cell in its unit, -1: none
    u: np.ndarray
    v: np.ndarray
    weight: np.ndarray | float
    bounds: np.ndarray
    mask: Mask | None
    blocks: tuple[tuple[int, int, int, float], ...]
    targets: np.ndarray | None = None

    @cached_property
    def source(self) -> int:
        """Number of the source, -1 for V = 1."""
        return -1 if self.links.source is None else self.links.source

    def rows(self, unit: int) -> slice:
        """Contributions of one unit, counted from the first that the part was made for."""
        return slice(self.bounds[unit], self.bounds[unit + 1])


@dataclass
class _Unit:
    """What is known while one unit is laid out: contributions still to be added, first slot of each
    step, groups that hold something.
    """

    unit: int
    pending: dict[int, list[tuple[_Part, slice]]]
    place: dict[int, int] = field(default_factory=dict)
    begun: set[tuple[int, int]] = field(default_factory=set)

    def ready(self, number: int, now: int) -> list[tuple[_Part, slice]]:
        """Take the contributions to a step whose sources come before step ``now``."""
        found = [entry for entry in self.pending[number] if entry[0].source < now]
        self.pending[number] = [entry for entry in self.pending[number] if entry[0].source >= now]
        return found


class _Term(NamedTuple):
    """A term between two groups: its part, group of the step, first columns, segment of the mask,
    factor, rows of the part.
    """

    part: _Part
    into: int
    row: tuple[int, ...]
    segment: int
    scale: float
    rows: slice


def _bands(recursion: Recursion) -> dict[int, tuple[int, ...]]:
    """First of a few collapses of many terms on one grid, and the others: streams of residual
    networks, which read the same fields.
    """
    many = [
        n
        for n, step in enumerate(recursion.steps)
        if isinstance(step, Collapse) and len(step.terms) > 2
    ]
    found: dict[int, tuple[int, ...]] = {}
    for _, stage in itertools.groupby(
        many, lambda n: (recursion.steps[n].grid, recursion.steps[n].groups)
    ):
        for _, band in itertools.groupby(enumerate(stage), lambda entry: entry[0] // _BAND):
            first, *rest = (number for _, number in band)
            found[first] = tuple(rest)
    return found


@dataclass
class _Compiler:
    recursion: Recursion
    hard: tuple[bool, ...]
    planes: Planes
    draft: Draft = field(default_factory=Draft)
    chains: Chains = field(default_factory=Chains)
    # by place and shape of the table
    runs: dict[tuple[int, int, int], tuple[int, int] | None] = field(default_factory=dict)
    # pairs and their numbers
    seen: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    whole: dict[int, bool] = field(default_factory=dict)  # tables without -1, by place

    def run(self) -> Program:
        planes = self.planes
        self.units = len(planes.bounds[0]) - 1
        self.counts = np.diff(np.stack(planes.bounds), axis=1)  # (steps, units)
        self.sums, sums = {}, 0  # first sum of each reduction
        for number in planes.reductions:
            self.sums[number] = sums
            sums += len(planes.pairs[number]) * self.recursion.steps[number].groups
        self.bands, late = _bands(self.recursion), self.deferred()
        slots, result = _Slots(), 0
        for first, last in self.batches():
            own = {
                number: self.parts(number, first, last)
                for number in np.flatnonzero(self.counts[:, first:last].any(1)).tolist()
            }
            for unit in range(first, last):
                result = self.unit(unit, first, own, late, slots)
            self.draft.forget()
            self.seen.clear()
        return self.draft.finished(slots.top, sums, result)

    def batches(self) -> Iterator[tuple[int, int]]:
        """Runs of units whose contributions are worked out together."""
        ends = np.cumsum(self.counts.sum(0)) // _BATCH
        firsts = np.flatnonzero(np.diff(ends, prepend=-1))
        yield from zip(firsts.tolist(), [*firsts[1:].tolist(), self.units], strict=True)

    def parts(self, number: int, first: int, last: int) -> list[_Part]:
        """Contributions to a step's own cells in the units from ``first`` to ``last``."""
        bounds = self.planes.bounds[number][first : last + 1]
        found = []
        for links in self.planes.links(number, self.planes.ordered[number][bounds[0] : bounds[-1]]):
            if self.planes.defers(number, links.source, links.term):
                continue
            pair = (
                links.pair
                if links.source is None
                else self.numbered(links.pair, links.source, number, (first, last))
            )
            mask, blocks = self.blocks(number, links)
            found.append(
                _Part(
                    number,
                    links,
                    pair,
                    links.u,
                    links.v,
                    links.weight,
                    bounds - bounds[0],
                    mask,
                    blocks,
                )
            )
        return found

    def numbered(
        self, pair: np.ndarray, source: int, number: int, units: tuple[int, int]
    ) -> np.ndarray:
        """Pairs of a source as numbers of cells in their units; layers that look alike get one and
        the same array.
        """
        ranks, starts, bounds = (
            self.planes.ranks[source],
            self.planes.bounds[source],
            self.planes.bounds[number],
        )
        key = (id(pair), id(ranks), id(starts), id(bounds))
        if key not in self.seen:
            unit = np.repeat(np.arange(*units), np.diff(bounds[units[0] : units[1] + 1]))
            self.seen[key] = (
                pair,
                np.where(pair >= 0, ranks[pair] - starts[unit][:, None], -1).astype(np.int32),
            )
        return self.seen[key][1]

    def deferred(self) -> dict[int, list[_Part]]:
        """By source: what its units add to reductions."""
        found: dict[int, list[_Part]] = {}
        for number in self.planes.reductions:
            for links in self.planes.links(number, self.planes.ordered[number]):
                if links.source is not None and self.planes.defers(
                    number, links.source, links.term
                ):
                    found.setdefault(links.source, []).append(
                        self.late_part(number, links.source, links)
                    )
        return found

    def late_part(self, number: int, source: int, links: Links) -> _Part:
        """Contributions to a reduction, sorted by the unit of the source's cell and by the sum."""
        flat = np.flatnonzero(links.pair.reshape(-1) >= 0)
        rank = self.planes.ranks[source][links.pair.reshape(-1)[flat]]
        unit = np.searchsorted(self.planes.bounds[source], rank, side="right") - 1
        flat = flat[order := np.argsort(unit, kind="stable")]
        pick: Callable[[np.ndarray], np.ndarray] = lambda values: values.reshape(-1)[flat]  # noqa: E731
        weight = links.weight if isinstance(links.weight, float | int) else pick(links.weight)
        pair, bounds = (
            rank[order] - self.planes.bounds[source][unit[order]],
            np.searchsorted(unit[order], np.arange(self.units + 1)),
        )
        mask, blocks = self.blocks(number, links)
        return _Part(
            number,
            links,
            pair,
            pick(links.u),
            pick(links.v),
            weight,
            bounds,
            mask,
            blocks,
            flat // links.pair.shape[1],
        )

    def unit(
        self,
        unit: int,
        first: int,
        own: dict[int, list[_Part]],
        late: dict[int, list[_Part]],
        slots: _Slots,
    ) -> int:
        """Emit one unit, of a batch that begins at unit ``first``; gives the slot of its last step."""
        used = np.flatnonzero(self.counts[:, unit]).tolist()
        last = {n: n for n in used}
        for n in used:
            # others see only padding in this unit
            last.update({p.links.source: n for p in own[n] if p.links.source in last})
        state = _Unit(
            unit,
            {
                n: [(p, rows) for p in own[n] if p.pair[rows := p.rows(unit - first)].size]
                for n in used
            },
        )
        for n in used:
            band = [
                n,
                *(
                    m
                    for m in self.bands.get(n, ())
                    if m in state.pending and self.counts[m, unit] == self.counts[n, unit]
                ),
            ]
            for m in [m for m in band if m not in state.place]:
                state.place[m] = slots.take(self.cells(m, unit))
                self.begin(m, state)
            if isinstance(self.recursion.steps[n], Field):
                self.sum_up(n, state)
            else:
                self.collapse(band, state)
            for part in late.get(n, ()):
                self.scatter(part, part.rows(unit), state)
            for done in [m for m, when in last.items() if when == n]:
                slots.give(state.place[done], self.cells(done, unit))
        return state.place[used[-1]]

    def cells(self, number: int, unit: int) -> int:
        """Cells of a step in a unit, all groups."""
        return int(self.counts[number, unit]) * self.recursion.steps[number].groups

    def begin(self, number: int, state: _Unit) -> None:
        """A reduction starts from what the units before have added."""
        if number not in self.sums:
            return
        step, count = self.recursion.steps[number], int(self.counts[number, state.unit])
        bias = step.bias if isinstance(step, Field) else 0.0
        for group in range(step.groups):
            first = (
                self.sums[number]
                + group * len(self.planes.pairs[number])
                + int(self.planes.bounds[number][state.unit])
            )
            self.draft.add(
                (LOAD, state.place[number] + group * count, count, 0, 0, 0, first),
                (number, number),
                (1.0, bias),
            )
            state.begun.add((number, group))

    def sum_up(self, number: int, state: _Unit) -> None:
        """A field in one unit: window sums of the collapse, an operation a group."""
        bias = self.recursion.steps[number].bias  # type: ignore[union-attr]
        for part, rows in state.pending[number]:
            (cells, k), came = part.pair[rows].shape, part.source
            table, runs = self.draft.table(part.pair, rows), self.runs_of(part.pair, rows)
            for into, group, _, scale in part.blocks:
                begin, out = (
                    state.place.get(came, 0) + group * int(self.counts[came, state.unit]),
                    state.place[number] + into * cells,
                )
                row = (
                    (GATHER, out, cells, table, k, begin, -1)
                    if runs is None
                    else (BOX, out, runs[1], runs[0], k // WIDTH, begin, -1)
                )
                self.draft.add(row, (number, came), (scale, bias))

    def collapse(self, band: list[int], state: _Unit) -> None:
        """A collapse in one unit: one operation for its terms and for those of the rest of its band
        that are known by now.
        """
        number, first = band[0], len(self.draft.terms)
        ready = sorted(
            (entry for m in band for entry in state.ready(m, number)),
            key=lambda entry: -entry[0].source,
        )
        terms = [term for part, rows in ready for term in self.terms_of(part, rows, state)]
        cells = int(self.counts[number, state.unit])
        for term, (mask, chain, start) in zip(
            terms, self.chains.link([self.step(term) for term in terms]), strict=True
        ):
            owner = (term.part.step, term.into)
            out, fresh = state.place[owner[0]] + term.into * cells, int(owner not in state.begun)
            state.begun.add(owner)
            segment = self.draft.mask(mask) + term.segment if mask else -1
            self.draft.add_term(
                (*term.row, out, fresh, chain, start, segment),
                (term.part.step, term.part.source),
                term.scale,
            )
        self.draft.add((COLLAPSE, 0, cells, first, len(terms), 0, -1), (number, -1))
        for into in range(self.recursion.steps[number].groups):
            if (number, into) not in state.begun:
                self.draft.add(
                    (CLEAR, state.place[number] + into * cells, cells, 0, 0, 0, -1), (number, -1)
                )

    def scatter(self, part: _Part, rows: slice, state: _Unit) -> None:
        """Operations that add to the sums of a reduction."""
        if part.targets is None or part.pair[rows].size == 0:
            return
        targets, steps = self.draft.table(part.targets, rows), (part.step, part.source)
        for term in self.terms_of(part, rows, state):
            first = self.sums[part.step] + term.into * len(self.planes.pairs[part.step])
            self.draft.add(
                (REDUCE, targets, len(part.pair[rows]), len(self.draft.terms), 1, 0, first), steps
            )
            segment = self.draft.mask(part.mask) + term.segment if part.mask else -1
            self.draft.add_term((*term.row, 0, 1, -1, 0, segment), steps, term.scale)

    def terms_of(self, part: _Part, rows: slice, state: _Unit) -> Iterator[_Term]:
        """A term for each block of groups."""
        draft, source = self.draft, part.source
        where, first = draft.table(part.pair, rows), state.place.get(source, 0)
        u, v = (draft.table(part.u, rows), draft.table(part.v, rows)) if part.mask else (-1, -1)
        weight = -1 if isinstance(part.weight, float | int) else draft.weight(part.weight[rows])
        k, cells = (
            1 if part.targets is not None else part.pair.shape[1],
            int(self.counts[source, state.unit]) if source >= 0 else 0,
        )
        for into, group, segment, scale in part.blocks:
            yield _Term(
                part, into, (k, first + group * cells, where, u, v, weight), segment, scale, rows
            )

    def step(self, term: _Term) -> Step:
        """A term as the search for chains sees it: only masks in bits that are read at one place a
        cell can follow each other.
        """
        part, (k, _, _, u, v, weight) = term.part, term.row
        fit = (
            part.mask is not None
            and k == 1
            and weight < 0
            and len(part.mask.segments) == 1
            and self.hard[part.links.term.mask]  # type: ignore
        )
        fit = fit and self.is_whole(u, part.u, term.rows) and self.is_whole(v, part.v, term.rows)
        return Step((part.step, term.into), part.mask, (u, v), fit)

    def is_whole(self, place: int, values: np.ndarray, rows: slice) -> bool:
        """Whether a table is without -1."""
        if place not in self.whole:
            self.whole[place] = bool((values[rows] >= 0).all())
        return self.whole[place]

    def runs_of(self, pair: np.ndarray, rows: slice) -> tuple[int, int] | None:
        """Table and number of runs, where columns of the window can be shared."""
        key = (self.draft.table(pair, rows), pair.shape[1], rows.stop - rows.start)
        if key not in self.runs:
            found = find_runs(pair[rows])
            self.runs[key] = found and (self.draft.table(found[0]), found[1])
        return self.runs[key]

    def blocks(
        self, number: int, links: Links
    ) -> tuple[Mask | None, tuple[tuple[int, int, int, float], ...]]:
        """Mask and blocks of contributions."""
        step, term = self.recursion.steps[number], links.term
        factor = links.weight if isinstance(links.weight, float | int) else 1.0
        if isinstance(step, Field):
            return None, tuple(
                (group, group, 0, factor * step.factor) for group in range(step.groups)
            )
        if term is None or term.mask is None:
            return None, tuple(
                (int(a), int(b), 0, factor * int(n)) for a, b, _, n in (term.blocks if term else ())
            )
        return self.recursion.masks[term.mask], tuple(
            (int(a), int(b), int(s), factor) for a, b, s, _ in term.blocks
        )
