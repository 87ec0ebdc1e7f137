"""Program: a flat list of operations on slots of cells, the same for every pair of samples;
``compiler`` makes it from planes.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from npk.recursion.masks import Mask

LOAD, CLEAR, GATHER, BOX, COLLAPSE, REDUCE = range(6)
COPIES = ("times", "out_step", "source_step")
COLUMNS = ("kind", "out", "cells", "first", "count", "source", "sums", *COPIES)
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
    ``first`` on, cell by cell. REDUCE adds ``cells`` contributions of the term ``first`` to the
    sums ``sums`` + tables[out ...]. A term adds ``k`` contributions a cell, each a cell of
    ``source`` times an overlap, to the cells from ``out`` on, or fills them if it is ``fresh``;
    ``mask`` counts segments of masks, -1 stands for ones.

    GATHER, BOX and terms of a COLLAPSE are done ``times`` times, each ``out_step`` and
    ``source_step`` cells behind the time before: groups that are alike but for their cells, whose
    overlaps are taken once.
    """

    operations: np.ndarray  # (operations, COLUMNS) int64
    terms: np.ndarray  # (terms, TERMS) int64
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
        owners = operations[:, 0] >= COLLAPSE
        begin, count = (COLUMNS.index(name) for name in ("first", "count"))
        of = operations[owners]
        operations[owners, begin] = firsts[of[:, begin]]
        operations[owners, count] = firsts[of[:, begin] + of[:, count]] - firsts[of[:, begin]]
        return replace(
            self,
            operations=operations,
            terms=terms,
            steps=self.steps[number],
            factors=self.factors[number],
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


@dataclass
class Draft:
    """A program as it is written: rows are appended, equal tables and masks kept once."""

    operations: list[tuple[int, ...]] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)
    factors: list[tuple[float, float]] = field(default_factory=list)
    terms: list[tuple[int, ...]] = field(default_factory=list)
    term_steps: list[tuple[int, int]] = field(default_factory=list)
    term_factors: list[float] = field(default_factory=list)
    masks: dict[Mask, int] = field(default_factory=dict)  # with the number of its first segment
    _segments: int = 0
    _tables: dict[bytes, int] = field(default_factory=dict)
    _weights: dict[bytes, int] = field(default_factory=dict)
    _sizes: list[int] = field(default_factory=lambda: [0, 0])

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

    def add_term(self, row: tuple[int, ...], steps: tuple[int, int], factor: float) -> None:
        """One more term: its columns, its steps and its factor."""
        self.terms.append(row)
        self.term_steps.append(steps)
        self.term_factors.append(factor)

    def mask(self, mask: Mask) -> int:
        """Number of a mask's first segment; equal masks are one."""
        if mask not in self.masks:
            self.masks[mask] = self._segments
            self._segments += len(mask.segments)
        return self.masks[mask]

    def table(self, values: np.ndarray) -> int:
        """Where an index table begins."""
        return _place(self._tables, self._sizes, 0, np.ascontiguousarray(values, np.int32))

    def weight(self, values: np.ndarray) -> int:
        """Where some weights begin."""
        return _place(self._weights, self._sizes, 1, np.ascontiguousarray(values, np.float64))

    def finished(self, cells: int, sums: int, result: int, parts: int) -> Program:
        """The program."""
        return Program(
            np.array(self.operations, np.int64).reshape(-1, len(COLUMNS)),
            np.array(self.terms, np.int64).reshape(-1, len(TERMS)),
            _joined(self._tables, np.int32),
            _joined(self._weights, np.float64),
            np.array(self.steps, np.int64).reshape(-1, 2),
            np.array(self.factors, float).reshape(-1, 2),
            np.array(self.term_steps, np.int64).reshape(-1, 2),
            np.array(self.term_factors, float),
            tuple(self.masks),
            cells,
            sums,
            result,
            parts,
        )


def _place(parts: dict[bytes, int], sizes: list[int], which: int, data: np.ndarray) -> int:
    place = parts.setdefault(data.tobytes(), sizes[which])
    sizes[which] += data.size if place == sizes[which] else 0
    return place


def _joined(parts: dict[bytes, int], dtype: type) -> np.ndarray:
    return np.frombuffer(b"".join(parts) or bytes(np.dtype(dtype).itemsize), dtype)
