"""A program laid out for a machine: the arrays that its runners read, with the places of its masks
among a sample's words.
"""

import numpy as np

from npk.backends.layout import Layout
from npk.backends.program.program import TERMS, TOGETHER, Program


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
        self.terms = np.concatenate(
            [program.terms[:, :-1], layout.rows[program.terms[:, -1]]], axis=1
        )
        chained = self.terms[self.terms[:, TERMS.index("chain")] >= 0]
        self.cells, self.sums = program.cells, program.sums
        self.words = program.chains * TOGETHER * int(chained[:, -1].max(initial=0))
        self.weights = program.weights.astype(self.dtype)
