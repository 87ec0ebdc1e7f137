"""Planes -> Program: a flat list of operations on slots of cells, the same for every pair of samples.

Each unit's cells live in slots that are freed after their last use. Index tables that are equal (all planes of a circular layer look
alike) are kept once. Slot 0 holds ones: the field V = 1.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from npk.dual.planes import Links, Planes
from npk.dual.recursion import Field, Recursion

LOAD, GATHER, TERM = 0, 1, 2
COLUMNS = ("kind", "out", "to_sum", "cells", "k", "source", "pair", "u", "v", "weight", "mask", "fresh")


@dataclass(frozen=True)
class Program:
    """Operations in order (columns ``COLUMNS``), index tables, weights, and what each operation is scaled by.

    ``mask`` is -1 for ones; ``to_sum`` is the number of the reduction that the result is added to, or -1 for a slot.
    """

    operations: np.ndarray  # (operations, columns) int64
    tables: np.ndarray  # int32
    weights: np.ndarray  # float64
    steps: np.ndarray  # (operations, 2): step and source step (-1: V = 1)
    factors: np.ndarray  # (operations, 2): factor and bias before exponents
    cells: int  # slots needed
    sums: int  # reductions
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
    """One link, its rows sorted by unit; ``bounds`` are where units begin."""

    step: int
    links: Links
    pair: np.ndarray
    u: np.ndarray
    v: np.ndarray
    weight: np.ndarray | float
    bounds: np.ndarray

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
        planes, steps = self.planes, self.recursion.steps
        self.units = int(max(labels.max(initial=0) for labels in planes.labels)) + 1
        self.counts = [np.bincount(labels, minlength=self.units) for labels in planes.labels]
        self.sums = {number: i for i, number in enumerate(sorted(planes.reductions))}
        own: list[list[_Part]] = [[] for _ in steps]
        late: list[list[_Part]] = [[] for _ in steps]  # by source: what its units add to reductions
        for number in range(len(steps)):
            for links in planes.links(number):
                if links.source is not None and planes.defers(number, links.source):
                    late[links.source].append(self.deferred(number, links.source, links))
                else:
                    own[number].append(self.part(number, links))
        slots = _Slots()
        used = [np.flatnonzero([count[unit] for count in self.counts]) for unit in range(self.units)]
        result = [self.unit(unit, used[unit], own, late, slots) for unit in range(self.units)][-1]
        operations = np.array(self.operations, np.int64).reshape(-1, len(COLUMNS))
        tables, weights = self.joined(self.tables, np.int32), self.joined(self.weights, np.float64)
        return Program(operations, tables, weights, np.array(self.steps), np.array(self.factors), slots.top, len(self.sums), result)

    def part(self, number: int, links: Links) -> _Part:
        """A link whose contributions go to the unit of the step's own cells."""
        labels = self.planes.labels[number]
        order = np.argsort(labels, kind="stable")
        pair = links.pair[order]
        if links.source is not None:
            pair = np.where(pair >= 0, self.planes.local[links.source][pair], -1)
        weight = links.weight if isinstance(links.weight, float | int) else links.weight[order]
        bounds = np.searchsorted(labels[order], np.arange(self.units + 1))
        return _Part(number, links, pair, links.u[order], links.v[order], weight, bounds)

    def deferred(self, number: int, source: int, links: Links) -> _Part:
        """A link whose contributions go to a reduction, in the unit of the source's cells."""
        flat = np.flatnonzero(links.pair.reshape(-1) >= 0)
        pair = links.pair.reshape(-1)[flat]
        unit_of = np.full(self.recursion.steps[source].positions ** 2, -1)
        unit_of[self.planes.pairs[source]] = self.planes.labels[source]
        order = np.argsort(unit_of[pair], kind="stable")
        pick: Callable[[np.ndarray], np.ndarray] = lambda values: values.reshape(-1)[flat][order]  # noqa: E731
        weight = links.weight if isinstance(links.weight, float | int) else pick(links.weight)
        bounds = np.searchsorted(unit_of[pair][order], np.arange(self.units + 1))
        return _Part(number, links, self.planes.local[source][pair[order]], pick(links.u), pick(links.v), weight, bounds)

    def unit(self, unit: int, used: np.ndarray, own: list[list[_Part]], late: list[list[_Part]], slots: _Slots) -> int:
        """Emit one unit; gives the slot of its last step."""
        last = {int(n): int(n) for n in used}
        for n in used:
            last.update({p.links.source: int(n) for p in own[n] if p.links.source in last})  # others see only padding in this unit
        place: dict[int | None, int] = {None: 0}
        for n in map(int, used):
            place[n] = slots.take(int(self.counts[n][unit]))
            self.begin(n, place[n])
            for i, part in enumerate(own[n]):
                source = place.get(part.links.source, 0)
                self.emit(part, part.rows(unit), place[n], -1, source, fresh=i == 0 and n not in self.sums)
            for part in late[n]:
                self.emit(part, part.rows(unit), 0, self.sums[part.step], place[n], fresh=True)
            for done in [m for m, when in last.items() if when == n]:
                slots.give(place[done], int(self.counts[done][unit]))
        return place[int(used[-1])]

    def begin(self, number: int, out: int) -> None:
        """A reduction starts from what the units before have added."""
        if number in self.sums:
            step = self.recursion.steps[number]
            bias = step.bias if isinstance(step, Field) else 0.0
            self.add((LOAD, out, self.sums[number], 1, 0, 0, -1, -1, -1, -1, -1, 1), (number, number), (1.0, bias))

    def emit(self, part: _Part, rows: slice, out: int, to_sum: int, source: int, *, fresh: bool) -> None:
        """One operation: the rows of one link that belong to one unit."""
        step, links = self.recursion.steps[part.step], part.links
        pair = part.pair[rows]
        if pair.size == 0:
            return
        cells, k = (1, pair.size) if to_sum >= 0 else pair.shape
        mask = -1 if links.term is None or links.term.mask is None else links.term.mask
        factor = part.weight if isinstance(part.weight, float | int) else 1.0
        kind, bias = TERM, 0.0
        if isinstance(step, Field):
            factor *= step.factor
            if to_sum < 0:
                kind, bias = GATHER, step.bias
        elif mask < 0:
            factor *= step.channels
        u, v = (self.table(part.u[rows]), self.table(part.v[rows])) if mask >= 0 else (-1, -1)
        weight = -1 if isinstance(part.weight, float | int) else self.weight(part.weight[rows])
        row = (kind, out, to_sum, cells, k, source, self.table(pair), u, v, weight, mask, int(fresh))
        self.add(row, (part.step, -1 if links.source is None else links.source), (factor, bias))

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
