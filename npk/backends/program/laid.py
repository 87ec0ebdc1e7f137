"""A program laid out for a machine: the arrays that its runners read, with the places of its masks
among a sample's words.
"""

import numpy as np

from npk.backends.layout import Layout
from npk.backends.program.program import LAYOUT, TERMS, TOGETHER, Program
from npk.recursion.needed import integers


class LaidProgram:
    """What every runner of a program needs.

    ``terms``: those of the program, each with the row of its mask in the layout. ``cells``,
    ``sums``: memory of one pair of samples, in numbers of the dtype and of float64. ``words``: of
    the chains of masks that are alive together, on one side. ``weights``: in the dtype.

    Args:
        program: the program.
        layout: of its masks.
    """

    def __init__(self, program: Program, layout: Layout) -> None:
        self.program, self.dtype = program, layout.dtype
        kind = np.promote_types(program.terms.dtype, integers(int(layout.rows.max()) + 1))
        self.terms = np.empty((len(program.terms), len(TERMS) - 1 + len(LAYOUT)), kind)
        self.terms[:, : len(TERMS) - 1] = program.terms[:, :-1]
        for column, held in enumerate(layout.rows.T, len(TERMS) - 1):
            self.terms[:, column] = held[program.terms[:, -1]]
        chained = self.terms[self.terms[:, TERMS.index("chain")] >= 0]
        self.cells, self.sums = program.cells, program.sums
        self.words = program.chains * TOGETHER * int(chained[:, -1].max(initial=0))
        self.weights = program.weights.astype(self.dtype)
