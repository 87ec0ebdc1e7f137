"""Planes -> Program: the steps of a recursion as operations, unit by unit.

Units that look alike have the same operations, which are worked out for the first of them; the
others differ in their tables (``cuts``). Index tables that are equal are kept once.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from npk.backends.program.cuts import Cut, LateCut, Place, Tables, is_masked
from npk.backends.program.outlines import Outline, Part, UnitOutline, bands, sweeps
from npk.backends.program.program import Draft, Program
from npk.backends.program.runs import runs_of
from npk.recursion.masks import Mask
from npk.recursion.needed import Inflow
from npk.recursion.planes import plan_steps
from npk.recursion.steps import Collapse, Field, Recursion, Term


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
        """All units, one after the other."""
        looks = {step.look: step for step in self.steps}
        bounds = np.stack([step.bounds for step in looks.values()])  # (looks, units + 1)
        known: dict[tuple, Outline] = {}
        active: dict[bytes, list[int]] = {}  # cuts that some unit has, by the looks that it has
        result = 0
        for unit, counts in enumerate(np.diff(bounds).T):
            self.tables.enter(unit)
            here = (counts > 0).tobytes()
            if here not in active:
                present = {look for look, count in zip(looks, counts, strict=True) if count}
                active[here] = self._active(present)
            places = {number: self.cuts[number].place() for number in active[here]}
            key = (counts.tobytes(), _pattern(places))
            if key not in known:
                known[key] = self.outlines.of(
                    dict(zip(looks, counts.tolist(), strict=True)), places
                )
            starts = dict(zip(looks, bounds[:, unit].tolist(), strict=True))
            self.draft.add(known[key].rows(places, starts))
            result = known[key].result
        cells = max(outline.cells for outline in known.values())
        sums = self.outlines.sum_count
        return self.draft.finished(cells, sums, result, self.recursion.parts)

    def _alone(self, banded: Mapping[int, tuple[int, ...]]) -> set[int]:
        """Steps that are neither reductions nor added up together with others."""
        others = {m for band in banded.values() for m in band} | {n for n in banded if banded[n]}
        return {n for n, step in enumerate(self.steps) if not step.reduces} - others

    def _active(self, looks: set[int]) -> list[int]:
        """The cuts of steps, and into reductions of sources, that have some looks."""
        found = {
            part.cut
            for parts in (self.own, self.late)
            for number, some in parts.items()
            for part in some
            if self.steps[number].look in looks
        }
        return sorted(found)

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
        return Part(number, came, cut, self.cuts[cut].k, mask, runs_of(blocks))

    def _blocks(
        self, step: Collapse | Field, term: Term | None, factor: float
    ) -> tuple[Mask | None, tuple[tuple[int, int, int, float], ...]]:
        """Mask and blocks of contributions."""
        if isinstance(step, Field):
            return None, tuple((h, h, 0, factor * step.factor) for h in range(step.groups))
        if term is None or term.mask is None:
            rows = term.blocks.tolist() if term else ()
            return None, tuple((a, b, 0, factor * n) for a, b, _, n in rows)
        rows = term.blocks.tolist()
        return self.recursion.masks[term.mask], tuple((a, b, s, factor) for a, b, s, _ in rows)


def _pattern(places: dict[int, Place]) -> tuple:
    """What units must have in common to have the same operations: the tables of cells, and which
    masks are read at the same places.
    """
    first: dict[tuple[int, int], int] = {}
    alike = tuple(first.setdefault((p.u, p.v), n) for n, p in places.items())
    return alike, tuple(place.look for place in places.values())
