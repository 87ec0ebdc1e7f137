"""How gates follow classes: the overlap of pairs of one class, beside that of pairs of different
classes.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from npk.errors import DataError
from npk.gates.table import GateTable
from npk.measures.given import Floats, Gates, blocks, checked_table, labels_of, values_in
from npk.shown import Shown


@dataclass(frozen=True, eq=False)
class ClassOverlap(Shown):
    """Overlaps by class, layer by layer from the input on.

    To NumPy, and by index and ``len``, it is its ``ratio``.
    """

    names: tuple[str, ...]  # of the gate layers
    same: Floats  # mean over pairs of one class of <G_l, G_l'> / width, (layers,)
    different: Floats  # mean over pairs of different classes, (layers,)

    @property
    def ratio(self) -> Floats:
        """Same over different, ``(layers,)``; NaN for a layer that no pair of either has in common."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.same / self.different

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, layer: int) -> float:
        return float(self.ratio[layer])

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.ratio, dtype)


def class_overlap(table: Gates, y: ArrayLike) -> ClassOverlap:
    r"""Mean share of a layer's gates that are on for both samples of a pair: of pairs of one class,
    and of pairs of different classes.

    .. math:: \frac{1}{\text{pairs}} \sum_{i \ne j} \frac{\langle G_l(x_i),\, G_l(x_j) \rangle}{\text{width of } l}

    No pair is looked at: :math:`\sum_{i, j \in c} \langle G_i, G_j \rangle = \| \sum_{i \in c} G_i \|^2`,
    so that one count a unit and class is enough, in one pass over the table. Of hard gates these are
    whole numbers, and so exact.

    Args:
        table: gates of n samples, in memory or in a store; soft gates are taken as they are.
        y: class of each sample, (n,): numbers or text.

    Returns:
        The two means and their ratio, layer by layer. A layer's width is its number of gates:
        channels times positions. The ratio is above 1 where samples of one class share more gates.

    Raises:
        ShapeError: not one label a sample.
        DataError: no gate table; fewer than two classes, or no two samples of one class; no labels.
    """
    classes, numbers = labels_of(y, len(checked_table(table)))
    members = np.bincount(numbers).tolist()
    alike, pairs = sum(c * (c - 1) for c in members), len(numbers) * (len(numbers) - 1)
    if not alike:
        what = f"y has {len(classes)} classes for {len(numbers)} samples"
        raise DataError(f"{what}: no two are of one class. Give more samples of each class.")
    sums = {name: _Sums(table, name, len(classes)) for name in table.names}
    for rows, (part,) in blocks(table):
        for name in table.names:
            sums[name].take(part, name, numbers[rows])
    means = [s.means(alike, pairs - alike) for s in sums.values()]
    same, different = np.array(means, np.float64).T
    return ClassOverlap(table.names, same, different)


class _Sums:
    """Sums of the gates of a layer while a table goes by; of hard gates whole numbers."""

    def __init__(self, table: Gates, name: str, classes: int) -> None:
        entry = table.entries[name]
        kind = np.int64 if entry.packed else np.float64
        self.of_class = np.zeros((classes, math.prod(entry.shape)), kind)
        self.norms: float = 0  # of all samples' gates, squared

    def take(self, part: GateTable, name: str, numbers: np.ndarray) -> None:
        """Add some samples, whose classes are given."""
        kind = self.of_class.dtype
        for c in range(len(self.of_class)):
            gates = values_in(part, name, numbers == c)
            self.of_class[c] += gates.sum(0, dtype=kind)
            # a hard gate is its own square
            self.norms += int(gates.sum()) if kind == np.int64 else _square(gates)

    def means(self, alike: int, unlike: int) -> tuple[float, float]:
        """Mean share over so many pairs of one class, and of different classes; pairs count twice."""
        of_class, width = _square(self.of_class), self.of_class.shape[1]
        within, between = of_class - self.norms, _square(self.of_class.sum(0)) - of_class
        return within / (alike * width), between / (unlike * width)


def _square(values: np.ndarray) -> int | float:
    """Sum of squares; of whole numbers a whole number."""
    return np.sum(values.astype(np.int64 if values.dtype.kind == "i" else np.float64) ** 2).item()
