"""What a group of sample pairs costs: the work that a runner does for it, counted exactly and
without running anything.

Every count is of things that take the same time each time they happen, on a given machine: cells
loaded, contributions by kind of mask, calls. ``speeds`` measures how long each takes.
"""

from dataclasses import dataclass

import numpy as np

from npk.backends.cpu.runners import ProductRunner, ProgramRunner
from npk.backends.layout import BITS, REAL
from npk.backends.program.boxes import WIDTH
from npk.backends.program.program import (
    BOX,
    CLEAR,
    COLLAPSE,
    COLUMNS,
    GATHER,
    LANES,
    LAYOUT,
    LOAD,
    REDUCE,
    TERMS,
    TOGETHER,
)

# sizes of what an operation moves, powers of two: the larger, the farther away it lies
KNOTS = (15, 17, 19, 20, 21, 23, 26)
_MOVED = tuple(f"moved, 2^{knot} bytes" for knot in KNOTS)
_FORMS = tuple(
    f"{kind}{words}" for kind in ("chained ", "bits ") for words in ("1", "2", "more", "words")
)
PROGRAM = (
    *(
        "group",
        "sums",
        "operations",
        "loaded",
        "cleared",
        "gathered cells",
        "gathered",
        "runs",
        "outputs",
        "columns",
        "column entries",
    ),
    *("calls", "cells", "kept cells", "ones", *_FORMS, "numbers", "channels", "flushes", *_MOVED),
)
PRODUCT = ("group", "bits", "words", "numbers", "channels", "biases", *_MOVED)
_TERMS = (*TERMS[:-1], *LAYOUT)
_TIMES = COLUMNS.index("times")
_FLUSH = 16  # contributions of a reduction that are added up together
_BLOCKS = 4  # blocks of columns of a product that the rows pass together


