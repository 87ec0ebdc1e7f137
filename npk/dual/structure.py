"""Facts read off a path graph and its plan: each node in words, and what a pair of samples costs."""

from collections.abc import Sequence
from dataclasses import dataclass

from npk.dual.path_graph import PathNode
from npk.dual.path_operators import AveragePool, BatchNorm, Convolution, Gate, Input, MaxPool, Rearrange, Scale, Shift, describe
from npk.dual.planes import Planes
from npk.dual.positions import AdaptiveWindow, Grid, Window
from npk.dual.recursion import Field, Recursion


@dataclass(frozen=True)
class Effort:
    """What one pair of samples costs, counted in the planned recursion.

    ``masks`` are formed once a sample; ``fields`` are the parametric layers; ``cells``: pairs of positions that all steps together visit;
    ``words``: words of 64 gates (or single real numbers) that overlaps multiply; ``reads``: numbers that fields and collapses read.
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
                words += seen * int((-(-channels // 64) if hard[links.term.mask] else channels).sum())
    fields = sum(isinstance(step, Field) for step in recursion.steps)
    return Effort(len(recursion.masks), fields, planes.cells(), words, reads)


def operator_of(node: PathNode) -> str:
    """The operator of a node in a few words, its parameters left out."""
    match node.operator:
        case Convolution(window=window, groups=groups):
            return _convolution_of(node, window) + (f", {groups} groups" if groups > 1 else "")
        case AveragePool(window=window) | MaxPool(window=window):
            name = "average pool" if isinstance(node.operator, AveragePool) else "max pool"
            return f"global {name}" if node.positions == 1 else name + _geometry(window)
        case BatchNorm():
            return "batch norm"
        case Gate(slope=slope):
            plain = f"gate, slope {slope:g}" if isinstance(slope, float | int) and slope else "gate"
            return "gate, a slope a channel" if isinstance(slope, tuple) else plain
        case Scale(factor=factor, weight=weight):
            return "scale" + ("" if weight else f" by {factor:g}")
        case Input(ones=ones):
            return "ones" if ones else "input"
        case Rearrange() as operator:
            return describe(operator)
    return type(node.operator).__name__.lower()


def _convolution_of(node: PathNode, window: Window) -> str:
    if window.size == 1 and set(window.stride) <= {1}:
        return "linear"
    if node.positions == 1 and not any(map(any, window.padding)):
        return f"linear on {_sides(window.kernel)} positions"
    return ("transposed " if window.transposed else "") + "convolution" + _geometry(window)


def _geometry(window: Window | AdaptiveWindow) -> str:
    if isinstance(window, AdaptiveWindow):
        return f" to {_sides(window.sides)}, windows of at most {_sides(window.kernel)}"
    padding = max(map(max, window.padding))
    parts = [f" {_sides(window.kernel)}", f"stride {_sides(window.stride)}" if set(window.stride) != {1} else ""]
    parts += [f"padding {padding}" if padding else "", f"dilation {max(window.dilation)}" if max(window.dilation) > 1 else ""]
    return ", ".join(part for part in parts if part)


def _sides(sides: Grid) -> str:
    return str(sides[0]) if len(sides) == 1 else "x".join(map(str, sides))


def module_of(node: PathNode) -> str:
    """Path of the module behind a node, as its parameters or gates are called; else the node's name."""
    match node.operator:
        case Convolution(weight=name) | BatchNorm(weight=str(name)) | BatchNorm(mean=name):
            return name.rsplit(".", 1)[0]
        case Scale(weight=str(name)) | Shift(bias=str(name)):
            return name.rsplit(".", 1)[0]
    return node.gate or node.name
