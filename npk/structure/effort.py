"""Facts read off a path graph and its plan: a node's module, and what a pair of samples costs."""

from collections.abc import Sequence
from dataclasses import dataclass

from npk.graph.facts import refuse_operator
from npk.graph.node import PathNode
from npk.graph.operators import (
    Add,
    AveragePool,
    BatchNorm,
    Convolution,
    Gate,
    Input,
    MaxPool,
    Rearrange,
    Scale,
    Shift,
)
from npk.recursion.planes import Planes
from npk.recursion.steps import Field, Recursion


@dataclass(frozen=True)
class Effort:
    """What one pair of samples costs, counted in the planned recursion.

    ``masks`` are formed once a sample; ``fields`` are the parametric layers; ``cells``: pairs of
    positions that all steps together visit; ``words``: words of 64 gates (or single real numbers)
    that overlaps multiply; ``reads``: numbers that fields and collapses read.
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


def effort(recursion: Recursion, planes: Planes, hard: Sequence[bool]) -> Effort:
    """Count the work of one pair of samples.

    Args:
        recursion: the plan.
        planes: the pairs of positions that it visits.
        hard: for each mask whether its overlaps are counts of bits.

    Returns:
        The counts.
    """
    words = reads = 0
    for number, step in enumerate(recursion.steps):
        for _, links in planes.in_chunks(number, planes.pairs[number]):
            seen = int(((links.pair >= 0) if links.source is not None else (links.u >= 0)).sum())
            reads += seen * (step.groups if links.term is None else len(links.term.blocks))
            if links.term is not None and links.term.mask is not None:
                channels = links.term.blocks[:, 3]
                words += seen * int(
                    (-(-channels // 64) if hard[links.term.mask] else channels).sum()
                )
    fields = sum(isinstance(step, Field) for step in recursion.steps)
    return Effort(len(recursion.masks), fields, planes.cells(), words, reads)


def module_of(node: PathNode) -> str:
    """Path of the module behind a node, by its parameters or gates; else the node's name.

    Raises:
        UnsupportedGraphError: an operator that is not known here.
    """
    match node.operator:
        case Convolution(weight=name) | BatchNorm(weight=str(name)) | BatchNorm(mean=name):
            return name.rsplit(".", 1)[0]
        case Scale(weight=str(name)) | Shift(bias=str(name)):
            return name.rsplit(".", 1)[0]
        case Gate(gate=name) | MaxPool(gate=name):
            return name
        case Input() | Scale() | Shift() | AveragePool() | Rearrange() | Add():
            return node.name
        case other:
            refuse_operator("module", other)
