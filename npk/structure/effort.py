"""Facts read off the plan of a path graph: what a pair of samples costs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from npk.recursion.needed import Inflow, needed_steps
from npk.recursion.steps import Field, Recursion


@dataclass(frozen=True)
class Effort:
    """What one pair of samples costs, counted in the planned recursion.

    ``masks`` are formed once a sample; ``fields`` are the parametric layers, and copies of fields to
    which constants are added; ``cells``: pairs of positions that all steps together visit;
    ``words``: words of 64 gates (or single real numbers) that overlaps multiply; ``reads``: numbers
    that fields and collapses read.
    """

    masks: int
    fields: int
    cells: int
    words: int
    reads: int

    @property
    def operations(self) -> int:
        """Words and reads together."""
        return self.words + self.reads


def effort(recursion: Recursion, hard: Sequence[bool]) -> Effort:
    """Count the work of one pair of samples.

    Args:
        recursion: the plan.
        hard: for each mask whether its overlaps are counts of bits.

    Returns:
        The counts.
    """
    words = reads = 0
    steps = needed_steps(recursion)
    seen: dict[tuple[int, ...], int] = {}  # layers that look alike read alike
    for step in steps:
        for inflow in step.inflows:
            key = (step.number, inflow.source is None, inflow.positions, *inflow.tables)
            if key not in seen:
                seen[key] = _reads(inflow, step.pairs)
            term = inflow.term
            reads += seen[key] * (step.step.groups if term is None else len(term.blocks))
            if term is not None and term.mask is not None:
                channels = term.blocks[:, 3]
                words += seen[key] * int(
                    (-(-channels // 64) if hard[term.mask] else channels).sum()
                )
    fields = sum(isinstance(step, Field) for step in recursion.steps)
    cells = sum(len(step.pairs) * step.step.groups for step in steps)
    return Effort(len(recursion.masks), fields, cells, words, reads)


def _reads(inflow: Inflow, pairs: np.ndarray) -> int:
    """Contributions to some pairs of a step, an overlap of masks where V = 1."""
    links = (inflow.links(some) for some in inflow.chunks(pairs))
    return sum(int(((some.u if inflow.source is None else some.pair) >= 0).sum()) for some in links)
