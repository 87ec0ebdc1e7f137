"""One unit while it is laid out: the slots of its cells, its operations and its terms."""

import bisect
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from npk.backends.program.cuts import Place
from npk.backends.program.program import COLUMNS, ONCE, TERMS, Rows
from npk.backends.program.runs import Run, distinct, runs_of
from npk.recursion.masks import Mask
from npk.recursion.needed import integers


@dataclass(frozen=True)
class Part:
    """A cut of a step's contributions with what is the step's own.

    ``source``: -1 for V = 1. ``cut``: its number. ``k``: contributions a cell. ``blocks``: the pairs
    of groups that share channels, as rows (group of the step, group of the source, segment,
    factor).
    """

    step: int
    source: int
    cut: int
    k: int
    mask: Mask | None
    blocks: np.ndarray

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The blocks, those together that are a step behind one another."""
        return runs_of(self.blocks)

    @cached_property
    def singles(self) -> np.ndarray | None:
        """The blocks, where each has a mask of its own: then no run has two."""
        return self.blocks if distinct(self.blocks) else None


@dataclass(frozen=True)
class Outline:
    """Operations of all units that look alike; ``cells``: slots that they need, ``result``: that of
    the last step.

    ``loads``: of each operation the look of the step whose sums it loads, ``reduces``: the cut of
    the contributions that it adds to sums; -1: none. ``cuts``: of each term.
    """

    pattern: Rows
    loads: np.ndarray
    reduces: np.ndarray
    cuts: np.ndarray
    cells: int
    result: int


@dataclass
class Slots:
    """First-fit allocation of runs of cells."""

    free: list[tuple[int, int]] = field(default_factory=lambda: [(1, 1 << 62)])
    top: int = 1

    def take(self, count: int) -> int:
        """The first slot of a run of so many that are free; from now on they are not."""
        i = next(i for i, (_, size) in enumerate(self.free) if size >= count)
        start, size = self.free[i]
        self.free[i : i + 1] = [(start + count, size - count)]
        self.top = max(self.top, start + count)
        return start

    def give(self, start: int, count: int) -> None:
        """Free a run of slots."""
        i = bisect.bisect(self.free, (start, 0))
        if i < len(self.free) and start + count == self.free[i][0]:
            count += self.free.pop(i)[1]
        if i and sum(self.free[i - 1]) == start:
            start, before = self.free.pop(i - 1)
            i, count = i - 1, count + before
        self.free.insert(i, (start, count))


@dataclass
class Terms:
    """Terms as they are written: one by one, or many of one part in a table."""

    count: int = 0
    _rows: list[np.ndarray] = field(default_factory=list)
    _owners: list[np.ndarray] = field(default_factory=list)  # step and source
    _cuts: list[np.ndarray] = field(default_factory=list)
    _factors: list[np.ndarray] = field(default_factory=list)
    _single: list[tuple[tuple[int, ...], tuple[int, ...], float]] = field(default_factory=list)

    def add(self, row: tuple[int, ...], part: Part, factor: float) -> None:
        """One more term: its columns, its part and its factor."""
        self._single.append((row, (part.step, part.source, part.cut), factor))
        self.count += 1

    def add_many(self, rows: np.ndarray, part: Part, factors: np.ndarray) -> None:
        """More terms of a part: their columns and factors."""
        self._settle()
        self._rows.append(rows)
        self._owners.append(np.tile(np.array((part.step, part.source), np.int32), (len(rows), 1)))
        self._cuts.append(np.full(len(rows), part.cut, np.int32))
        self._factors.append(factors)
        self.count += len(rows)

    def all(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Columns, steps and factors of all of them."""
        self._settle()
        return (
            np.concatenate([np.zeros((0, len(TERMS)), np.int32), *self._rows]),
            np.concatenate([np.zeros((0, 2), np.int32), *self._owners]),
            np.concatenate([np.zeros(0), *self._factors]),
        )

    def cuts(self) -> np.ndarray:
        """Cuts of all of them."""
        return np.concatenate([np.zeros(0, np.int32), *self._cuts])

    def _settle(self) -> None:
        if self._single:
            rows, owners, factors = zip(*self._single, strict=True)
            owned = np.array(owners, np.int32)
            columns = np.array(rows, np.int64)
            kind = integers(int(columns.max(initial=0)) + 1)
            self._rows.append(columns.astype(kind, copy=False))
            self._owners.append(owned[:, :2])
            self._cuts.append(owned[:, 2])
            self._factors.append(np.array(factors, float))
            self._single.clear()


@dataclass
class Unit:
    """One unit while it is laid out: contributions still to be added, first slot of each step, for
    each of its groups whether it holds something, and the rows so far.
    """

    counts: dict[int, int]  # cells of a group of each step that the unit has
    places: Mapping[int, Place]
    pending: dict[int, list[Part]]
    place: dict[int, int] = field(default_factory=dict)
    begun: dict[int, bytearray] = field(default_factory=dict)
    slots: Slots = field(default_factory=Slots)
    operations: list[tuple[int, ...]] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)
    factors: list[tuple[float, float]] = field(default_factory=list)
    terms: Terms = field(default_factory=Terms)
    loads: dict[int, int] = field(default_factory=dict)  # looks, by operation
    reduces: dict[int, int] = field(default_factory=dict)  # cuts, by operation

    def begin(self, number: int, run: Run) -> Iterator[tuple[Run, bool]]:
        """The parts of a run, each with whether its groups hold nothing yet; from now on they do."""
        held = self.begun[number][run.groups]
        ends = [i for i in range(1, run.times) if held[i] != held[i - 1]]
        for first, end in itertools.pairwise([0, *ends, run.times]):
            yield run.part(first, end - first), not held[first]
        self.begun[number][run.groups] = b"\1" * run.times

    def ready(self, number: int, now: int) -> list[Part]:
        """Take the contributions to a step whose sources come before step ``now``."""
        found = [part for part in self.pending[number] if part.source < now]
        self.pending[number] = [part for part in self.pending[number] if part.source >= now]
        return found

    def add(
        self,
        row: tuple[int, ...],
        steps: tuple[int, int],
        factors: tuple[float, float] = (1.0, 0.0),
        copies: tuple[int, ...] = ONCE,
    ) -> None:
        """One more operation: its columns, its steps, factor and bias, and how it is repeated."""
        self.operations.append((*row, *copies))
        self.steps.append(steps)
        self.factors.append(factors)

    def begin_each(self, number: int, groups: np.ndarray) -> np.ndarray:
        """For each of some groups, one after the other, whether it holds nothing yet; from now on
        it does.
        """
        held = np.frombuffer(self.begun[number], np.uint8)
        fresh = np.zeros(len(groups), bool)
        fresh[np.unique(groups, return_index=True)[1]] = True
        fresh &= held[groups] == 0
        held[groups] = 1
        return fresh

    def outline(self, result: int) -> Outline:
        """What all units that look alike have in common."""
        rows = Rows(
            np.array(self.operations, np.int64).reshape(-1, len(COLUMNS)),
            np.array(self.steps, np.int64).reshape(-1, 2),
            np.array(self.factors, float).reshape(-1, 2),
            *self.terms.all(),
            np.arange(len(self.operations)) == 0,
        )
        loads, reduces = np.full((2, len(rows.operations)), -1)
        for into, held in ((loads, self.loads), (reduces, self.reduces)):
            into[list(held)] = list(held.values())
        return Outline(rows, loads, reduces, self.terms.cuts(), self.slots.top, result)
