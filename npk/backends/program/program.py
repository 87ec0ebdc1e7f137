"""Program: a flat list of operations on slots of cells, the same for every pair of samples;
``compiler`` makes it from planes.
"""

import itertools
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from npk.recursion.masks import Mask

LOAD, CLEAR, GATHER, BOX, COLLAPSE, REDUCE, SWEEP, DRAIN = range(8)
COPIES = ("times", "out_step", "source_step")
COLUMNS = ("kind", "out", "cells", "first", "count", "source", "sums", *COPIES)
_SUMS = COLUMNS.index("sums")
LANES = 16  # columns of the samples that are computed together
ROWS = 8  # rows of the samples that are computed together, at most
_PLANE = 1 << 18  # bytes of a plane of cells that leave room in the second cache
TOGETHER = 32  # cells of a collapse that are finished before the next ones
LAYOUT = ("form", "first", "stride", "width")
TERMS = (
    *("k", "source", "pair", "u", "v", "weight", "out", "fresh", "chain", "start"),
    *COPIES,
    "mask",
)
ONCE = (1, 0, 0)  # of ``COPIES``


@dataclass(frozen=True)
class Program:
    """Operations in order, terms of collapses, index tables, weights, and what all are scaled by.

    LOAD fills ``cells`` cells from ``sums`` on, CLEAR puts zeros. GATHER adds up ``count`` cells of
    ``source`` for each, by the table ``first``; BOX does so by runs of columns of ``count`` cells
    (see ``boxes``), ``cells`` being the number of runs. COLLAPSE adds up ``count`` terms from
    ``first`` on, cell by cell. SWEEP does what a BOX and the term ``sums`` of a COLLAPSE do that
    alone reads it, cell for cell, and keeps no plane of the window sums. REDUCE adds ``cells`` contributions of the term ``first`` to the
    sums ``sums`` + tables[out ...]. DRAIN does what a BOX, whose table is ``count``, and a REDUCE of
    all its cells to the sum ``sums`` + tables[out] do. A term adds ``k`` contributions a cell, each a cell of
    ``source`` times an overlap, to the cells from ``out`` on, or fills them if it is ``fresh``;
    ``mask`` counts segments of masks, -1 stands for ones.

    GATHER, BOX and terms of a COLLAPSE are done ``times`` times, each ``out_step`` and
    ``source_step`` cells behind the time before: groups that are alike but for their cells, whose
    overlaps are taken once.
    """

    operations: np.ndarray  # (operations, COLUMNS) int64
    terms: np.ndarray  # (terms, TERMS) int32, or int64 where tables are longer than that holds
    tables: np.ndarray  # int32
    weights: np.ndarray  # float64
    steps: np.ndarray  # (operations, 2): step and source step (-1: V = 1)
    factors: np.ndarray  # (operations, 2): factor and bias before exponents
    term_steps: np.ndarray  # (terms, 2)
    term_factors: np.ndarray  # (terms,)
    masks: tuple[Mask, ...]  # those that are read
    cells: int  # slots needed
    sums: int  # cells of reductions
    result: int  # slot of the kernel, or of the first one of several
    parts: int = 1  # kernels
    # (operations,): whether one is the first of a unit, which depends on others by sums alone
    begins: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def rows(self, itemsize: int) -> int:
        """Rows of samples to compute together: as many as share what is read of a column, while
        planes stay in the second cache.
        """
        cells = self.operations[self.operations[:, 0] == COLLAPSE, COLUMNS.index("cells")]
        typical = (cells**2).sum() / max(cells.sum(), 1)  # of the plane that a cell is in
        return ROWS if typical * ROWS * LANES * itemsize < _PLANE else ROWS // 2

    def one_by_one(self) -> "Program":
        """The same program with every operation and every term done once."""
        operations, number = _repeated(self.operations, COLUMNS)
        terms, term = _repeated(self.terms, TERMS)
        firsts = np.cumsum([0, *self.terms[:, TERMS.index("times")]])
        begin, count = (COLUMNS.index(name) for name in ("first", "count"))
        drains = operations[:, 0] == DRAIN
        operations[drains, begin] = firsts[operations[drains, begin]]
        owners = np.isin(operations[:, 0], (COLLAPSE, REDUCE))
        of = operations[owners]
        operations[owners, begin] = firsts[of[:, begin]]
        swept = operations[:, 0] == SWEEP
        operations[swept, _SUMS] = firsts[operations[swept, _SUMS]]
        operations[owners, count] = firsts[of[:, begin] + of[:, count]] - firsts[of[:, begin]]
        return replace(
            self,
            operations=operations,
            terms=terms,
            steps=self.steps[number],
            factors=self.factors[number],
            begins=self.begins[number] & (np.diff(number, prepend=-1) > 0),
            term_steps=self.term_steps[term],
            term_factors=self.term_factors[term],
        )

    @property
    def chains(self) -> int:
        """Chains of masks that are alive together."""
        return int(self.terms[:, TERMS.index("chain")].max(initial=-1)) + 1

    def scalars(self, exponents: np.ndarray) -> np.ndarray:
        """Scale and bias of each operation under the exponents of the steps, ``(operations, 2)``."""
        scale = np.ldexp(self.factors[:, 0], _shift(self.steps, exponents))
        return np.stack([scale, np.ldexp(self.factors[:, 1], -exponents[self.steps[:, 0]])], 1)

    def scales(self, exponents: np.ndarray) -> np.ndarray:
        """Scale of each term, ``(terms,)``."""
        return np.ldexp(self.term_factors, _shift(self.term_steps, exponents))