@dataclass(frozen=True)
class Work:
    """A program as a group of ``rows`` x 16 pairs runs it; ``terms`` end in their masks' layout."""

    rows: int
    itemsize: int
    operations: np.ndarray
    terms: np.ndarray
    tables: np.ndarray
    sizes: np.ndarray

    @property
    def lines(self) -> float:
        """Lines of the cache that a cell takes."""
        return self.rows * LANES * self.itemsize / 64

    def counts(self) -> np.ndarray:
        """How often each of ``PROGRAM`` happens in a group."""
        kind, _, cells, *_ = self.operations.T
        amounts = {"group": 1, "sums": self.sizes[1], "operations": len(kind)}
        amounts |= {"loaded": cells[kind == LOAD].sum(), "cleared": cells[kind == CLEAR].sum()}
        filled = np.concatenate([[0], np.cumsum(self.tables >= 0, dtype=np.int64)])
        moved = _Moved(len(kind))
        amounts |= (
            self._gathered(filled, moved)
            | self._boxes(filled, moved)
            | self._terms(filled, moved)
            | self._sums(moved)
        )
        amounts |= moved.by_size(self.sizes[1] * self.rows * LANES * 8)
        return np.array([amounts[name] for name in PROGRAM], float)

    def _gathered(self, filled: np.ndarray, moved: "_Moved") -> dict[str, float]:
        """Window sums one by one."""
        chosen = self.operations[:, 0] == GATHER
        _, _, cells, first, k, _, _, times, *_ = self.operations[chosen].T
        added = (filled[first + cells * k] - filled[first]) * times
        cells = cells * times
        moved.add(chosen, (added + cells) * self.lines, 2 * cells * self.lines)
        return {"gathered cells": cells.sum(), "gathered": added.sum()}

    def _boxes(self, filled: np.ndarray, moved: "_Moved") -> dict[str, int]:
        """Window sums that share columns: their tables are read run by run, of all at once."""
        chosen = np.flatnonzero(self.operations[:, 0] == BOX)
        (runs, t, height), times = self.operations[chosen, 2:5].T, self.operations[chosen, _TIMES]
        total, runs_of_all = np.zeros(3, np.int64), int((runs * times).sum())
        for run in range(runs.max(initial=0)):
            chosen, runs, t, height, times = (
                values[runs > run] for values in (chosen, runs, t, height, times)
            )
            outputs = self.tables[t].astype(np.int64)
            end = t + 1 + (outputs + WIDTH - 1) * height
            added = (filled[end] - filled[t + 1]) * times
            columns, outputs = (outputs + WIDTH - 1) * times, outputs * times
            total += [n.sum() for n in (outputs, columns, added)]
            moved.add(chosen, (added + outputs) * self.lines, 2 * outputs * self.lines)
            t = end
        return {
            "runs": runs_of_all,
            **dict(zip(("outputs", "columns", "column entries"), total.tolist(), strict=True)),
        }

    def _terms(self, filled: np.ndarray, moved: "_Moved") -> dict[str, float]:
        """Contributions of terms, by kind of mask."""
        owners = np.flatnonzero(self.operations[:, 0] >= COLLAPSE)
        kind, _, cells, first, count, *_ = self.operations[owners].T
        owners, kind, cells, first = (
            np.repeat(values, count)
            for values in (owners, kind, cells, first - np.cumsum(count) + count)
        )
        term = dict(zip(_TERMS, self.terms[first + np.arange(len(cells))].T, strict=True))
        added = filled[term["pair"] + cells * term["k"]] - filled[term["pair"]]
        real = term["form"] == REAL
        # of a copy that takes no overlap nothing is left but what a term without a mask does
        shared = ~real & (term["k"] == 1) & (term["weight"] < 0)
        again = np.where(shared, added * (term["times"] - 1), 0)
        added = np.where(shared, added, added * term["times"])
        collapses, all_cells = kind == COLLAPSE, cells * term["times"]
        amounts = {
            "calls": (-(-cells // TOGETHER))[collapses].sum(),
            "cells": all_cells[collapses].sum(),
            "kept cells": all_cells[collapses & (term["fresh"] == 0)].sum(),
        }
        bits, chained, width = term["form"] == BITS, term["chain"] >= 0, term["width"]
        for name, chosen in (("chained ", chained), ("bits ", bits & ~chained)):
            amounts |= {
                f"{name}{words}": added[chosen & (width == words)].sum() for words in (1, 2)
            }
            amounts[f"{name}more"] = added[chosen & (width > 2)].sum()
            amounts[f"{name}words"] = (added * width)[chosen & (width > 2)].sum()
        amounts |= {
            "numbers": added[real].sum(),
            "channels": (added * width)[real].sum(),
            "ones": added[~real & ~bits].sum() + again.sum(),
        }
        planes = all_cells * ((term["source"] > 0).astype(int) + (collapses & (term["fresh"] != 0)))
        lines = planes * self.lines + added * width * np.where(bits, 1, self.itemsize / 4)
        moved.add(
            np.arange(len(self.operations)), *2 * [np.bincount(owners, lines, len(self.operations))]
        )
        return amounts

    def _sums(self, moved: "_Moved") -> dict[str, float]:
        """Additions to sums of reductions, and what moves between sums and planes."""
        chosen = np.flatnonzero(self.operations[:, 0] == REDUCE)
        rows, which = np.unique(self.operations[chosen, 1:3], axis=0, return_inverse=True)
        often = [self._flushes(first, cells) for first, cells in rows.tolist()]
        flushes = np.array([*often, 0])[which.reshape(-1)]
        loads = np.flatnonzero(self.operations[:, 0] == LOAD)
        for operations, lines in ((chosen, 2 * flushes), (loads, self.operations[loads, 2])):
            moved.add_sums(operations, lines * self.rows * LANES / 8)
        return {"flushes": flushes.sum()}

    def _flushes(self, first: int, cells: int) -> int:
        starts = np.flatnonzero(np.diff(self.tables[first : first + cells], prepend=-2))
        return int((-(-np.diff(starts, append=cells) // _FLUSH)).sum())


class _Moved:
    """Lines of the cache that operations read and write, and how many different ones those are."""

    def __init__(self, operations: int) -> None:
        self.lines, self.held, self.sums = np.zeros((3, operations))

    def add(self, operations: np.ndarray, lines: np.ndarray, held: np.ndarray) -> None:
        """Lines of planes and masks."""
        self.lines[operations] += lines
        self.held[operations] += held

    def add_sums(self, operations: np.ndarray, lines: np.ndarray) -> None:
        """Lines of sums."""
        self.sums[operations] += lines
        self.held[operations] += lines

    def by_size(self, sums: float) -> dict[str, float]:
        """All lines by the size that they are part of; ``sums``: bytes of all sums."""
        near = _at_sizes(self.lines + self.sums / 2, self.held * 64)
        # half of them: those not met again in the next unit
        far = _at_sizes(np.array([self.sums.sum() / 2]), np.array([sums]))
        return {name: near[name] + far[name] for name in _MOVED}


def counts_of(runner: ProgramRunner | ProductRunner) -> np.ndarray:
    """How often each of ``PROGRAM`` (or of ``PRODUCT``) happens in a group of pairs.

    Args:
        runner: of a backend.
    """
    if isinstance(runner, ProductRunner):
        product = runner.product
        return product_counts(runner.factors, runner.dtype.itemsize, product.is_biased)
    program = runner.program
    return Work(
        runner.rows,
        runner.dtype.itemsize,
        program.operations,
        runner.terms,
        program.tables,
        runner.sizes,
    ).counts()


def product_counts(factors: np.ndarray, itemsize: int, biased: bool = False) -> np.ndarray:
    """How often each of ``PRODUCT`` happens in a group, of factors ``(form, first, width)``;
    ``biased``: with a bias behind each.
    """
    form, _, width = factors.T
    bits = form == BITS
    amounts = {
        "group": 1,
        "bits": bits.sum(),
        "words": width[bits].sum(),
        "numbers": (~bits).sum(),
        "channels": width[~bits].sum(),
        "biases": len(factors) * biased,
    }
    lines = amounts["words"] + amounts["channels"] * itemsize / 4
    amounts |= _at_sizes(np.array([lines]), np.array([lines * 64 * _BLOCKS]))
    return np.array([amounts[name] for name in PRODUCT], float)


def _at_sizes(moved: np.ndarray, sizes: np.ndarray) -> dict[str, float]:
    """What is moved, shared out to the two knots next to the size that it is part of."""
    places = np.interp(np.log2(np.maximum(sizes, 1)), KNOTS, range(len(KNOTS)))
    return {
        name: float((moved * np.maximum(0, 1 - np.abs(places - i))).sum())
        for i, name in enumerate(_MOVED)
    }
