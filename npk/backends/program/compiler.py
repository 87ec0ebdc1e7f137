"""Planes -> Program: the steps of a recursion as operations, unit by unit.

Each unit's cells live in slots that are freed after their last use. Index tables that are equal
(all planes of a circular layer look alike) are kept once. Slot 0 holds ones: the field V = 1.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from npk.backends.program.boxes import WIDTH, find_runs
from npk.backends.program.chains import Chains, Step
from npk.backends.program.program import (
    BOX,
    CLEAR,
    COLLAPSE,
    GATHER,
    LOAD,
    ONCE,
    REDUCE,
    Draft,
    Program,
)
from npk.backends.program.runs import Run, runs_of
from npk.recursion.masks import Mask
from npk.recursion.needed import Inflow, Links
from npk.recursion.planes import PlannedStep, plan_steps
from npk.recursion.steps import Collapse, Field, Recursion, Term

_BAND = 2  # collapses that are added up together; with more of them the second core gains less
_BATCH = 1 << 17  # cells of units that are worked out together


def compile_program(recursion: Recursion, hard: Sequence[bool]) -> Program:
    """Lay the steps of a recursion out as operations.

    Args:
        recursion: what to compute.
        hard: for each of its masks whether it is kept in bits.
    """
    return _Compiler(recursion, tuple(hard), plan_steps(recursion)).run()


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


class _Place(NamedTuple):
    """Where tables and weights of contributions begin, -1: none; ``whole``: whether all of them
    have a place in the mask.
    """

    pair: int
    u: int = -1
    v: int = -1
    weight: int = -1
    targets: int = -1
    whole: bool = False


@dataclass
class _Cut:
    """Contributions of one source to one step, sorted by the unit that adds them: one and the same
    for all that look alike.

    ``links``: a pair is the number of the source's cell in its unit. ``bounds``: where each unit
    begins. ``targets``: in a reduction, the sum that each contribution goes to. ``places``,
    ``windows``: of what is in the program by now.
    """

    links: Links
    bounds: np.ndarray
    targets: np.ndarray | None = None
    places: dict[tuple[int, bool], _Place] = field(default_factory=dict)
    windows: dict[int, tuple[int, tuple[int, int] | None]] = field(default_factory=dict)

    def rows(self, unit: int) -> slice:
        """Contributions of one unit, counted from the first that the cut was made for."""
        return slice(self.bounds[unit], self.bounds[unit + 1])


class _Part(NamedTuple):
    """A cut of a step's contributions with what is the step's own.

    ``runs``: the pairs of groups that share channels.
    """

    step: int
    source: int  # -1 for V = 1
    cut: _Cut
    mask: Mask | None
    runs: tuple[Run, ...]


@dataclass
class _Unit:
    """What is known while one unit is laid out: contributions still to be added, first slot of each
    step, and for each of its groups whether it holds something.
    """

    unit: int
    pending: dict[int, list[tuple[_Part, slice]]]
    place: dict[int, int] = field(default_factory=dict)
    begun: dict[int, bytearray] = field(default_factory=dict)

    def begin(self, number: int, run: Run) -> Iterator[tuple[Run, bool]]:
        """The parts of a run, each with whether its groups hold nothing yet; from now on they do."""
        held = self.begun[number][run.groups]
        ends = [i for i in range(1, run.times) if held[i] != held[i - 1]]
        for first, end in itertools.pairwise([0, *ends, run.times]):
            yield run.part(first, end - first), not held[first]
        self.begun[number][run.groups] = b"\1" * run.times

    def ready(self, number: int, now: int) -> list[tuple[_Part, slice]]:
        """Take the contributions to a step whose sources come before step ``now``."""
        found = [entry for entry in self.pending[number] if entry[0].source < now]
        self.pending[number] = [entry for entry in self.pending[number] if entry[0].source >= now]
        return found


class _Term(NamedTuple):
    """A term of some pairs of groups: its part, the pairs, where it is read (first slot and cells
    of the source's groups, then columns), whether it fits a chain.
    """

    part: _Part
    run: Run
    first: int
    cells: int
    row: tuple[int, ...]
    fit: bool

    def columns(self, run: Run) -> tuple[int, ...]:
        """First columns of the term on some of its pairs."""
        k, *places = self.row
        return (k, self.first + run.group * self.cells, *places)


def _link_of(term: _Term) -> Step:
    """A term as the search for chains sees it: only masks in bits that are read at one place a
    cell can follow each other.
    """
    _, _, u, v, _ = term.row
    owner = term.part.step, term.run.segment  # groups of one segment follow each other together
    return Step(owner, term.part.mask, (u, v), term.fit)


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
    steps: tuple[PlannedStep, ...]
    draft: Draft = field(default_factory=Draft)
    chains: Chains = field(default_factory=Chains)
    # by place and shape of the table
    runs: dict[tuple[int, int, int], tuple[int, int] | None] = field(default_factory=dict)
    whole: dict[int, bool] = field(default_factory=dict)  # tables without -1, by place
    # by looks of step and source, tables and units
    cuts: dict[tuple[tuple[int, ...], ...], _Cut] = field(default_factory=dict)

    def run(self) -> Program:
        self.counts = np.diff([step.bounds for step in self.steps], axis=1)  # (steps, units)
        self.units = self.counts.shape[1]
        self.sums, sums = {}, 0  # first sum of each reduction
        for number, step in enumerate(self.steps):
            if step.reduces:
                self.sums[number] = sums
                sums += len(step.pairs) * step.step.groups
        self.bands, late = _bands(self.recursion), self.deferred()
        masks = zip(self.recursion.masks, self.hard, strict=True)
        self.chained = {mask for mask, hard in masks if hard and len(mask.segments) == 1}
        slots, result = _Slots(), 0
        for first, last in self.batches():
            own = {
                number: self.parts(number, first, last)
                for number in np.flatnonzero(self.counts[:, first:last].any(1)).tolist()
            }
            for unit in range(first, last):
                result = self.unit(unit, first, own, late, slots)
            self.cuts.clear()
        return self.draft.finished(slots.top, sums, result, self.recursion.parts)

    def batches(self) -> Iterator[tuple[int, int]]:
        """Runs of units whose contributions are worked out together."""
        ends = np.cumsum(self.counts.sum(0)) // _BATCH
        firsts = np.flatnonzero(np.diff(ends, prepend=-1))
        yield from zip(firsts.tolist(), [*firsts[1:].tolist(), self.units], strict=True)

    def parts(self, number: int, *units: int) -> list[_Part]:
        """Contributions to a step's own cells in the units from one to another."""
        inflows = self.steps[number].inflows
        return [self.part(number, inflow, units) for inflow in inflows if not inflow.deferred]

    def deferred(self) -> dict[int, list[_Part]]:
        """By source: what its units add to reductions."""
        found: dict[int, list[_Part]] = {}
        for number, step in enumerate(self.steps):
            for inflow in step.inflows:
                if inflow.deferred and inflow.source is not None:
                    part = self.part(number, inflow)
                    found.setdefault(inflow.source, []).append(part)
        return found

    def part(self, number: int, inflow: Inflow, units: tuple[int, ...] = ()) -> _Part:
        """Contributions to a step: its own in some units, or those of a reduction."""
        step, came = self.steps[number], -1 if inflow.source is None else inflow.source
        look = step.look, -1 if came < 0 else self.steps[came].look
        key = (look, inflow.tables, units)
        if key not in self.cuts:
            self.cuts[key] = self.cut(step, inflow, *units) if units else self.late(step, inflow)
        cut = self.cuts[key]
        mask, blocks = self.blocks(step.step, inflow.term, cut.links.weight)
        return _Part(number, came, cut, mask, runs_of(blocks))

    def cut(self, step: PlannedStep, inflow: Inflow, first: int, last: int) -> _Cut:
        """Contributions to a step's own cells in the units from ``first`` to ``last``."""
        bounds = step.bounds[first : last + 1]
        links = inflow.links(step.ordered[bounds[0] : bounds[-1]])
        if inflow.source is not None:
            source = self.steps[inflow.source]
            unit = np.repeat(np.arange(first, last), np.diff(bounds))
            own = source.ranks[links.pair] - source.bounds[unit][:, None]
            links = replace(links, pair=np.where(links.pair >= 0, own, -1).astype(np.int32))
        return _Cut(links, bounds - bounds[0])

    def late(self, step: PlannedStep, inflow: Inflow) -> _Cut:
        """Contributions to a reduction, sorted by the unit of the source's cell and by the sum."""
        links, source = inflow.links(step.ordered), self.steps[inflow.source or 0]
        flat = np.flatnonzero(links.pair.reshape(-1) >= 0)
        rank = source.ranks[links.pair.reshape(-1)[flat]]
        unit = np.searchsorted(source.bounds, rank, side="right") - 1
        flat = flat[order := np.argsort(unit, kind="stable")]
        pick: Callable[[np.ndarray], np.ndarray] = lambda values: values.reshape(-1)[flat]  # noqa: E731
        weight = links.weight if isinstance(links.weight, float | int) else pick(links.weight)
        pair = rank[order] - source.bounds[unit[order]]
        bounds = np.searchsorted(unit[order], np.arange(self.units + 1))
        made = Links(pair, pick(links.u), pick(links.v), weight)
        return _Cut(made, bounds, flat // links.pair.shape[1])

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
            last.update({p.source: n for p in own[n] if p.source in last})
        state = _Unit(
            unit,
            {
                n: [
                    (p, rows)
                    for p in own[n]
                    if (rows := p.cut.rows(unit - first)).start < rows.stop
                ]
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
                self.scatter(part, part.cut.rows(unit), state)
            for done in [m for m, when in last.items() if when == n]:
                slots.give(state.place[done], self.cells(done, unit))
        return state.place[used[-1]]

    def cells(self, number: int, unit: int) -> int:
        """Cells of a step in a unit, all groups."""
        return int(self.counts[number, unit]) * self.recursion.steps[number].groups

    def begin(self, number: int, state: _Unit) -> None:
        """A reduction starts from what the units before have added."""
        held = number in self.sums
        state.begun[number] = bytearray([held]) * self.recursion.steps[number].groups
        if not held:
            return
        step, count = self.recursion.steps[number], int(self.counts[number, state.unit])
        bias = step.bias if isinstance(step, Field) else 0.0
        for group in range(step.groups):
            first = (
                self.sums[number]
                + group * len(self.steps[number].pairs)
                + int(self.steps[number].bounds[state.unit])
            )
            self.draft.add(
                (LOAD, state.place[number] + group * count, count, 0, 0, 0, first),
                (number, number),
                (1.0, bias),
            )

    def sum_up(self, number: int, state: _Unit) -> None:
        """A field in one unit: window sums of the collapse."""
        bias = self.recursion.steps[number].bias  # type: ignore[union-attr]
        for part, rows in state.pending[number]:
            (cells, k), came = part.cut.links.pair[rows].shape, part.source
            table, runs = self.window(part.cut, rows)
            count = int(self.counts[came, state.unit])
            for run in part.runs:
                begin, out = (
                    state.place.get(came, 0) + run.group * count,
                    state.place[number] + run.into * cells,
                )
                row = (
                    (GATHER, out, cells, table, k, begin, -1)
                    if runs is None
                    else (BOX, out, runs[1], runs[0], k // WIDTH, begin, -1)
                )
                copies = run.times, run.into_step * cells, run.group_step * count
                self.draft.add(row, (number, came), (run.scale, bias), copies)

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
            terms, self.chains.link([_link_of(term) for term in terms]), strict=True
        ):
            step, segment = term.part.step, self.draft.mask(mask) + term.run.segment if mask else -1
            for run, fresh in state.begin(step, term.run):
                out = state.place[step] + run.into * cells
                copies = run.times, run.into_step * cells, run.group_step * term.cells
                self.draft.add_term(
                    (*term.columns(run), out, int(fresh), chain, start, *copies, segment),
                    (step, term.part.source),
                    run.scale,
                )
        count = len(self.draft.terms) - first
        self.draft.add((COLLAPSE, 0, cells, first, count, 0, -1), (number, -1))
        for into in (into for into, held in enumerate(state.begun[number]) if not held):
            self.draft.add(
                (CLEAR, state.place[number] + into * cells, cells, 0, 0, 0, -1), (number, -1)
            )

    def scatter(self, part: _Part, rows: slice, state: _Unit) -> None:
        """Operations that add to the sums of a reduction."""
        if rows.start == rows.stop:
            return
        place, steps = self.place(part, rows), (part.step, part.source)
        for term in self.terms_of(part, rows, state):
            segment = self.draft.mask(part.mask) + term.run.segment if part.mask else -1
            for run in (term.run.part(copy, 1) for copy in range(term.run.times)):
                first = self.sums[part.step] + run.into * len(self.steps[part.step].pairs)
                count = rows.stop - rows.start
                self.draft.add(
                    (REDUCE, place.targets, count, len(self.draft.terms), 1, 0, first), steps
                )
                row = (*term.columns(run), 0, 1, -1, 0, *ONCE, segment)
                self.draft.add_term(row, steps, run.scale)

    def terms_of(self, part: _Part, rows: slice, state: _Unit) -> Iterator[_Term]:
        """A term for each run of pairs of groups."""
        place, first = self.place(part, rows), state.place.get(part.source, 0)
        k = 1 if part.cut.targets is not None else part.cut.links.pair.shape[1]
        cells = int(self.counts[part.source, state.unit]) if part.source >= 0 else 0
        fit = part.mask in self.chained and k == 1 and place.weight < 0 and place.whole
        row = (k, place.pair, place.u, place.v, place.weight)
        yield from (_Term(part, run, first, cells, row, fit) for run in part.runs)

    def place(self, part: _Part, rows: slice) -> _Place:
        """Where the tables and weights of some contributions begin."""
        cut, key = part.cut, (rows.start, part.mask is not None)
        if key not in cut.places:
            links, table = cut.links, self.draft.table
            targets = -1 if cut.targets is None else table(cut.targets[rows])
            place = _Place(table(links.pair[rows]), targets=targets)
            if part.mask is not None:
                u, v = (self.in_mask(values[rows]) for values in (links.u, links.v))
                place = place._replace(u=u[0], v=v[0], whole=u[1] and v[1])
            if isinstance(links.weight, np.ndarray):
                place = place._replace(weight=self.draft.weight(links.weight[rows]))
            cut.places[key] = place
        return cut.places[key]

    def in_mask(self, values: np.ndarray) -> tuple[int, bool]:
        """Where a table of places in a mask begins, and whether it is without -1."""
        place = self.draft.table(values)
        if place not in self.whole:
            self.whole[place] = bool((values >= 0).all())
        return place, self.whole[place]

    def window(self, cut: _Cut, rows: slice) -> tuple[int, tuple[int, int] | None]:
        """Table of a field's windows; table and number of runs, where columns can be shared."""
        if rows.start not in cut.windows:
            pair = cut.links.pair[rows]
            table = self.draft.table(pair)
            key = (table, *pair.shape)
            if key not in self.runs:
                found = find_runs(pair)
                self.runs[key] = found and (self.draft.table(found[0]), found[1])
            cut.windows[rows.start] = table, self.runs[key]
        return cut.windows[rows.start]

    def blocks(
        self, step: Collapse | Field, term: Term | None, weight: np.ndarray | float
    ) -> tuple[Mask | None, tuple[tuple[int, int, int, float], ...]]:
        """Mask and blocks of contributions."""
        factor = weight if isinstance(weight, float | int) else 1.0
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
