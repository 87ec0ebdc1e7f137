"""Planes -> Program: a flat list of operations on slots of cells, the same for every pair of samples.

Each unit's cells live in slots that are freed after their last use. Index tables that are equal (all planes of a circular layer look
alike) are kept once. Slot 0 holds ones: the field V = 1.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from npk.dual.planes import Links, Planes
from npk.dual.recursion import Field, Recursion

LOAD, GATHER, TERM, SCATTER = 0, 1, 2, 3
_BATCH = 1 << 17  # cells of units that are worked out together
COLUMNS = ("kind", "out", "to_sum", "cells", "k", "source", "pair", "u", "v", "weight", "mask", "fresh")


@dataclass(frozen=True)
class Program:
    """Operations in order (columns ``COLUMNS``), index tables, weights, and what each operation is scaled by.

    ``mask`` is a segment of a mask, -1 for ones. LOAD fills cells from sums, from ``to_sum`` on; SCATTER adds ``k`` contributions to the
    sums ``to_sum`` + tables[out ...].
    """

    operations: np.ndarray  # (operations, columns) int64
    tables: np.ndarray  # int32
    weights: np.ndarray  # float64
    steps: np.ndarray  # (operations, 2): step and source step (-1: V = 1)
    factors: np.ndarray  # (operations, 2): factor and bias before exponents
    cells: int  # slots needed
    sums: int  # cells of reductions
    result: int  # slot of the kernel

    def scalars(self, exponents: np.ndarray) -> np.ndarray:
        """Scale and bias of each operation under the exponents of the steps, ``(operations, 2)``."""
        into, source = self.steps.T
        from_source = np.where(source >= 0, exponents[source], 0)
        scale = np.ldexp(self.factors[:, 0], from_source - exponents[into])
        return np.stack([scale, np.ldexp(self.factors[:, 1], -exponents[into])], 1)


def compile_program(recursion: Recursion) -> Program:
    """Lay the steps of a recursion out as operations, unit by unit."""
    return _Compiler(recursion, Planes(recursion)).run()


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
    """Contributions of one source to one step, sorted by the unit that adds them; ``bounds``: where each unit begins.

    ``targets``: in a reduction, the sum that each contribution goes to.
    """

    step: int
    links: Links
    pair: np.ndarray  # number of the source's cell in its unit, -1: none
    u: np.ndarray
    v: np.ndarray
    weight: np.ndarray | float
    bounds: np.ndarray
    targets: np.ndarray | None = None

    def rows(self, unit: int) -> slice:
        return slice(self.bounds[unit], self.bounds[unit + 1])


@dataclass
class _Compiler:
    recursion: Recursion
    planes: Planes
    operations: list[tuple[int, ...]] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)
    factors: list[tuple[float, float]] = field(default_factory=list)
    tables: dict[bytes, int] = field(default_factory=dict)
    tables_size: int = 0
    weights: dict[bytes, int] = field(default_factory=dict)
    weights_size: int = 0

    def run(self) -> Program:
        planes = self.planes
        self.units = len(planes.bounds[0]) - 1
        self.counts = np.diff(np.stack(planes.bounds), axis=1)  # (steps, units)
        self.segments = np.cumsum([0, *(len(mask.segments) for mask in self.recursion.masks)])
        self.sums, sums = {}, 0  # first sum of each reduction
        for number in planes.reductions:
            self.sums[number] = sums
            sums += len(planes.pairs[number]) * self.recursion.steps[number].groups
        late = self.deferred()
        slots, result = _Slots(), 0
        for first, last in self.batches():
            own = {number: self.parts(number, first, last) for number in np.flatnonzero(self.counts[:, first:last].any(1)).tolist()}
            for unit in range(first, last):
                result = self.unit(unit, first, own, late, slots)
        operations = np.array(self.operations, np.int64).reshape(-1, len(COLUMNS))
        tables, weights = self.joined(self.tables, np.int32), self.joined(self.weights, np.float64)
        return Program(operations, tables, weights, np.array(self.steps), np.array(self.factors), slots.top, sums, result)

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
            pair = links.pair
            if links.source is not None:
                ranks, starts = self.planes.ranks[links.source], self.planes.bounds[links.source]
                unit = np.repeat(np.arange(first, last), np.diff(bounds))
                pair = np.where(pair >= 0, ranks[pair] - starts[unit][:, None], -1)
            found.append(_Part(number, links, pair, links.u, links.v, links.weight, bounds - bounds[0]))
        return found

    def deferred(self) -> dict[int, list[_Part]]:
        """By source: what its units add to reductions."""
        found: dict[int, list[_Part]] = {}
        for number in self.planes.reductions:
            for links in self.planes.links(number, self.planes.ordered[number]):
                if links.source is not None and self.planes.defers(number, links.source, links.term):
                    found.setdefault(links.source, []).append(self.late_part(number, links.source, links))
        return found

    def late_part(self, number: int, source: int, links: Links) -> _Part:
        """Contributions to a reduction, sorted by the unit of the source's cell and by the sum."""
        flat = np.flatnonzero(links.pair.reshape(-1) >= 0)
        rank = self.planes.ranks[source][links.pair.reshape(-1)[flat]]
        unit = np.searchsorted(self.planes.bounds[source], rank, side="right") - 1
        flat = flat[order := np.argsort(unit, kind="stable")]
        pick: Callable[[np.ndarray], np.ndarray] = lambda values: values.reshape(-1)[flat]  # noqa: E731
        weight = links.weight if isinstance(links.weight, float | int) else pick(links.weight)
        pair, bounds = rank[order] - self.planes.bounds[source][unit[order]], np.searchsorted(unit[order], np.arange(self.units + 1))
        return _Part(number, links, pair, pick(links.u), pick(links.v), weight, bounds, flat // links.pair.shape[1])

    def unit(self, unit: int, first: int, own: dict[int, list[_Part]], late: dict[int, list[_Part]], slots: _Slots) -> int:
        """Emit one unit, of a batch that begins at unit ``first``; gives the slot of its last step."""
        used = np.flatnonzero(self.counts[:, unit]).tolist()
        last = {n: n for n in used}
        for n in used:
            last.update({p.links.source: n for p in own[n] if p.links.source in last})  # others see only padding in this unit
        place: dict[int | None, int] = {None: 0}
        for n in used:
            place[n] = slots.take(self.cells(n, unit))
            self.begin(n, unit, place[n])
            written: set[int] = set(range(self.recursion.steps[n].groups)) if n in self.sums else set()
            for part in own[n]:
                self.emit(part, part.rows(unit - first), unit, place[n], place.get(part.links.source, 0), written)
            self.clear(n, unit, place[n], written)
            for part in late.get(n, ()):
                self.scatter(part, part.rows(unit), unit, place[n])
            for done in [m for m, when in last.items() if when == n]:
                slots.give(place[done], self.cells(done, unit))
        return place[used[-1]]

    def cells(self, number: int, unit: int) -> int:
        """Cells of a step in a unit, all groups."""
        return int(self.counts[number, unit]) * self.recursion.steps[number].groups

    def begin(self, number: int, unit: int, out: int) -> None:
        """A reduction starts from what the units before have added."""
        if number not in self.sums:
            return
        step, count = self.recursion.steps[number], int(self.counts[number, unit])
        bias = step.bias if isinstance(step, Field) else 0.0
        for group in range(step.groups):
            first = self.sums[number] + group * len(self.planes.pairs[number]) + int(self.planes.bounds[number][unit])
            self.add((LOAD, out + group * count, first, count, 0, 0, -1, -1, -1, -1, -1, 1), (number, number), (1.0, bias))

    def clear(self, number: int, unit: int, out: int, written: set[int]) -> None:
        """Zeros for groups to which no term contributes."""
        count = int(self.counts[number, unit])
        for group in set(range(self.recursion.steps[number].groups)) - written:
            self.add((TERM, out + group * count, -1, count, 0, 0, 0, -1, -1, -1, -1, 1), (number, -1), (1.0, 0.0))

    def emit(self, part: _Part, rows: slice, unit: int, out: int, source: int, written: set[int]) -> None:
        """Operations for the contributions of one source to one unit of a step, a block of groups each."""
        pair, links = part.pair[rows], part.links
        if pair.size == 0:
            return
        cells, k = pair.shape
        where, u, v, weight = self.tables_of(part, rows)
        for into, group, mask, scale in self.blocks(part):
            step = self.recursion.steps[part.step]
            kind, bias = (GATHER, step.bias) if isinstance(step, Field) else (TERM, 0.0)
            begin = source + group * int(self.counts[links.source, unit]) if links.source is not None else 0
            row = (kind, out + into * cells, -1, cells, k, begin, where, u, v, weight, mask, int(into not in written))
            written.add(into)
            self.add(row, (part.step, -1 if links.source is None else links.source), (scale, bias))

    def scatter(self, part: _Part, rows: slice, unit: int, source: int) -> None:
        """Operations that add to the sums of a reduction."""
        pair, from_step = part.pair[rows], int(part.links.source)  # type: ignore[arg-type]
        if pair.size == 0 or part.targets is None:
            return
        where, u, v, weight = self.tables_of(part, rows)
        targets = self.table(part.targets[rows])
        for into, group, mask, scale in self.blocks(part):
            first = self.sums[part.step] + into * len(self.planes.pairs[part.step])
            begin = source + group * int(self.counts[from_step, unit])
            row = (SCATTER, targets, first, 1, pair.size, begin, where, u, v, weight, mask, 1)
            self.add(row, (part.step, from_step), (scale, 0.0))

    def blocks(self, part: _Part) -> Iterator[tuple[int, int, int, float]]:
        """Group of the step, group of the source, row of the mask's segment (-1: ones) and factor of each block."""
        step, term = self.recursion.steps[part.step], part.links.term
        factor = part.weight if isinstance(part.weight, float | int) else 1.0
        if isinstance(step, Field):
            yield from ((group, group, -1, factor * step.factor) for group in range(step.groups))
        elif term is not None and term.mask is None:
            yield from ((int(into), int(group), -1, factor * int(channels)) for into, group, _, channels in term.blocks)
        elif term is not None:
            first = int(self.segments[term.mask])
            yield from ((int(into), int(group), first + int(segment), factor) for into, group, segment, _ in term.blocks)

    def tables_of(self, part: _Part, rows: slice) -> tuple[int, int, int, int]:
        """Where the cells, the masks' places and the weights of a part's rows are kept."""
        masked = part.links.term is not None and part.links.term.mask is not None
        u, v = (self.table(part.u[rows]), self.table(part.v[rows])) if masked else (-1, -1)
        weight = -1 if isinstance(part.weight, float | int) else self.weight(part.weight[rows])
        return self.table(part.pair[rows]), u, v, weight

    def add(self, row: tuple[int, ...], steps: tuple[int, int], factors: tuple[float, float]) -> None:
        self.operations.append(row)
        self.steps.append(steps)
        self.factors.append(factors)

    def table(self, values: np.ndarray) -> int:
        data = np.ascontiguousarray(values, np.int32)
        place = self.tables.setdefault(data.tobytes(), self.tables_size)
        self.tables_size += data.size if place == self.tables_size else 0
        return place

    def weight(self, values: np.ndarray) -> int:
        data = np.ascontiguousarray(values, np.float64)
        place = self.weights.setdefault(data.tobytes(), self.weights_size)
        self.weights_size += data.size if place == self.weights_size else 0
        return place

    @staticmethod
    def joined(parts: dict[bytes, int], dtype: type) -> np.ndarray:
        return np.frombuffer(b"".join(parts), dtype) if parts else np.zeros(1, dtype)
