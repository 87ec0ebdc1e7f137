"""Planes -> Program: the steps of a recursion as operations, unit by unit.

Units that look alike have the same operations, which are worked out for the first of them; the
others differ in their tables (``cuts``). Index tables that are equal are kept once. Some units are
laid out together, so that what is done for each alone is little.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from npk.backends.program.cuts import (
    ADDED,
    COUNT,
    NOWHERE,
    PAIR,
    RUNS,
    STRAIGHT,
    TARGETS,
    WHOLE,
    Cut,
    LateCut,
    Place,
    Tables,
    U,
    V,
    is_masked,
    split,
)
from npk.backends.program.outlines import UnitOutline, bands, rows_of, sweeps
from npk.backends.program.program import Draft, Program
from npk.backends.program.unit import Outline, Part
from npk.recursion.masks import Mask
from npk.recursion.needed import Inflow
from npk.recursion.planes import plan_steps
from npk.recursion.steps import Collapse, Field, Recursion, Term

_TOGETHER = 1 << 19  # pairs of units, and contributions to them, whose tables are made together


def compile_program(recursion: Recursion, hard: Sequence[bool], *, swept: bool = False) -> Program:
    """Lay the steps of a recursion out as operations.

    Args:
        recursion: what to compute.
        hard: for each of its masks whether it is kept in bits.
        swept: whether window sums and the overlaps that they alone are multiplied by may be one
            operation.
    """
    return _Compiler(recursion, tuple(hard), swept).run()


class _Compiler:
    def __init__(self, recursion: Recursion, hard: tuple[bool, ...], swept: bool) -> None:
        self.recursion, self.steps = recursion, plan_steps(recursion)
        self.draft = Draft()
        self.tables = Tables(self.draft)
        self.cuts: list[Cut | LateCut] = []
        self.cut_numbers: dict[tuple, int] = {}
        self.own = {n: self._parts(n, deferred=False) for n in range(len(self.steps))}
        self.late: dict[int, list[Part]] = {}  # by source
        for number in range(len(self.steps)):
            for part in self._parts(number, deferred=True):
                self.late.setdefault(part.source, []).append(part)
        masks = zip(recursion.masks, hard, strict=True)
        in_bits = {mask for mask, in_bits in masks if in_bits}
        banded = bands(recursion)
        self.outlines = UnitOutline(
            recursion,
            self.steps,
            self.own,
            self.late,
            banded,
            {mask for mask in in_bits if len(mask.segments) == 1},
            self.draft,
            sweeps(recursion, self.own, self.late, self._alone(banded), in_bits) if swept else {},
        )

    def run(self) -> Program:
        """All units, some at a time."""
        looks = {step.look: step for step in self.steps}
        bounds = np.stack([step.bounds for step in looks.values()], 1)  # (units + 1, looks)
        counts = np.diff(bounds, axis=0)
        outlines: list[Outline] = []
        known: dict[bytes, int] = {}  # number of the outline
        numbers: list[int] = []
        for units in self._together(counts):
            self.tables.enter(units)
            places = self._places(counts[units])
            alike = _patterns(counts[units], places)
            for pattern, row, count in zip(alike, places, counts[units], strict=True):
                if pattern not in known:
                    known[pattern] = len(outlines)
                    outlines.append(self._outline(count, row))
            numbers = [known[pattern] for pattern in alike]
            chosen = (outlines[number] for number in numbers)
            self.draft.add(rows_of(list(chosen), places, bounds[units]))
        cells = max(outline.cells for outline in outlines)
        sums, result = self.outlines.sum_count, outlines[numbers[-1]].result
        outlines.clear()
        return self.draft.finished(cells, sums, result, self.recursion.parts)

    def _alone(self, banded: Mapping[int, tuple[int, ...]]) -> set[int]:
        """Steps that are neither reductions nor added up together with others."""
        others = {m for band in banded.values() for m in band} | {n for n in banded if banded[n]}
        return {n for n, step in enumerate(self.steps) if not step.reduces} - others

    def _together(self, counts: np.ndarray) -> Iterator[slice]:
        """Units whose tables are made together."""
        work = counts.sum(1)
        for cut in self.cuts:
            work += counts[:, cut.owner.look] * cut.several
        chunk = (np.cumsum(work) - work) // _TOGETHER
        begins = [*np.flatnonzero(np.diff(chunk, prepend=-1)).tolist(), len(counts)]
        return map(slice, begins, begins[1:])

    def _places(self, counts: np.ndarray) -> np.ndarray:
        """Of all cuts in the units that the tables have come to, ``(units, cuts, Place)``."""
        found = np.full((len(counts), len(self.cuts), len(Place._fields)), NOWHERE)
        for number, cut in enumerate(self.cuts):
            active = counts[:, cut.owner.look] > 0
            if active.any():
                found[active, number] = cut.places()[active]
        return found

    def _outline(self, counts: np.ndarray, places: np.ndarray) -> Outline:
        """Lay a unit out."""
        active = (counts[[cut.owner.look for cut in self.cuts]] > 0).tolist()
        here = {n: Place(*row) for n, row in enumerate(places.tolist()) if active[n]}
        return self.outlines.of(counts.tolist(), here)

    def _parts(self, number: int, *, deferred: bool) -> list[Part]:
        """Contributions to a step, in its own units or in those of its sources."""
        inflows = self.steps[number].inflows
        return [self._part(number, inflow) for inflow in inflows if inflow.deferred == deferred]

    def _part(self, number: int, inflow: Inflow) -> Part:
        step, came = self.steps[number], -1 if inflow.source is None else inflow.source
        source = None if came < 0 else self.steps[came]
        look = step.look, -1 if source is None else source.look
        key = (look, inflow.tables, inflow.deferred, inflow.term is None, is_masked(inflow))
        if key not in self.cut_numbers:
            self.cut_numbers[key] = len(self.cuts)
            if inflow.deferred and source is not None:
                self.cuts.append(LateCut(step, source, inflow, self.tables))
            else:
                self.cuts.append(Cut(step, source, inflow, self.tables))
        cut = self.cut_numbers[key]
        mask, blocks = self._blocks(step.step, inflow.term, inflow.weight or 1.0)
        return Part(number, came, cut, self.cuts[cut].k, mask, blocks)

    def _blocks(
        self, step: Collapse | Field, term: Term | None, factor: float
    ) -> tuple[Mask | None, np.ndarray]:
        """Mask and blocks of contributions."""
        if isinstance(step, Field):
            blocks = np.zeros((step.groups, 4))
            blocks[:, 0] = blocks[:, 1] = np.arange(step.groups)
            blocks[:, 3] = factor * step.factor
            return None, blocks
        assert term is not None  # as of all that a collapse adds up
        blocks = term.blocks.astype(float)
        if term.mask is None:
            blocks[:, 2], blocks[:, 3] = 0, factor * blocks[:, 3]
            return None, blocks
        blocks[:, 3] = factor
        return self.recursion.masks[term.mask], blocks


def _patterns(counts: np.ndarray, places: np.ndarray) -> list[bytes]:
    """What units must have in common to have the same operations: how many pairs of each look they
    have, the tables of cells, and which masks are read at the same places. Equal ones are the same.
    """
    own = np.where(places[..., TARGETS] == NOWHERE, places[..., PAIR], NOWHERE)
    look = places[..., [ADDED, WHOLE, RUNS, COUNT, STRAIGHT]].reshape(len(places), -1)
    return split(np.concatenate([counts, _first_alike(places), own, look], 1))


def _first_alike(places: np.ndarray) -> np.ndarray:
    """For each cut of each unit the first one whose mask is read at the same places."""
    read = places[..., U] * (places[..., V].max(initial=0) + 2) + places[..., V]
    order = np.argsort(read, axis=1, kind="stable")
    sorted_ = np.take_along_axis(read, order, 1)
    begins = np.diff(sorted_, axis=1, prepend=sorted_[:, :1] - 1) != 0
    first = np.maximum.accumulate(np.where(begins, np.arange(read.shape[1]), 0), 1)
    found = np.empty_like(order)
    np.put_along_axis(found, order, np.take_along_axis(order, first, 1), 1)
    return found