def _shift(steps: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    into, source = steps.T
    return np.where(source >= 0, exponents[source], 0) - exponents[into]


def _repeated(rows: np.ndarray, columns: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Rows once for each of their times, and the number of the row that each comes from."""
    times, out, source = (columns.index(name) for name in COPIES)
    number = np.repeat(np.arange(len(rows)), rows[:, times])
    before = np.cumsum(rows[:, times]) - rows[:, times]
    copy, made = np.arange(len(number)) - before[number], rows[number]
    for step, column in ((out, "out"), (source, "source")):
        made[:, columns.index(column)] += copy * made[:, step]
    made[:, [times, out, source]] = ONCE
    return made, number


class Rows(NamedTuple):
    """Operations and their terms: rows as in a program, where ``first`` counts these terms alone;
    ``begins``: of each operation whether it is the first of its unit.
    """

    operations: np.ndarray
    steps: np.ndarray
    factors: np.ndarray
    terms: np.ndarray
    term_steps: np.ndarray
    term_factors: np.ndarray
    begins: np.ndarray


@dataclass
class Draft:
    """A program as it is written: rows are appended, equal tables and masks kept once."""

    rows: list[Rows] = field(default_factory=list)
    terms: int = 0  # so far
    masks: dict[Mask, int] = field(default_factory=dict)  # with the number of its first segment
    _segments: int = 0
    _tables: "_Pool" = field(default_factory=lambda: _Pool(np.int32))
    _weights: "_Pool" = field(default_factory=lambda: _Pool(np.float64))

    def add(self, rows: Rows) -> None:
        """More operations; those that count terms count on from here."""
        kinds, first = rows.operations[:, 0], COLUMNS.index("first")
        rows.operations[np.isin(kinds, (COLLAPSE, REDUCE, DRAIN)), first] += self.terms
        rows.operations[kinds == SWEEP, _SUMS] += self.terms
        self.terms += len(rows.terms)
        self.rows.append(rows)

    def mask(self, mask: Mask) -> int:
        """Number of a mask's first segment; equal masks are one."""
        if mask not in self.masks:
            self.masks[mask] = self._segments
            self._segments += len(mask.segments)
        return self.masks[mask]

    def tables(self, values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        """Where index tables begin, which follow one another in the values."""
        return self._tables.place(values, bounds)

    def values(self, table: int, count: int) -> np.ndarray:
        """The first entries of an index table."""
        return self._tables.data[table : table + count]

    def weights(self, values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        """Where weights of tables begin, which follow one another in the values."""
        return self._weights.place(values, bounds)

    def finished(self, cells: int, sums: int, result: int, parts: int) -> Program:
        """The program; the draft is used up."""
        columns = list(map(list, zip(*self.rows, strict=True)))
        self.rows.clear()
        # one after the other, each let go before the next: a grouped network has millions of terms
        rows = Rows(*(np.concatenate(columns.pop(0)) for _ in Rows._fields))
        return Program(
            rows.operations,
            rows.terms,
            self._tables.all(),
            self._weights.all(),
            rows.steps,
            rows.factors,
            rows.term_steps,
            rows.term_factors,
            tuple(self.masks),
            cells,
            sums,
            result,
            parts,
            rows.begins,
        )


class _Pool:
    """Arrays one after the other, equal ones once."""

    def __init__(self, dtype: type) -> None:
        self.data, self.size = np.zeros(1 << 10, dtype), 0
        self.known: dict[int, list[int]] = {}

    def place(self, values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        """Where arrays begin, which follow one another in the values."""
        flat = np.ascontiguousarray(values, self.data.dtype).reshape(-1)
        ends = itertools.pairwise(bounds.tolist())
        return np.array([self._place(flat[begin:end]) for begin, end in ends], np.int64)

    def _place(self, flat: np.ndarray) -> int:
        held = flat.tobytes()
        alike = self.known.setdefault(hash(held), [])
        for start in alike:
            if self.data[start : start + len(flat)].tobytes() == held:
                return start
        start, self.size = self.size, self.size + len(flat)
        if self.size > len(self.data):
            self.data.resize(self.size + len(self.data) // 8, refcheck=False)
        self.data[start : self.size] = flat
        alike.append(start)
        return start

    def all(self) -> np.ndarray:
        """All of them; the pool is used up."""
        self.data.resize(max(self.size, 1), refcheck=False)
        return self.data
