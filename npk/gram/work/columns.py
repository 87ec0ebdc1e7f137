"""Samples that are the columns of many matrices, such as those that a machine has learnt from."""

from dataclasses import dataclass

import numpy as np

from npk.gates.table import GateTable
from npk.gram.engine import Engine
from npk.gram.work.sides import Sides


@dataclass(frozen=True, eq=False)
class Columns:
    """Gates of some samples, with what a matrix that has them as columns would compute anew.

    ``exponents``: power of two of each step, and of the size of the matrix. ``roots (n,)``: square
    roots of K(x, x), balanced and scaled, 0 for dead inputs; ``None`` where the scale takes none.
    """

    table: GateTable
    exponents: np.ndarray
    roots: np.ndarray | None

    @classmethod
    def of(cls, engine: Engine, table: GateTable) -> "Columns":
        """What an engine computes of a table."""
        backend, exponents = engine.prepare(table)
        if engine.options.scale != "cosine":
            return cls(table, exponents, None)
        diagonal = Sides(engine, backend, exponents).diagonal(table)[0]
        return cls(table, exponents, np.sqrt(diagonal))

    def __len__(self) -> int:
        return len(self.table)
