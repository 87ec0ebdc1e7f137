"""The operations of one unit, with gaps for the tables in which others that look alike differ.

The cells of a unit live in slots that are freed after their last use. Slot 0 holds ones: the field
V = 1.
"""

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from npk.backends.program.boxes import WIDTH
from npk.backends.program.chains import SHORTEST, Chains, Step
from npk.backends.program.cuts import TARGETS, Place
from npk.backends.program.program import (
    BOX,
    CLEAR,
    COLLAPSE,
    COLUMNS,
    DRAIN,
    GATHER,
    LOAD,
    ONCE,
    REDUCE,
    SWEEP,
    TERMS,
    Draft,
    Rows,
)
from npk.backends.program.runs import Run
from npk.backends.program.unit import Outline, Part, Unit
from npk.recursion.masks import Mask
from npk.recursion.needed import integers
from npk.recursion.planes import PlannedStep
from npk.recursion.steps import Collapse, Field, Recursion

_BAND = 2  # collapses that are added up together; with more of them the second core gains less
_OUT, _SUMS, _FIRST = (COLUMNS.index(name) for name in ("out", "sums", "first"))
_SOURCE, _INTO, _FRESH = (TERMS.index(name) for name in ("source", "out", "fresh"))
_MANY = 8  # terms that are written as a table
_TABLES = range(TERMS.index("pair"), TERMS.index("weight") + 1)


def rows_of(units: Sequence[Outline], places: np.ndarray, starts: np.ndarray) -> Rows:
    """The operations of some units, one after the other.

    Args:
        units: the outline of each.
        places: of the tables of their cuts, ``(units, cuts, Place)``.
        starts: number of each unit's first pair, by look, ``(units, looks)``.
    """
    rows = Rows(*map(np.concatenate, zip(*(one.pattern for one in units), strict=True)))
    own = [(one.loads, one.reduces, one.cuts) for one in units]
    loads, reduces, cuts = map(np.concatenate, zip(*own, strict=True))
    unit = _repeated([len(one.loads) for one in units])
    of_unit = _repeated([len(one.cuts) for one in units])
    operations, terms = rows.operations, rows.terms
    load, reduce = np.flatnonzero(loads >= 0), np.flatnonzero(reduces >= 0)
    operations[load, _SUMS] += starts[unit[load], loads[load]]
    operations[reduce, _OUT] = places[unit[reduce], reduces[reduce], TARGETS]
    terms = terms.astype(integers(int(places[..., :TARGETS].max(initial=0)) + 1), copy=False)
    for column, table in enumerate(_TABLES):
        terms[:, table] = places[of_unit, cuts, column]
    counts = np.bincount(of_unit, minlength=len(units))
    owners = np.isin(operations[:, 0], (COLLAPSE, REDUCE, DRAIN))
    terms_before = (np.cumsum(counts) - counts)[unit]
    operations[owners, _FIRST] += terms_before[owners]
    swept = operations[:, 0] == SWEEP
    operations[swept, _SUMS] += terms_before[swept]
    return rows._replace(terms=terms)


def _repeated(sizes: Sequence[int]) -> np.ndarray:
    """Number of the block of each row, of blocks of some sizes one after the other."""
    return np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)


class _Term(NamedTuple):
    """A term of some pairs of groups: its part, the pairs, where it is read (first slot and cells
    of the source's groups, then columns), whether it fits a chain.
    """

    part: Part
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


