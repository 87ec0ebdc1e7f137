r"""PathGraph -> Recursion: the second moment of the value network, planned from shapes alone.

Between two parametric layers the second moment of an activation is a sum of terms, each a field V
over pairs of positions and a mask M of one sample:

.. math:: E[h_c(s) h'_c(t)] = \sum_{terms} \sum_{a,b} w_{sa} w_{tb}\, V(\pi_a(s), \pi_b(t))\, M_a(c, s)\, M'_b(c, t)

A *collapse* sums a node's terms over channels: V times the overlap of two masks. A *field* is a
parametric layer applied to a collapse: V(s, t) = factor * sum over the window of W(ks+d, kt+d) +
bias. Nothing else happens, and every backend runs these two steps.
"""

from dataclasses import dataclass

import numpy as np

from npk.graph.positions import Grid
from npk.recursion.masks import Mask


@dataclass(frozen=True)
class Term:
    """One term of a collapse.

    ``field``: step that computes V, or ``None`` for V = 1. ``cells``, ``places`` and ``weights``
    are ``(positions, family)``: position in the field's grid, position in the mask, and coefficient
    of each member of the family; -1 outside. ``mask``: number of the mask, or ``None`` for ones.
    ``blocks``: rows (group of the collapse, group of the field, segment of the mask, channels), one
    for each pair of groups that share channels; a single row (0, 0, 0, channels) unless layers are
    grouped.
    """

    field: int | None
    cells: np.ndarray
    mask: int | None
    places: np.ndarray
    weights: np.ndarray
    blocks: np.ndarray

    @property
    def family(self) -> int:
        """Number of members of the family."""
        return self.cells.shape[1]


@dataclass(frozen=True)
class Collapse:
    """W_h(s, t) = sum over terms and over the channels of group h."""

    name: str
    terms: tuple[Term, ...]
    grid: Grid
    positions: int
    groups: int = 1

    @property
    def sources(self) -> tuple[int, ...]:
        """Steps whose results it reads."""
        return tuple(term.field for term in self.terms if term.field is not None)

    @property
    def channels(self) -> int:
        """Number of channels it sums over, all groups and terms together."""
        return int(sum(term.blocks[:, 3].sum() for term in self.terms))


@dataclass(frozen=True)
class Field:
    """V_h(s, t) = factor * sum over offsets k of W_h(taps[k, s], taps[k, t]) + bias, for each group
    h.

    ``layer``: whether it is a layer with weights, of variance ``factor``; the mean over output
    units is none.
    """

    name: str
    collapse: int
    taps: np.ndarray
    factor: float
    bias: float
    grid: Grid
    positions: int
    groups: int = 1
    layer: bool = True

    @property
    def sources(self) -> tuple[int, ...]:
        """Steps whose results it reads."""
        return (self.collapse,)


@dataclass(frozen=True)
class Recursion:
    """Steps in order; the last one is a collapse on one position, the kernel itself, or a kernel
    for each of its groups. ``print`` shows them.
    """

    steps: tuple[Collapse | Field, ...]
    masks: tuple[Mask, ...]

    @property
    def parts(self) -> int:
        """Number of kernels that it gives."""
        return self.steps[-1].groups

    def __str__(self) -> str:
        return "\n".join(
            [
                *(_row(number, step) for number, step in enumerate(self.steps)),
                f"{len(self.masks)} masks a sample",
            ]
        )


def _row(number: int, step: Collapse | Field) -> str:
    side = "x".join(map(str, step.grid)) or "1"
    groups = f" in {step.groups} groups" if step.groups > 1 else ""
    if isinstance(step, Field):
        bias = f", bias {step.bias:g}" if step.bias else ""
        return (
            f"{number:4}  V {step.name}: {len(step.taps)} offsets on {side}{groups} from "
            f"{step.collapse}, factor {step.factor:g}{bias}"
        )
    parts = ", ".join(
        f"V{t.field if t.field is not None else '=1'}*M{'=1' if t.mask is None else t.mask}"
        for t in step.terms
    )
    return f"{number:4}  W {step.name}: {step.channels} channels on {side}{groups}, {parts}"
