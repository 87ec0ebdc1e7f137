"""The recursion in NumPy, float64: plain, exact, and the measure of every other backend."""

import numpy as np

from npk.backends.base import Backend, Told
from npk.gates.table import GateTable
from npk.recursion.masks import form_real
from npk.recursion.steps import Collapse, Field, Recursion, Term


def evaluate(
    recursion: Recursion, rows: GateTable, cols: GateTable, exponents: np.ndarray
) -> np.ndarray:
    """One tile of the kernel divided by 2**exponents[-1], ``(len(rows), len(cols))`` float64; of a
    recursion with several parts ``(parts, len(rows), len(cols))``.
    """
    values = _walk(recursion, rows, cols, exponents)[:, :, :, 0, 0]
    return values[0] if recursion.parts == 1 else values


def _walk(
    recursion: Recursion, rows: GateTable, cols: GateTable, exponents: np.ndarray
) -> np.ndarray:
    left = [form_real(mask, rows) for mask in recursion.masks]
    right = [form_real(mask, cols) for mask in recursion.masks]
    values: list[np.ndarray] = []
    last_use = {
        source: number for number, step in enumerate(recursion.steps) for source in step.sources
    }
    for number, step in enumerate(recursion.steps):
        shift = exponents[number]
        if isinstance(step, Field):
            value = _field(step, values[step.collapse], exponents[step.collapse] - shift, shift)
        else:
            value = np.zeros((step.groups, len(rows), len(cols), step.positions, step.positions))
            for term in step.terms:
                _add_term(value, step, term, values, left, right, exponents, shift)
        values.append(value)
        for source in [s for s, last in last_use.items() if last == number]:
            values[source] = np.empty(0)
    return values[-1]


def _add_term(
    total: np.ndarray,
    step: Collapse,
    term: Term,
    values: list,
    left: list,
    right: list,
    exponents: np.ndarray,
    shift: int,
) -> None:
    """Add sum over the family of V times overlap: ``(groups, n, m, positions, positions)``."""
    cells, places, weights = (a.reshape(-1) for a in (term.cells, term.places, term.weights))
    weights = np.where(cells >= 0, weights, 0.0)
    ends = np.cumsum([0, *term.blocks[:, 3]])
    for into, source, segment, channels in term.blocks:
        product = np.outer(weights, weights)[None, None]
        if term.field is None:
            product = np.ldexp(product, -int(shift))
        else:
            product = product * np.ldexp(
                values[term.field][source][:, :, cells[:, None], cells],
                int(exponents[term.field] - shift),
            )
        if term.mask is None:
            product = product * channels
        else:
            here = slice(ends[segment], ends[segment + 1])
            overlap = _overlaps(left[term.mask][:, :, here], right[term.mask][:, :, here])
            product = product * overlap[:, :, places[:, None], places]
        shape = (*product.shape[:2], step.positions, term.family, step.positions, term.family)
        total[into] += product.reshape(shape).sum((3, 5))


def _overlaps(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Sums over channels, ``(n, m, positions, positions)``: a product a pair, for BLAS rounds by
    the shape of a product.
    """
    return np.ascontiguousarray(left)[:, None] @ np.ascontiguousarray(right.swapaxes(1, 2))[None]


def _field(step: Field, collapsed: np.ndarray, grow: int, shift: int) -> np.ndarray:
    total = np.zeros((*collapsed.shape[:3], step.positions, step.positions))
    for tap in step.taps:
        inside = tap >= 0
        total += collapsed[:, :, :, tap[:, None], tap] * np.outer(inside, inside)
    return np.ldexp(total * step.factor, int(grow)) + np.ldexp(step.bias, -int(shift))


class ReferenceBackend(Backend):
    """The reference as a backend: see :class:`npk.backends.base.Backend` for each method."""

    def __init__(self, recursion: Recursion, table: GateTable, dtype: str) -> None:
        self.recursion, self.dtype = recursion, np.dtype(dtype)

    @property
    def bytes_a_sample(self) -> int:
        """Bytes of one sample's masks, on one side."""
        return sum(8 * mask.products * mask.width for mask in self.recursion.masks)

    @property
    def bytes_a_pair(self) -> int:
        """Bytes of the fields of one pair."""
        families = [
            term.cells.size
            for step in self.recursion.steps
            if isinstance(step, Collapse)
            for term in step.terms
        ]
        return (
            8
            * 6
            * max(*families, *(step.groups * step.positions for step in self.recursion.steps)) ** 2
        )

    def side(self, table: GateTable) -> GateTable:
        """The table itself: masks are formed in each tile."""
        return table

    def tile(
        self,
        rows: GateTable,
        cols: GateTable,
        exponents: np.ndarray,
        diagonal: int | None = None,
        memory: np.ndarray | None = None,
        told: Told | None = None,
    ) -> np.ndarray:
        """The kernel of all pairs divided by 2**exponents[-1]."""
        return evaluate(self.recursion, rows, cols, exponents).astype(self.dtype)