def bands(recursion: Recursion) -> dict[int, tuple[int, ...]]:
    """First of a few collapses of many terms on one grid, and the others: streams of residual
    networks, which read the same fields.

    Args:
        recursion: the plan.
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


def sweeps(
    recursion: Recursion,
    own: Mapping[int, list[Part]],
    late: Mapping[int, list[Part]],
    alone: Collection[int],
    in_bits: Collection[Mask],
) -> dict[int, int]:
    """Fields whose window sums their only reader may take as they are made, with the reader: of one
    group, windows of 3 x 3, masks in bits; of a collapse, no other source comes later.

    Args:
        recursion: the plan.
        own: contributions to each step in its own units.
        late: those to reductions, by source.
        alone: steps that are neither reductions nor in a band.
        in_bits: masks in bits.
    """
    readers = Counter(
        part.source for some in (own, late) for parts in some.values() for part in parts
    )
    once = [n for n in alone if readers[n] == 1]
    latest = {
        n: max(own[n], key=lambda part: part.source)
        for n in alone
        if isinstance(recursion.steps[n], Collapse) and own[n]
    }
    passed = [part for part in latest.values() if part.source in once]
    passed += [part for n in once for part in late.get(n, ())]
    return {
        part.source: part.step
        for part in passed
        if part.mask in in_bits and _is_one_window(recursion, part, own[part.source])
    }


def _is_one_window(recursion: Recursion, part: Part, boxes: Sequence[Part]) -> bool:
    """Whether a part reads a field of windows of 3 x 3 cell by cell; ``boxes``: the field's own."""
    source = recursion.steps[part.source]
    if not isinstance(source, Field) or len(boxes) != 1:
        return False
    plain = all(len(p.runs) == 1 and p.runs[0].times == 1 for p in (part, *boxes))
    groups = recursion.steps[part.step].groups
    return plain and part.k == 1 and boxes[0].k == WIDTH**2 and groups == source.groups == 1


class UnitOutline:
    """Lays units out.

    Args:
        recursion: what to compute.
        steps: with their units.
        own: contributions to each step in its own units.
        late: those to reductions, by source.
        bands: collapses that are added up together, by the first.
        chained: masks that may follow from one another.
        draft: of the program, for numbers of masks.
        sweeps: fields whose only reader may sum them up itself, with the reader.
    """

    def __init__(
        self,
        recursion: Recursion,
        steps: Sequence[PlannedStep],
        own: Mapping[int, list[Part]],
        late: Mapping[int, list[Part]],
        bands: Mapping[int, tuple[int, ...]],
        chained: set[Mask],
        draft: Draft,
        sweeps: Mapping[int, int],
    ) -> None:
        self.recursion, self.steps, self.own, self.late = recursion, steps, own, late
        self.bands, self.chained, self.draft, self.sweeps = bands, chained, draft, sweeps
        self.chains = Chains()
        self.sums, self.sum_count = {}, 0  # first sum of each reduction
        for number, step in enumerate(steps):
            if step.reduces:
                self.sums[number] = self.sum_count
                self.sum_count += len(step.pairs) * step.step.groups

    def of(self, counts: Sequence[int], places: Mapping[int, Place]) -> Outline:
        """Lay one unit out.

        Args:
            counts: its pairs, by look.
            places: of the tables of its cuts.
        """
        cells = {n: count for n, step in enumerate(self.steps) if (count := counts[step.look])}
        unit = Unit(cells, places, {n: self.own[n] for n in cells})
        taken = {f: n for f, n in self.sweeps.items() if self._is_taken(n, f, cells, places)}
        swept = {n: f for f, n in taken.items() if n not in self.sums}
        done = self._done(cells, taken)
        for n, count in cells.items():
            if n in taken:
                if taken[n] in self.sums:
                    self._drain(n, unit)
                self._free(done[n], unit)
                continue
            band = [n, *(m for m in self.bands.get(n, ()) if cells.get(m) == count)]
            for m in [m for m in band if m not in unit.place]:
                unit.place[m] = unit.slots.take(self._cells(m, unit))
                self._begin(m, unit)
            if isinstance(self.recursion.steps[n], Field):
                self._sum_up(n, unit)
            elif n in swept:
                self._sweep(n, swept[n], unit)
            else:
                self._collapse(band, unit)
            for part in self.late.get(n, ()):
                self._scatter(part, unit)
            self._free(done[n], unit)
        return unit.outline(unit.place.get(max(cells), 0))

    def _free(self, steps: Sequence[int], unit: Unit) -> None:
        """Give the slots of steps back."""
        for number in steps:
            unit.slots.give(unit.place[number], self._cells(number, unit))

    def _done(self, cells: Mapping[int, int], taken: Mapping[int, int]) -> dict[int, list[int]]:
        """The steps that nothing reads any more after each step; ``taken``: fields without cells,
        with their readers, of which reductions take them at once.
        """
        last = {n: n for n in cells if n not in taken}
        for n in cells:
            # others see only padding in this unit
            reader = n if taken.get(n) in self.sums else taken.get(n, n)
            sources = (part.source for part in self.own[n])
            last.update({m: max(last[m], reader) for m in sources if m in last})
        done: dict[int, list[int]] = {n: [] for n in cells}
        for m, n in last.items():
            done[n].append(m)
        return done

    def _cells(self, number: int, unit: Unit) -> int:
        """Cells of a step in a unit, all groups."""
        return unit.counts[number] * self.recursion.steps[number].groups

    def _begin(self, number: int, unit: Unit) -> None:
        """A reduction starts from what the units before have added."""
        held = number in self.sums
        unit.begun[number] = bytearray([held]) * self.recursion.steps[number].groups
        if not held:
            return
        step, count = self.recursion.steps[number], unit.counts[number]
        bias = step.bias if isinstance(step, Field) else 0.0
        for group in range(step.groups):
            first = self.sums[number] + group * len(self.steps[number].pairs)
            unit.loads[len(unit.operations)] = self.steps[number].look
            out = unit.place[number] + group * count
            unit.add((LOAD, out, count, 0, 0, 0, first), (number, number), (1.0, bias))

    def _sum_up(self, number: int, unit: Unit) -> None:
        """A field in one unit: window sums of the collapse."""
        bias, cells = self.recursion.steps[number].bias, unit.counts[number]  # type: ignore[union-attr]
        for part in unit.pending[number]:
            place, count = unit.places[part.cut], unit.counts.get(part.source, 0)
            for run in part.runs:
                begin = unit.place.get(part.source, 0) + run.group * count
                out = unit.place[number] + run.into * cells
                row = (GATHER, out, cells, place.pair, part.k, begin, -1)
                if place.run_count:
                    row = (BOX, out, place.run_count, place.runs, part.k // WIDTH, begin, -1)
                copies = run.times, run.into_step * cells, run.group_step * count
                unit.add(row, (number, part.source), (run.scale, bias), copies)

    def _collapse(self, band: list[int], unit: Unit) -> None:
        """A collapse in one unit: one operation for its terms and for those of the rest of its band
        that are known by now.
        """
        number, first = band[0], unit.terms.count
        ready = sorted(
            (part for m in band for part in unit.ready(m, number)), key=lambda part: -part.source
        )
        cells = unit.counts[number]
        if sum(len(part.runs) for part in ready if self._fits(part, unit)) >= SHORTEST:
            self._add_linked(ready, cells, unit)
        else:
            for part in ready:
                if part.singles is None or len(part.singles) < _MANY:
                    self._add_linked([part], cells, unit)
                else:
                    self._add_singles(part, part.singles, cells, unit)
        count = unit.terms.count - first
        unit.add((COLLAPSE, 0, cells, first, count, 0, -1), (number, -1))
        for into in (into for into, held in enumerate(unit.begun[number]) if not held):
            row = (CLEAR, unit.place[number] + into * cells, cells, 0, 0, 0, -1)
            unit.add(row, (number, -1))

    def _add_linked(self, parts: Sequence[Part], cells: int, unit: Unit) -> None:
        """Terms of a collapse, those in chains that follow from one another."""
        terms = [term for part in parts for term in self._terms(part, unit)]
        links = self.chains.link([_link_of(term) for term in terms])
        for term, (mask, chain, start) in zip(terms, links, strict=True):
            step, segment = term.part.step, self.draft.mask(mask) + term.run.segment if mask else -1
            for run, fresh in unit.begin(step, term.run):
                out = unit.place[step] + run.into * cells
                copies = run.times, run.into_step * cells, run.group_step * term.cells
                row = (*term.columns(run), out, int(fresh), chain, start, *copies, segment)
                unit.terms.add(row, term.part, run.scale)

    def _add_singles(self, part: Part, singles: np.ndarray, cells: int, unit: Unit) -> None:
        """Terms of a part in no chain, one for each pair of groups: those of a grouped layer."""
        into, group, segment = singles[:, :3].astype(np.int64).T
        places = unit.places[part.cut][:TARGETS]
        rows = np.empty((len(singles), len(TERMS)), integers(max(places) + 1))
        rows[:, : len(TERMS) - 1] = *(part.k, 0, *places, 0, 0), *(-1, 0, *ONCE)
        rows[:, _SOURCE] = unit.place.get(part.source, 0) + group * unit.counts.get(part.source, 0)
        rows[:, _INTO] = unit.place[part.step] + into * cells
        rows[:, _FRESH] = unit.begin_each(part.step, into)
        rows[:, -1] = self.draft.mask(part.mask) + segment if part.mask else -1
        unit.terms.add_many(rows, part, singles[:, 3])

    def _is_taken(
        self, number: int, source: int, counts: Mapping[int, int], places: Mapping[int, Place]
    ) -> bool:
        """Whether a collapse or a reduction and a field that it alone reads are one operation in
        this unit: cell for cell, each with a mask.
        """
        if source not in counts:
            return False
        box = self._latest(source)
        if box.source not in counts or not places[box.cut].run_count:
            return False
        if number in self.sums:
            place = places[self.late[source][0].cut]
            return place.straight == 1 and place.weight < 0
        if counts.get(number) != counts[source]:
            return False
        place, cells = places[self._latest(number).cut], counts[number]
        if not place.whole or place.weight >= 0:
            return False
        return np.array_equal(self.draft.values(place.pair, cells), np.arange(cells))

    def _latest(self, number: int) -> Part:
        """The part of a step whose source comes last."""
        return max(self.own[number], key=lambda part: part.source)

    def _sweep(self, number: int, source: int, unit: Unit) -> None:
        """A field and the term of the collapse that alone reads it; then the other terms."""
        part, box = (self._latest(n) for n in (number, source))
        (run,), (window,) = part.runs, box.runs
        assert part.mask is not None  # as ``sweeps`` saw
        segment, summed = self.draft.mask(part.mask) + run.segment, unit.places[box.cut]
        out, begin = unit.place[number], unit.place[box.source]
        row = (SWEEP, out, summed.run_count, summed.runs, box.k // WIDTH, begin, unit.terms.count)
        bias = self.recursion.steps[source].bias  # type: ignore[union-attr]
        unit.add(row, (source, box.source), (window.scale, bias))
        row = (part.k, 0, *unit.places[part.cut][:TARGETS], out, 1, -1, 0, *ONCE, segment)
        unit.terms.add(row, part, run.scale)
        unit.begun[number][0] = 1
        unit.pending[number] = [other for other in unit.pending[number] if other is not part]
        if unit.pending[number]:
            self._collapse([number], unit)

    def _drain(self, source: int, unit: Unit) -> None:
        """A field and the reduction that alone reads it, to one of its sums."""
        (part,), box = self.late[source], self._latest(source)
        (run,), (window,) = part.runs, box.runs
        assert part.mask is not None  # as ``sweeps`` saw
        segment, summed = self.draft.mask(part.mask) + run.segment, unit.places[box.cut]
        place, begin = unit.places[part.cut], unit.place[box.source]
        unit.reduces[len(unit.operations)] = part.cut
        row = (DRAIN, place.targets, summed.run_count, unit.terms.count, summed.runs, begin)
        bias = self.recursion.steps[source].bias  # type: ignore[union-attr]
        unit.add((*row, self.sums[part.step]), (source, box.source), (window.scale, bias))
        term = (part.k, 0, *place[:TARGETS], 0, 1, -1, 0, *ONCE, segment)
        unit.terms.add(term, part, run.scale)

    def _scatter(self, part: Part, unit: Unit) -> None:
        """Operations that add to the sums of a reduction."""
        place = unit.places[part.cut]
        if not place.added:
            return
        for term in self._terms(part, unit):
            segment = self.draft.mask(part.mask) + term.run.segment if part.mask else -1
            for run in (term.run.part(copy, 1) for copy in range(term.run.times)):
                first = self.sums[part.step] + run.into * len(self.steps[part.step].pairs)
                unit.reduces[len(unit.operations)] = part.cut
                row = (REDUCE, place.targets, place.added, unit.terms.count, 1, 0, first)
                unit.add(row, (part.step, part.source))
                row = (*term.columns(run), 0, 1, -1, 0, *ONCE, segment)
                unit.terms.add(row, part, run.scale)

    def _terms(self, part: Part, unit: Unit) -> Iterator[_Term]:
        """A term for each run of pairs of groups."""
        first, cells = unit.place.get(part.source, 0), unit.counts.get(part.source, 0)
        row, fit = (part.k, *unit.places[part.cut][:TARGETS]), self._fits(part, unit)
        yield from (_Term(part, run, first, cells, row, fit) for run in part.runs)

    def _fits(self, part: Part, unit: Unit) -> bool:
        """Whether the terms of a part may be in a chain."""
        place = unit.places[part.cut]
        return part.k == 1 and place.weight < 0 < place.whole and part.mask in self.chained
